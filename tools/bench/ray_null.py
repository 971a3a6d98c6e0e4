"""A Ray Serve server whose model computes nothing: what it costs is the proxy and the front."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from deploy.ray import cluster
from deploy.ray.messages import Call, Reply
from deploy.ray.options import Options


class Null:
    """Answers every request at once, with the number of requests so far."""

    def __init__(self, *_: Any) -> None:
        self._answered = 0

    async def answer(self, _: Call) -> Reply:
        self._answered += 1
        body = json.dumps({"answered": self._answered}).encode()
        return Reply(200, "application/json", body, weights="null")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.ray_null")
    parser.add_argument("mar", type=Path, help="the archive whose name and options are served")
    parser.add_argument("port", type=int)
    parser.add_argument("grpc_port", type=int)
    parser.add_argument("metrics_port", type=int)
    given = parser.parse_args()
    ports = given.port, given.grpc_port, given.metrics_port
    with cluster.started(os.cpu_count() or 1, "127.0.0.1", *ports):
        from ray import serve

        from deploy.ray.application import application
        from deploy.ray.options import APPLICATION

        arguments = {"archives": [{"source": str(given.mar.resolve())}], "device": "cpu"}
        served = application(Options.model_validate(arguments), Null)
        serve.run(served, name=APPLICATION, route_prefix="/")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.pause()


if __name__ == "__main__":
    main()
