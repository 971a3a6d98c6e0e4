"""A decode process: reads pictures from a socket and replies with the network's input pixels.

It imports Pillow but not PyTorch, and is in a sandbox when the first picture comes. The worker's
side is ``pool``.

``multiprocessing.connection`` is not used because its send has no timeout, so that a stopped
process would block its worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path

from handlers.errors import RequestError
from handlers.metadata import Spec
from handlers.pictures import sandbox
from handlers.pictures.decode import decode, own_process, too_much_memory
from handlers.pictures.limits import Limits
from handlers.pictures.resample import resample

# Headers, each followed by its payload.
# Worker -> process: the setup's length, once; then for each picture: resize, the file's length.
# Process -> worker: kind, whether it is the last reply, width, height, the payload's length; first
# READY, whose payload names the layers of the sandbox, then one reply for each picture.
SETUP = struct.Struct("<I")
ASK = struct.Struct("<II")
REPLY = struct.Struct("<B?III")
READY, PICTURE, REFUSED, FAILED = range(4)
TEXT_BYTES = 64 * 2**10  # the longest payload other than a picture

# When memory runs out, Linux first kills the processes with the highest score (-1000 to 1000).
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO = "1000"

# Kind, (width, height) and payload of a reply.
_Reply = tuple[int, tuple[int, int], bytes]


def remaining(deadline: float) -> float:
    """Seconds until ``deadline`` as a socket timeout. Never 0, which would mean non-blocking."""
    return max(deadline - time.monotonic(), 0.001)


def receive(source: socket.socket, size: int, deadline: float | None = None) -> bytearray:
    """Read exactly ``size`` bytes.

    Raises ConnectionError if the other side closes the socket, TimeoutError at ``deadline``.
    """
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if deadline is not None:
            source.settimeout(remaining(deadline))
        count = source.recv_into(view)
        if not count:
            raise ConnectionError("the other side has ended")
        view = view[count:]
    return data


def serve() -> None:
    """Decode pictures until the worker closes the socket or this process has grown too large."""
    with socket.socket(fileno=0) as worker:
        (size,) = SETUP.unpack(receive(worker, SETUP.size))
        values = json.loads(receive(worker, size))
        spec, limits = Spec.from_map(values["spec"]), Limits(**values["limits"])
        statm = _prepare(limits)
        layers = sandbox.enter()
        largest = _resident_bytes(statm) + values["resting_bytes"]
        with contextlib.suppress(ConnectionError):
            _send(worker, (READY, (0, 0), json.dumps(layers).encode()))
            is_last = False
            while not is_last:
                resize, size = ASK.unpack(receive(worker, ASK.size))
                reply = _answer(spec, limits, receive(worker, size), resize)
                is_last = _resident_bytes(statm) - len(reply[2]) > largest
                _send(worker, reply, is_last)


def _prepare(limits: Limits) -> int | None:
    """Everything that the sandbox will not allow; returns the file that ``_resident_bytes`` reads.

    After it, nothing of this process is written to the log.
    """
    own_process()
    warnings.simplefilter("ignore")
    sys.excepthook = lambda *_: None  # a traceback would read source files
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.dup2(1, 2)
    with contextlib.suppress(OSError):  # not Linux, or no /proc
        _OOM_SCORE.write_text(_FIRST_TO_GO)
    resource.setrlimit(resource.RLIMIT_DATA, (limits.decode_bytes, limits.decode_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None


def _resident_bytes(statm: int | None) -> int:
    """The resident memory of this process; 0 if the system does not report it."""
    if statm is None:
        return 0
    return int(os.pread(statm, 100, 0).split()[1]) * resource.getpagesize()


def _send(worker: socket.socket, reply: _Reply, is_last: bool = False) -> None:
    kind, shape, payload = reply
    worker.sendall(REPLY.pack(kind, is_last, *shape, len(payload)))
    worker.sendall(payload)


def _answer(spec: Spec, limits: Limits, picture: bytearray, resize: int) -> _Reply:
    # CPU time, not wall time: a picture gets the same answer on a busy machine.
    signal.setitimer(signal.ITIMER_PROF, limits.decode_seconds)
    try:
        image = decode(bytes(picture), limits, resize=resize or spec.resize)
        image = resample(spec, image, resize=resize or None, limits=limits)
        return PICTURE, image.size, image.tobytes()
    except RequestError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(too_much_memory(limits))
    except Exception as error:  # noqa: BLE001 - the worker logs it and answers 500
        return FAILED, (0, 0), _trace(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _trace(error: Exception) -> bytes:
    """The type of ``error`` and the functions that it passed through.

    Their source cannot be read, and the message may quote the picture.
    """
    lines = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return "\n".join([*lines, type(error).__name__]).encode()[-TEXT_BYTES:]


def _refusal(error: RequestError) -> _Reply:
    return REFUSED, (0, 0), f"{type(error).__name__}:{error.message}".encode()
