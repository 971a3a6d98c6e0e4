"""``python -m tests.impatient``: ``python -m serving``, which waits less before it interferes."""

from __future__ import annotations

import sys

from serving import __main__, watchdog, workers

HANG_S = 4.0
DEAF_S = 15.0


def main() -> int:
    watchdog.HANG_S = HANG_S
    workers.DEAF_S = DEAF_S
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
