"""Measures the speed of the bundle, of the bare networks, of stock TorchServe and LitServe.

Commands: compare (the default), threads (one worker with all cores beside several), gpu (what
limits classifiers on a GPU), profile (the time that a request spends in each stage of the running
server). Unmet goals do not change the exit status.
"""

from __future__ import annotations

import logging
import signal
import sys


def main() -> int:
    # Not at the top: the benchmark's own processes import this module, and must stay small.
    from serving import commandline
    from serving.machine import DEVICES, count_gpus
    from tools import server
    from tools.bench import compare, gpu, profile, threads

    modules = {"compare": compare, "threads": threads, "gpu": gpu, "profile": profile}
    parser = server.parser("tools.bench", __doc__)
    parser.add_argument("command", nargs="?", choices=[*modules], default="compare")
    parser.add_argument("--quick", action="store_true", help="one short round, no curves")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(relativeCreated)8.0f ms  %(message)s", level=logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends every server, as Ctrl-C does
    return commandline.run(
        lambda config, _: modules[arguments.command].run(
            config, "gpu" if count_gpus(arguments.device) else "cpu", arguments.quick
        ),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
