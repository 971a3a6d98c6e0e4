"""Decoding in processes of its own, which can be killed.

Whatever a stranger's file makes a decoder do (work for minutes, fill the memory, crash) ends with
the process that does it, and is answered to that one request: nothing in Python can interrupt a
decoder that runs in C. Each process decodes one picture at a time and gives back the network's
input, so what passes through the sockets is small; ``python -m benchmarks.decode`` prints what that
costs, and what it gains where several pictures are decoded at once.

The processes hold Pillow but neither PyTorch nor the model, and several decode at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path

from PIL import Image

from handlers import errors
from handlers.errors import BadImage, InternalError, Overloaded, RequestError, TooLarge
from handlers.imaging import decode, own_process, too_much_memory
from handlers.limits import Limits
from handlers.resample import resample
from handlers.specs import ModelSpec

logger = logging.getLogger(__name__)

# -I: nothing of the environment decides what is imported.
_COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
from handlers import decode_pool
decode_pool.serve()
"""
_ROOT = Path(__file__).parents[1]

# Worker -> process: bytes of the setup, once; resize, bytes of the picture, each time.
# Process -> worker: kind, width, height, bytes.
_SETUP = struct.Struct("<I")
_ASK = struct.Struct("<II")
_REPLY = struct.Struct("<BIII")
_PICTURE, _REFUSED, _FAILED = range(3)

# What a process dies of when its file was the cause. ITIMER_PROF, which measures decode_seconds,
# sends SIGPROF.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}


class DecodePool:
    """``size`` processes that decode for one model.

    ``decode`` may be called from several threads; each waits for a free process.
    """

    def __init__(self, spec: ModelSpec, limits: Limits, size: int) -> None:
        setup = {
            "spec": dataclasses.replace(spec, labels=()).to_json(),
            "limits": dataclasses.asdict(limits),
        }
        self._setup = json.dumps(setup).encode()
        self._limits = limits
        # None: a process is to be started first.
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(size):
            self._idle.put(_Process(self._setup))

    def decode(self, picture: bytes, resize: int | None, deadline: float) -> Image.Image:
        """An encoded picture -> the network's input, RGB; ``resize`` as in ``resample``.

        ``deadline`` is by ``time.monotonic``. Raises what ``imaging.decode`` and ``resample`` do,
        TooLarge beyond ``decode_seconds`` or ``decode_bytes``, and Overloaded at the deadline.
        """
        try:
            process = self._idle.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            raise Overloaded("the server is busy with other pictures: try again") from None
        try:
            process = process or _Process(self._setup)
            return process.decode(picture, resize, deadline)
        except _Died as death:
            process = None
            raise self._blame(death, len(picture)) from death
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes; the pool must not be in use."""
        while not self._idle.empty():
            process = self._idle.get()
            if process is not None:
                process.end()

    def _blame(self, death: _Died, size: int) -> RequestError:
        logger.warning("a decode process ended (%s) over a picture of %d bytes", death, size)
        if death.status == -signal.SIGPROF:
            return TooLarge(
                f"decoding takes more than the limit of {self._limits.decode_seconds:g} s"
            )
        if death.status in _CRASHES:
            return BadImage("the picture cannot be decoded: it is damaged")
        return Overloaded("the picture was not decoded in time: try again")


class _Died(Exception):
    """The process ended, or was ended at the deadline, with ``status`` as subprocess gives it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"signal {-status}" if status < 0 else f"status {status}")
        self.status = status


class _Process:
    def __init__(self, setup: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", _COMMAND, str(_ROOT)], stdin=theirs.fileno()
            )
        self._socket = ours
        with contextlib.suppress(OSError):  # it died: the first decode will say so
            ours.sendall(_SETUP.pack(len(setup)) + setup)

    def decode(self, picture: bytes, resize: int | None, deadline: float) -> Image.Image:
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self._socket.sendall(_ASK.pack(resize or 0, len(picture)))
            self._socket.sendall(picture)
            kind, width, height, size = _REPLY.unpack(_receive(self._socket, _REPLY.size))
            payload = _receive(self._socket, size)
        except OSError as error:  # a timeout too
            raise _Died(self.end()) from error
        if kind == _PICTURE:
            return Image.frombytes("RGB", (width, height), bytes(payload))
        text = payload.decode()
        if kind == _FAILED:
            logger.error("a decode process failed for a reason of ours:\n%s", text)
            raise InternalError
        refusal: type[RequestError] = getattr(errors, text.split(":", 1)[0])
        raise refusal(text.split(":", 1)[1])

    def end(self) -> int:
        """Its exit status; killed where it has none yet."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that died a moment ago keeps its own reason.
            return self._child.wait(0.05)
        self._child.kill()
        return self._child.wait()


def _receive(source: socket.socket, size: int) -> bytearray:
    """Exactly ``size`` bytes; ConnectionError where the other side ended before."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = source.recv_into(view)
        if not count:
            raise ConnectionError("the other side has ended")
        view = view[count:]
    return data


def serve() -> None:
    """What a process does, until the worker closes its socket."""
    with socket.socket(fileno=os.dup(0)) as worker:
        (size,) = _SETUP.unpack(_receive(worker, _SETUP.size))
        values = json.loads(_receive(worker, size))
        spec, limits = ModelSpec.from_json(values["spec"]), Limits(**values["limits"])
        _restrict(limits)
        with contextlib.suppress(ConnectionError):
            while True:
                resize, size = _ASK.unpack(_receive(worker, _ASK.size))
                worker.sendall(_answer(spec, limits, _receive(worker, size), resize))


def _restrict(limits: Limits) -> None:
    # A decoder's warnings would fill the log with what strangers send.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_DATA, (limits.decode_bytes, limits.decode_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own_process()


def _answer(spec: ModelSpec, limits: Limits, picture: bytearray, resize: int) -> bytes:
    # CPU time, not the clock's: the same picture has the same answer on a busy machine.
    signal.setitimer(signal.ITIMER_PROF, limits.decode_seconds)
    try:
        image = decode(bytes(picture), limits, resize=resize or spec.resize)
        image = resample(spec, image, resize=resize or None, limits=limits)
        pixels = image.tobytes()
        return _REPLY.pack(_PICTURE, *image.size, len(pixels)) + pixels
    except RequestError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(too_much_memory(limits))
    except Exception:  # noqa: BLE001 - the worker logs it and answers 500
        return _text(_FAILED, traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _refusal(error: RequestError) -> bytes:
    return _text(_REFUSED, f"{type(error).__name__}:{error.message}")


def _text(kind: int, text: str) -> bytes:
    data = text.encode()
    return _REPLY.pack(kind, 0, 0, len(data)) + data
