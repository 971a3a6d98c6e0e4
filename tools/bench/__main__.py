"""How fast the bundle is, beside the bare networks and stock TorchServe.

Commands: compare (the default), gpu (what limits classifiers on a GPU), profile (where a request's
time goes, on the running server). Goals that are not met are facts, not failures.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path


def main() -> int:
    # Not at the top: the benchmark's own processes import this module, and must stay small.
    from serving.errors import ServingError
    from serving.machine import DEVICES, count_gpus
    from tools.bench import compare, gpu, profile
    from tools.bench.common import BenchError

    commands = {"compare": compare.run, "gpu": gpu.run, "profile": profile.run}
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("command", nargs="?", choices=[*commands], default="compare")
    parser.add_argument("--quick", action="store_true", help="compare: one short round, no curves")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--config", type=Path, default=Path("config.properties"), help="profile")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(relativeCreated)8.0f ms  %(message)s", level=logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends every server, as Ctrl-C does
    try:
        arguments.device = "gpu" if count_gpus(arguments.device) else "cpu"
        commands[arguments.command](arguments)
    except (BenchError, ServingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
