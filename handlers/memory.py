"""Return the memory of large requests to the system.

A body of 16 MB, its copies on the way to the decoder, and the network's intermediate results
fragment the C library's heap: after hours of mixed uploads a worker holds hundreds of megabytes
that nothing uses.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import Any

# The system zeroes returned pages when they are used again: not worth it for a photograph.
LARGE_BYTES = 8 * 2**20
# A field costs this beside its value: a name, a header of its own, entries in two maps.
FIELD_BYTES = 600
# By then TorchServe has sent the answers and dropped the requests.
DELAY_S = 0.2

# glibc only.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
_M_ARENA_MAX = -8  # malloc.h


def use_one_heap() -> None:
    """Make all threads allocate from the main heap; call this before any thread starts.

    Otherwise each thread has a heap of its own, which keeps up to 64 MB of its largest request:
    malloc_trim returns the end of the main heap only.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)


def give_back_after(rows: Sequence[Mapping[str, Any]]) -> None:
    """Call this once ``rows``, a batch, are answered. Returns at once."""
    sizes = (len(v) for row in rows for v in row.values() if isinstance(v, (bytes, bytearray)))
    fields = sum(map(len, rows))
    if _trim is not None and sum(sizes) + fields * FIELD_BYTES > LARGE_BYTES:
        timer = threading.Timer(DELAY_S, _trim, (0,))
        timer.daemon = True
        timer.start()
