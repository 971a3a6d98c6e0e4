"""Return the memory of large requests to the system.

A body of 16 MB, its copies on the way to the decoder, and the network's activations fragment the
C library's heap: after hours of mixed uploads a worker holds hundreds of megabytes of free memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import Any

# Smaller batches are not trimmed: the system must zero returned pages before they are used again.
LARGE_BYTES = 8 * 2**20
# The overhead of a field besides its value: its name, its headers, entries in two dicts.
FIELD_BYTES = 600
# Trim after TorchServe has sent the answers and dropped the requests.
DELAY_S = 0.2

# glibc only.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
_M_ARENA_MAX = -8  # malloc.h


def use_one_heap() -> None:
    """Make all threads allocate from the main heap; call this before any thread starts.

    By default threads get heaps of their own, and each keeps up to 64 MB of its largest request,
    because malloc_trim returns the end of the main heap only.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)


def give_back_after(rows: Sequence[Mapping[str, Any]]) -> None:
    """Trim the heap soon if ``rows``, an answered batch, were large. Returns immediately."""
    sizes = (len(v) for row in rows for v in row.values() if isinstance(v, (bytes, bytearray)))
    fields = sum(map(len, rows))
    if _trim is not None and sum(sizes) + fields * FIELD_BYTES > LARGE_BYTES:
        timer = threading.Timer(DELAY_S, _trim, (0,))
        timer.daemon = True
        timer.start()
