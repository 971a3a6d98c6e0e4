"""A pool of processes that decode pictures.

A hostile file can make a decoder compute for minutes, fill the memory or crash, and Python cannot
interrupt C code. A process can be killed, so only that file's request gets an error. Each process
decodes one picture at a time and returns the small network input, so little data passes through
the sockets.

A file may also take over its process. What such a process can reach is bounded by ``sandbox``; its
replies are checked here, and nothing of this process is inherited but the socket.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from handlers.errors import (
    BadImage,
    EmptyBody,
    InternalError,
    LoadError,
    Overloaded,
    RequestError,
    TooLarge,
    UnsupportedFormat,
    attempt,
)
from handlers.metadata import Spec
from handlers.pictures.limits import Limits
from handlers.pictures.process import (
    ASK,
    FAILED,
    PICTURE,
    READY,
    REFUSED,
    REPLY,
    SETUP,
    TEXT_BYTES,
    receive,
    remaining,
)
from handlers.pictures.sandbox import LAYERS

logger = logging.getLogger(__name__)

# Run with -I, so that the environment cannot change what is imported.
_COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
from handlers.pictures import process
process.serve()
"""
# The processes have another working directory than what may be relative in sys.path.
_ROOT = Path(__file__).absolute().parents[2]

# A process is replaced if its resident memory between two pictures has grown by more than this
# since its start, because decode_bytes is meant for pictures. Valid files of 50 million pixels
# leave 30 MiB behind.
RESTING_BYTES = 64 * 2**20

# Signals that mean the picture crashed the decoder. ITIMER_PROF, which measures decode_seconds,
# sends SIGPROF. The sandbox sends SIGSYS.
_VIOLATION = -signal.SIGSYS
_CRASHES = {
    -signal.SIGSEGV,
    -signal.SIGABRT,
    -signal.SIGBUS,
    -signal.SIGFPE,
    -signal.SIGILL,
    _VIOLATION,
}

# What a process may refuse a picture with.
_REFUSALS: dict[str, type[RequestError]] = {
    error.__name__: error for error in (BadImage, EmptyBody, TooLarge, UnsupportedFormat)
}

_START_TIMEOUT_S = 30


@dataclass(frozen=True)
class Encoded:
    """A picture file, and the shorter side to resize it to (None: the network's default)."""

    data: bytes
    resize: int | None = None


@dataclass(frozen=True)
class Pixels:
    """The network's input: ``data`` is ``(H, W, 3) uint8`` in C order, RGB; ``size`` is (W, H)."""

    size: tuple[int, int]
    data: bytearray


class DecodePool:
    """``size`` processes that decode for one network, and a thread to wait for each.

    A process whose resident memory has grown by ``resting_bytes`` is replaced. ``sandbox`` names
    the layers around them, once they are ready; ``ended`` counts the processes that have ended,
    by the reason, one of ``stages.ENDED``.
    """

    def __init__(
        self, spec: Spec, limits: Limits, size: int, resting_bytes: int = RESTING_BYTES
    ) -> None:
        setup = {
            "spec": dataclasses.asdict(dataclasses.replace(spec, labels=())),
            "limits": dataclasses.asdict(limits),
            "resting_bytes": resting_bytes,
        }
        self.sandbox: list[str] = []
        self.ended: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._setup = json.dumps(setup).encode()
        self._limits = limits
        self._size = size
        self._threads = ThreadPoolExecutor(size, "decode")
        # None stands for a process that must be started.
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(size):
            self._idle.put(self._start())

    def wait_until_ready(self, picture: bytes) -> None:
        """Wait for all processes. Raises LoadError unless each of them decodes ``picture``."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        for reply in self.decode_all([Encoded(picture)] * self._size, deadline, deadline):
            # TooLarge is fine: the configured limits may be below the network's input size.
            if isinstance(reply, RequestError) and not isinstance(reply, TooLarge):
                raise LoadError("a decode process does not start; see the worker's log") from reply
        missing = [layer for layer in LAYERS if layer not in self.sandbox]
        if missing:
            logger.warning(
                "this system cannot confine the decode processes by %s (docs/running.md, "
                "Hostile uploads)",
                ", ".join(missing),
            )

    def decode_all(
        self,
        pictures: Sequence[Encoded | RequestError],
        start_by: float,
        deadline: float,
    ) -> list[Pixels | RequestError]:
        """The pixels of each picture, or the error for its request.

        Errors in ``pictures`` are returned unchanged. The times are those of ``decode``.
        """

        def decode(picture: Encoded) -> Pixels:
            return self.decode(picture.data, picture.resize, deadline, start_by=start_by)

        return list(self._threads.map(lambda picture: attempt(decode, picture), pictures))

    def decode(
        self, picture: bytes, resize: int | None, deadline: float, *, start_by: float | None = None
    ) -> Pixels:
        """Decode and resize one picture. Thread-safe.

        Both times are on the clock ``time.monotonic``. Decoding does not begin after ``start_by``
        (default: ``deadline``), and at ``deadline`` its process is killed.

        Raises the errors of ``decode.decode`` and ``resample``; TooLarge beyond ``decode_seconds``
        or ``decode_bytes``; Overloaded if one of the times passes, memory runs out, or the process
        is killed from outside twice.
        """
        process = self._wait_for_process(deadline if start_by is None else start_by)
        try:
            try:
                process = process or self._start()
                reply = process.ask(picture, resize, deadline)
            except _Died as death:
                if death.status in _CRASHES or death.status == -signal.SIGPROF:
                    raise
                # Not the picture's fault: the process died while it was idle, or the system killed
                # it to free memory.
                self._count("killed")
                logger.warning("a decode process ended (%s); trying another", death)
                process = self._start()
                reply = process.ask(picture, resize, deadline)
            self.sandbox = process.sandbox or []
            if reply.is_last:
                self._count("grown")
                process.end()
                process = None
                with contextlib.suppress(MemoryError, OSError):  # the next picture tries again
                    process = self._start()
            if isinstance(reply.answer, RequestError):
                raise reply.answer
            return reply.answer
        except _Died as death:
            raise self._blame(death, len(picture)) from death
        except Overloaded:  # at the deadline, ``ask`` has killed it
            self._count("deadline")
            raise
        except (MemoryError, OSError) as error:  # OSError: no process could be started
            raise Overloaded("no memory left for this picture: try again") from error
        finally:
            # A process with a pending reply would give it to the next picture, so drop it.
            self._idle.put(process if process is not None and process.is_idle else None)

    def close(self) -> None:
        """End the processes. No ``decode`` may be running."""
        self._threads.shutdown()
        while not self._idle.empty():
            process = self._idle.get()
            if process is not None:
                process.end()

    def _start(self) -> _Process:
        return _Process(self._setup, self._limits.network_pixels)

    def _wait_for_process(self, start_by: float) -> _Process | None:
        """An idle process, or None if one must be started. Raises Overloaded at ``start_by``."""
        try:
            seconds = start_by - time.monotonic()
            if seconds > 0:
                return self._idle.get(timeout=seconds)
        except queue.Empty:
            pass
        raise Overloaded("the server is busy with other pictures: try again")

    def _count(self, reason: str) -> None:
        with self._lock:
            self.ended[reason] += 1

    def _blame(self, death: _Died, size: int) -> RequestError:
        logger.warning("a decode process ended (%s) on a picture of %d bytes", death, size)
        if death.status == -signal.SIGPROF:
            self._count("time")
            return TooLarge(
                f"decoding takes more than the limit of {self._limits.decode_seconds:g} s"
            )
        if death.status == _VIOLATION:
            self._count("violation")
            logger.error("a decode process tried what no decoder does: the file may be an attack")
        if death.status in _CRASHES:
            if death.status != _VIOLATION:
                self._count("crash")
            return BadImage("the picture cannot be decoded: it is damaged")
        self._count("killed")
        return Overloaded("the picture was not decoded: try again")


class _Died(Exception):
    """The process ended or was killed; ``status`` is its return code in ``subprocess``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"signal {-status}" if status < 0 else f"status {status}")
        self.status = status


@dataclass(frozen=True)
class _Reply:
    answer: Pixels | RequestError
    is_last: bool  # the process ends after this reply


class _Process:
    """A decode process and the socket to it. If ``is_idle``, it can take a picture.

    ``sandbox`` names the layers around it, from its first reply on.
    """

    def __init__(self, setup: bytes, most_pixels: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            # TorchServe parses the worker's standard output, which this process must not share.
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", _COMMAND, str(_ROOT)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={},
            )
            stack.pop_all()
        self._socket = ours
        self._most_pixels = most_pixels
        self.is_idle = True
        self.sandbox: list[str] | None = None
        with contextlib.suppress(OSError):  # if it died, the first picture will show that
            ours.sendall(SETUP.pack(len(setup)) + setup)

    def ask(self, picture: bytes, resize: int | None, deadline: float) -> _Reply:
        """Have ``picture`` decoded and resized (``resize`` None: to the network's default).

        Raises _Died if the process ends or its reply is not one, Overloaded at the deadline. After
        any exception the process has ended.
        """
        self.is_idle = False
        try:
            self._socket.settimeout(remaining(deadline))
            self._socket.sendall(ASK.pack(resize or 0, len(picture)))
            self._socket.sendall(picture)
            if self.sandbox is None:
                self.sandbox = self._read_layers(deadline)
            reply = self._read_reply(deadline)
        except TimeoutError:
            self.end()
            logger.warning("a picture of %d bytes was not decoded in time", len(picture))
            raise Overloaded("the picture was not decoded in time: try again") from None
        except OSError as error:
            raise _Died(self.end(patience=1)) from error  # a busy machine is slow to end it
        except (ValueError, KeyError) as error:
            self.end()
            raise _Died(_VIOLATION) from error
        except BaseException:
            self.end()
            raise
        self.is_idle = True
        return reply

    def _read_layers(self, deadline: float) -> list[str]:
        kind, _, _, _, size = REPLY.unpack(receive(self._socket, REPLY.size, deadline))
        assert kind == READY  # no picture has reached the process yet
        layers: list[str] = json.loads(receive(self._socket, size, deadline))
        return layers

    def _read_reply(self, deadline: float) -> _Reply:
        """Raises ValueError or KeyError if what comes is not a reply to a picture."""
        head = receive(self._socket, REPLY.size, deadline)
        kind, is_last, width, height, size = REPLY.unpack(head)
        if kind == PICTURE:
            if not 0 < size == 3 * width * height <= 3 * self._most_pixels:
                raise ValueError(f"a picture of {width}x{height} pixels and {size} bytes")
            payload = receive(self._socket, size, deadline)
            return _Reply(Pixels((width, height), payload), is_last)
        if size > TEXT_BYTES:
            raise ValueError(f"a text of {size} bytes")
        text = receive(self._socket, size, deadline).decode(errors="replace")
        if kind == REFUSED:
            name, _, message = text.partition(":")
            return _Reply(_REFUSALS[name](message), is_last)
        if kind == FAILED:
            logger.error("a decode process failed because of a bug:\n%s", text)
            return _Reply(InternalError(), is_last)
        raise ValueError(f"a reply of kind {kind}")

    def end(self, patience: float = 0.05) -> int:
        """End the process, after ``patience`` seconds by SIGKILL; returns its exit status."""
        self.is_idle = False
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # If it has just died, do not replace its own exit status by that of SIGKILL.
            return self._child.wait(patience)
        self._child.kill()
        return self._child.wait()
