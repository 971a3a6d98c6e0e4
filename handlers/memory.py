"""Gives the memory of large requests back to the system.

A body of 16 MB, its copies on the way to the decoder, and a network's intermediate results leave
holes of every size in the C library's heap: after hours of mixed uploads a worker holds hundreds of
megabytes that nothing uses.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import Any

# Pages that are given back are zeroed anew when they are next used: not worth it for a photograph.
LARGE_BYTES = 8 * 2**20
# What a field costs beside its value: a name, a header of its own, entries in two maps.
FIELD_BYTES = 600
# By then TorchServe has sent the answers and dropped the requests.
DELAY_S = 0.2

# glibc's; other C libraries do without.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
_M_ARENA_MAX = -8  # malloc.h


def use_one_heap() -> None:
    """Call before a process starts its threads: they then allocate from the main heap.

    Else each has a heap of its own, which keeps up to 64 MB of what its largest request took:
    malloc_trim gives the end of none but the main heap back.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)


def give_back_after(rows: Sequence[Mapping[str, Any]]) -> None:
    """Call once ``rows``, a batch, are answered; returns at once. Small ones cost nothing."""
    sizes = (len(v) for row in rows for v in row.values() if isinstance(v, (bytes, bytearray)))
    fields = sum(map(len, rows))
    if _trim is not None and sum(sizes) + fields * FIELD_BYTES > LARGE_BYTES:
        timer = threading.Timer(DELAY_S, _trim, (0,))
        timer.daemon = True
        timer.start()
