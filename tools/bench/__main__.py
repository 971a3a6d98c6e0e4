"""Measures the speed of the bundle, of the bare networks, of stock TorchServe and LitServe.

Commands: compare (the default), threads (one worker with all cores beside several), gpu (what
limits classifiers on a GPU), ray (Ray Serve beside the bundle, and the limit of its proxy), profile
(the time that a request spends in each stage of the running server). Unmet goals do not change the
exit status.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def main() -> int:
    # Not at the top: the benchmark's own processes import this module, and must stay small.
    from serving import commandline
    from serving.config import Config
    from serving.machine import count_gpus
    from serving.runfolder import RunFolder
    from tools import bundle, server
    from tools.bench import compare, gpu, profile, ray_serve, threads
    from tools.bench.common import STORE

    commands: dict[str, Callable[[Config, str, bool, Path], int]] = {
        "compare": compare.run, "threads": threads.run, "gpu": gpu.run,
        "ray": ray_serve.run,
    }  # fmt: skip
    parser = server.parser("tools.bench", __doc__)
    parser.add_argument("command", nargs="?", choices=[*commands, "profile"], default="compare")
    parser.add_argument("--quick", action="store_true", help="one short round, no curves")
    parser.add_argument("--device", type=commandline.device, default="auto")
    parser.add_argument(
        "--store", type=Path, metavar="DIR",
        help="archives to measure as they are (default: untrained ones, which are exported)",
    )  # fmt: skip
    arguments = parser.parse_args()
    logging.basicConfig(format="%(relativeCreated)8.0f ms  %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends every server, as Ctrl-C does

    def command(config: Config, _: RunFolder) -> int:
        device = "gpu" if count_gpus(arguments.device) else "cpu"
        store = arguments.store or STORE
        if store == STORE:
            bundle.export(store)
        return commands[arguments.command](config, device, arguments.quick, store)

    if arguments.command == "profile":
        return commandline.run_beside(profile.run, arguments)
    return commandline.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
