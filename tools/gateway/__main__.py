"""Measures the gateway, on servers of its own that serve untrained networks.

cost: the same loads without and with the gateway. fair: a greedy client with 64 connections beside
a polite one with one. idle: 10,000 connections that send nothing. stalled: 200 uploads of 16 MiB
that never end. faults: a worker killed, a worker stopped, TorchServe killed, Envoy killed. traces:
the same loads without and with traces. Each part takes one to six minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys


def main() -> int:
    # Imported here, because the load generator's processes import this module and must stay small.
    from serving import commandline
    from serving.commandline import guarded
    from serving.machine import count_gpus
    from tools import bundle
    from tools.bench.common import STORE
    from tools.bench.report import machine
    from tools.gateway.attacks import fair, idle, stalled
    from tools.gateway.cost import cost
    from tools.gateway.faults import faults
    from tools.gateway.traces import traces

    parts = {part.__name__: part for part in (cost, fair, idle, stalled, faults, traces)}
    parser = argparse.ArgumentParser(prog="python -m tools.gateway", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: every part")
    parser.add_argument("--device", type=commandline.device, default="auto")
    parser.add_argument(
        "--scale", type=float, default=1.0,
        help="multiplies numbers and times; less than 1 for a trial (default: %(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - parts.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}: choose from {', '.join(parts)}")
    logging.basicConfig(format="%(relativeCreated)8.0f ms  %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends every server, as Ctrl-C does

    async def measure() -> int:
        bundle.export(STORE)
        device = "gpu" if count_gpus(arguments.device) else "cpu"
        for name in arguments.parts or parts:
            print(f"\n{name}: {machine(device)}", flush=True)
            async for line in parts[name](device, arguments.scale):
                print(f"  {line.rstrip()}", flush=True)
        return 0

    return guarded(lambda: asyncio.run(measure()))


if __name__ == "__main__":
    sys.exit(main())
