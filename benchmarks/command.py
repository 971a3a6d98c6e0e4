"""How both commands of this folder end: nothing keeps running, and the status says why."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from benchmarks.errors import BenchError
from export.errors import ExportError
from serving.errors import ServingError


def status_of(work: Callable[[], int]) -> int:
    """The exit status of ``work``: its own, 1 with the error printed, or 130 after Ctrl-C.

    SIGTERM unwinds like Ctrl-C, so that it too ends every server.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return work()
    except (BenchError, ExportError, ServingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; every server has ended", file=sys.stderr)
        return 130
