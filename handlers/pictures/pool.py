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
from handlers.metadata import Spec
from handlers.pictures.decode import decode, own_process, too_much_memory
from handlers.pictures.limits import Limits
from handlers.pictures.resample import resample

logger = logging.getLogger(__name__)

# -I: nothing of the environment decides what is imported.
_COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
from handlers.pictures import pool
pool.serve()
"""
_ROOT = Path(__file__).parents[2]

# Worker -> process: bytes of the setup, once; resize, bytes of the picture, each time.
# Process -> worker: kind, whether the process ends after it, width, height, bytes.
_SETUP = struct.Struct("<I")
_ASK = struct.Struct("<II")
_REPLY = struct.Struct("<B?III")
_PICTURE, _REFUSED, _FAILED = range(3)

# A process whose resident memory has grown by more since its start, once a picture is answered, is
# replaced: decode_bytes is for the pictures. Sound files of 50 million pixels leave 30 MiB at most.
RESTING_BYTES = 64 * 2**20

# Signals that mean that the picture crashed the decoder. ITIMER_PROF, which measures
# decode_seconds, sends SIGPROF.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}

# Where the machine's memory runs out, Linux ends the processes with the highest value (-1000 to
# 1000) first.
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO = "1000"


class DecodePool:
    """``size`` processes that decode for one model.

    ``decode`` may be called from several threads; each waits for a free process. A process that
    has grown by ``resting_bytes`` is replaced between two pictures.
    """

    def __init__(
        self, spec: Spec, limits: Limits, size: int, resting_bytes: int = RESTING_BYTES
    ) -> None:
        setup = {
            "spec": dataclasses.asdict(dataclasses.replace(spec, labels=())),
            "limits": dataclasses.asdict(limits),
            "resting_bytes": resting_bytes,
        }
        self._setup = json.dumps(setup).encode()
        self._limits = limits
        # None: a process is to be started first.
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(size):
            self._idle.put(_Process(self._setup))

    def decode(
        self, picture: bytes, resize: int | None, deadline: float, *, start_by: float | None = None
    ) -> Image.Image:
        """An encoded picture -> the network's input, RGB; ``resize`` as in ``resample``.

        Both times are by ``time.monotonic``: decoding begins by ``start_by`` (default: the
        deadline) or not at all, and ends by ``deadline``, or its process is killed.

        Raises what ``imaging.decode`` and ``resample`` do, TooLarge beyond ``decode_seconds`` or
        ``decode_bytes``, and Overloaded where a time has passed, memory has run out or the process
        was killed from outside, twice.
        """
        process = self._wait_for_process(deadline if start_by is None else start_by)
        try:
            try:
                process = process or _Process(self._setup)
                answer = process.ask(picture, resize, deadline)
            except _Died as death:
                if death.status in _CRASHES or death.status == -signal.SIGPROF:
                    raise
                # Not the picture's fault: the process was idle, or another needed the memory more.
                logger.warning("a decode process ended (%s); trying on another", death)
                process = _Process(self._setup)
                answer = process.ask(picture, resize, deadline)
            if answer.is_last:
                process.end()
                process = None
                with contextlib.suppress(MemoryError, OSError):  # the next picture tries again
                    process = _Process(self._setup)
            return answer.image()
        except _Died as death:
            raise self._blame(death, len(picture)) from death
        except (MemoryError, OSError) as error:  # OSError: no process could be started
            raise Overloaded("no memory left for this picture: try again") from error
        finally:
            # An exchange that was broken off would give its answer to the next picture.
            self._idle.put(process if process is not None and process.is_idle else None)

    def close(self) -> None:
        """End the processes; the pool must not be in use."""
        while not self._idle.empty():
            process = self._idle.get()
            if process is not None:
                process.end()

    def _wait_for_process(self, start_by: float) -> _Process | None:
        """A free process, or None where one is to be started; Overloaded at ``start_by``."""
        try:
            remaining = start_by - time.monotonic()
            if remaining > 0:
                return self._idle.get(timeout=remaining)
        except queue.Empty:
            pass
        raise Overloaded("the server is busy with other pictures: try again")

    def _blame(self, death: _Died, size: int) -> RequestError:
        logger.warning("a decode process ended (%s) over a picture of %d bytes", death, size)
        if death.status == -signal.SIGPROF:
            return TooLarge(
                f"decoding takes more than the limit of {self._limits.decode_seconds:g} s"
            )
        if death.status in _CRASHES:
            return BadImage("the picture cannot be decoded: it is damaged")
        return Overloaded("the picture was not decoded: try again")


class _Died(Exception):
    """The process ended by itself or was killed from outside; ``status`` as subprocess gives it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"signal {-status}" if status < 0 else f"status {status}")
        self.status = status


@dataclasses.dataclass(frozen=True)
class _Answer:
    kind: int
    is_last: bool  # the process ends after it
    size: tuple[int, int]
    payload: bytearray

    def image(self) -> Image.Image:
        """The picture, or the error that the process answered with."""
        if self.kind == _PICTURE:
            return Image.frombytes("RGB", self.size, bytes(self.payload))
        text = self.payload.decode()
        if self.kind == _FAILED:
            logger.error("a decode process failed for a reason of ours:\n%s", text)
            raise InternalError
        name, _, message = text.partition(":")
        refusal: type[RequestError] = getattr(errors, name)
        raise refusal(message)


class _Process:
    """A decode process and the socket to it. ``is_idle``: it can take a picture."""

    def __init__(self, setup: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            # TorchServe reads the worker's standard output.
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", _COMMAND, str(_ROOT)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
            )
            stack.pop_all()
        self._socket = ours
        self.is_idle = True
        with contextlib.suppress(OSError):  # it died: the first picture will say so
            ours.sendall(_SETUP.pack(len(setup)) + setup)

    def ask(self, picture: bytes, resize: int | None, deadline: float) -> _Answer:
        """Raises _Died where the process ends over it, Overloaded (it is killed) at the deadline.

        Whatever is raised ends the process.
        """
        self.is_idle = False
        try:
            self._socket.settimeout(_remaining(deadline))
            self._socket.sendall(_ASK.pack(resize or 0, len(picture)))
            self._socket.sendall(picture)
            head = _receive(self._socket, _REPLY.size, deadline)
            kind, is_last, width, height, size = _REPLY.unpack(head)
            answer = _Answer(kind, is_last, (width, height), _receive(self._socket, size, deadline))
        except TimeoutError:
            self.end()
            logger.warning("a picture of %d bytes was not decoded in time", len(picture))
            raise Overloaded("the picture was not decoded in time: try again") from None
        except OSError as error:
            raise _Died(self.end()) from error
        except BaseException:
            self.end()
            raise
        self.is_idle = True
        return answer

    def end(self) -> int:
        """Its exit status; killed where it has none yet."""
        self.is_idle = False
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that died a moment ago keeps its own reason.
            return self._child.wait(0.05)
        self._child.kill()
        return self._child.wait()


def _remaining(deadline: float) -> float:
    """Seconds until ``deadline``, as a socket's timeout: 0 would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.001)


def _receive(source: socket.socket, size: int, deadline: float | None = None) -> bytearray:
    """Exactly ``size`` bytes; ConnectionError where the other side ended before."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if deadline is not None:
            source.settimeout(_remaining(deadline))
        count = source.recv_into(view)
        if not count:
            raise ConnectionError("the other side has ended")
        view = view[count:]
    return data


def serve() -> None:
    """Answer pictures until the worker closes the socket or this process has grown too large."""
    with socket.socket(fileno=os.dup(0)) as worker:
        (size,) = _SETUP.unpack(_receive(worker, _SETUP.size))
        values = json.loads(_receive(worker, size))
        spec, limits = Spec.from_map(values["spec"]), Limits(**values["limits"])
        _restrict(limits)
        most = _resident_bytes() + values["resting_bytes"]
        with contextlib.suppress(ConnectionError):
            is_last = False
            while not is_last:
                resize, size = _ASK.unpack(_receive(worker, _ASK.size))
                kind, shape, payload = _answer(spec, limits, _receive(worker, size), resize)
                is_last = _resident_bytes() - len(payload) > most
                worker.sendall(_REPLY.pack(kind, is_last, *shape, len(payload)))
                worker.sendall(payload)


def _restrict(limits: Limits) -> None:
    # A decoder's warnings would fill the log with what strangers send.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_DATA, (limits.decode_bytes, limits.decode_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # not Linux, or /proc is not there
        _OOM_SCORE.write_text(_FIRST_TO_GO)
    own_process()


def _resident_bytes() -> int:
    """What this process has in memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _answer(
    spec: Spec, limits: Limits, picture: bytearray, resize: int
) -> tuple[int, tuple[int, int], bytes]:
    """Kind, (width, height) and payload of the reply."""
    # CPU time, not the clock's: the same picture has the same answer on a busy machine.
    signal.setitimer(signal.ITIMER_PROF, limits.decode_seconds)
    try:
        image = decode(bytes(picture), limits, resize=resize or spec.resize)
        image = resample(spec, image, resize=resize or None, limits=limits)
        return _PICTURE, image.size, image.tobytes()
    except RequestError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(too_much_memory(limits))
    except Exception:  # noqa: BLE001 - the worker logs it and answers 500
        return _FAILED, (0, 0), traceback.format_exc().encode()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _refusal(error: RequestError) -> tuple[int, tuple[int, int], bytes]:
    return _REFUSED, (0, 0), f"{type(error).__name__}:{error.message}".encode()
