"""Decoding in separate processes, which can be killed.

A stranger's file can make a decoder compute for minutes, fill the memory or crash. That ends with
the process, and only this request gets an error: nothing in Python can interrupt a decoder that
runs in C. Each process decodes one picture at a time and returns the network's input, so little
data passes through the sockets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from handlers import errors
from handlers.errors import (
    BadImage,
    InternalError,
    LoadError,
    Overloaded,
    RequestError,
    TooLarge,
    attempt,
)
from handlers.metadata import Spec
from handlers.pictures.limits import Limits
from handlers.pictures.process import ASK, FAILED, PICTURE, REPLY, SETUP, receive, remaining

logger = logging.getLogger(__name__)

# -I: the environment has no influence on what is imported.
_COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
from handlers.pictures import process
process.serve()
"""
_ROOT = Path(__file__).parents[2]

# Between two pictures, a process is replaced if its resident memory has grown by more than this
# since its start: decode_bytes is for the pictures. Valid files of 50 million pixels leave 30 MiB.
RESTING_BYTES = 64 * 2**20

# Signals that mean the picture crashed the decoder. ITIMER_PROF, which measures decode_seconds,
# sends SIGPROF.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}

_START_TIMEOUT_S = 30


@dataclass(frozen=True)
class Encoded:
    """A picture file, and the shorter side that it is resized to (None: the network's default)."""

    data: bytes
    resize: int | None = None


@dataclass(frozen=True)
class Pixels:
    """The network's input: ``data`` is ``(H, W, 3) uint8`` in C order, RGB; ``size`` is (W, H)."""

    size: tuple[int, int]
    data: bytearray


class DecodePool:
    """``size`` processes that decode for one network, and the threads that wait for them.

    A process that has grown by ``resting_bytes`` is replaced between two pictures.
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
        self._size = size
        self._threads = ThreadPoolExecutor(size, "decode")
        # None: a process must be started first.
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(size):
            self._idle.put(_Process(self._setup))

    def wait_until_ready(self) -> None:
        """Raise LoadError unless every process decodes a small picture."""
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG")
        picture = Encoded(buffer.getvalue())
        deadline = time.monotonic() + _START_TIMEOUT_S
        for reply in self.decode_all([picture] * self._size, deadline, deadline):
            # TooLarge is an answer too: limits may be lower than the network's own size.
            if isinstance(reply, RequestError) and not isinstance(reply, TooLarge):
                raise LoadError("a decode process does not start; its output says why") from reply

    def decode_all(
        self,
        pictures: Sequence[Encoded | RequestError],
        start_by: float,
        deadline: float,
    ) -> list[Pixels | RequestError]:
        """Each picture's pixels, or the error that its request is answered with.

        An error among ``pictures`` is returned in its place. The times are as in ``decode``.
        """

        def one(picture: Encoded | RequestError) -> Pixels | RequestError:
            if isinstance(picture, RequestError):
                return picture
            return attempt(self.decode, picture.data, picture.resize, deadline, start_by=start_by)

        return list(self._threads.map(one, pictures))

    def decode(
        self, picture: bytes, resize: int | None, deadline: float, *, start_by: float | None = None
    ) -> Pixels:
        """Decode and resize one picture; several threads may call this at the same time.

        Both times are those of ``time.monotonic``: decoding begins by ``start_by`` (default: the
        deadline) or not at all, and ends by ``deadline``, or its process is killed.

        Raises what ``decode.decode`` and ``resample`` do; TooLarge beyond ``decode_seconds`` or
        ``decode_bytes``; Overloaded if a time has passed, memory has run out, or the process was
        killed from outside twice.
        """
        process = self._wait_for_process(deadline if start_by is None else start_by)
        try:
            try:
                process = process or _Process(self._setup)
                reply = process.ask(picture, resize, deadline)
            except _Died as death:
                if death.status in _CRASHES or death.status == -signal.SIGPROF:
                    raise
                # Not the picture's fault: the process was idle, or the system needed its memory.
                logger.warning("a decode process ended (%s); trying on another", death)
                process = _Process(self._setup)
                reply = process.ask(picture, resize, deadline)
            if reply.is_last:
                process.end()
                process = None
                with contextlib.suppress(MemoryError, OSError):  # the next picture tries again
                    process = _Process(self._setup)
            return reply.pixels()
        except _Died as death:
            raise self._blame(death, len(picture)) from death
        except (MemoryError, OSError) as error:  # OSError: no process could be started
            raise Overloaded("no memory left for this picture: try again") from error
        finally:
            # A process whose exchange was broken off would give its reply to the next picture.
            self._idle.put(process if process is not None and process.is_idle else None)

    def close(self) -> None:
        """End the processes; the pool must not be in use."""
        self._threads.shutdown()
        while not self._idle.empty():
            process = self._idle.get()
            if process is not None:
                process.end()

    def _wait_for_process(self, start_by: float) -> _Process | None:
        """A free process, or None if one must be started; raises Overloaded at ``start_by``."""
        try:
            seconds = start_by - time.monotonic()
            if seconds > 0:
                return self._idle.get(timeout=seconds)
        except queue.Empty:
            pass
        raise Overloaded("the server is busy with other pictures: try again")

    def _blame(self, death: _Died, size: int) -> RequestError:
        logger.warning("a decode process ended (%s) on a picture of %d bytes", death, size)
        if death.status == -signal.SIGPROF:
            return TooLarge(
                f"decoding takes more than the limit of {self._limits.decode_seconds:g} s"
            )
        if death.status in _CRASHES:
            return BadImage("the picture cannot be decoded: it is damaged")
        return Overloaded("the picture was not decoded: try again")


class _Died(Exception):
    """The process ended or was killed from outside; ``status`` is that of subprocess."""

    def __init__(self, status: int) -> None:
        super().__init__(f"signal {-status}" if status < 0 else f"status {status}")
        self.status = status


@dataclass(frozen=True)
class _Reply:
    kind: int
    is_last: bool  # the process ends after this reply
    size: tuple[int, int]
    payload: bytearray

    def pixels(self) -> Pixels:
        """The picture; raises the error that the process replied with."""
        if self.kind == PICTURE:
            return Pixels(self.size, self.payload)
        text = self.payload.decode()
        if self.kind == FAILED:
            logger.error("a decode process failed because of a bug:\n%s", text)
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
        with contextlib.suppress(OSError):  # it died: the first picture will show that
            ours.sendall(SETUP.pack(len(setup)) + setup)

    def ask(self, picture: bytes, resize: int | None, deadline: float) -> _Reply:
        """Raises _Died if the process ends; Overloaded at the deadline, when it is killed.

        Any exception ends the process.
        """
        self.is_idle = False
        try:
            self._socket.settimeout(remaining(deadline))
            self._socket.sendall(ASK.pack(resize or 0, len(picture)))
            self._socket.sendall(picture)
            head = receive(self._socket, REPLY.size, deadline)
            kind, is_last, width, height, size = REPLY.unpack(head)
            payload = receive(self._socket, size, deadline)
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
        return _Reply(kind, is_last, (width, height), payload)

    def end(self) -> int:
        """Kill the process if it still runs; returns its exit status."""
        self.is_idle = False
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A process that died a moment ago keeps its own status.
            return self._child.wait(0.05)
        self._child.kill()
        return self._child.wait()
