"""Lose a node under load: a head and two worker nodes of Ray, all on this machine.

They serve the model store, the models that classify with two replicas on different nodes. Clients
send a photograph all the time. A worker node is killed and later a new one added, and the table at
the end says what the clients saw.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from deploy.ray import cluster, commands
from deploy.ray.load import CLIENTS, Seen, clients
from serving import commandline, machine
from serving.archives import Archive, read_archives
from serving.config import Config
from serving.sockets import free_ports

EPILOG = """\
Exit status: 0 if every request was answered, perhaps after a retry, and all replicas came back;
else 1.
"""
HOST = "127.0.0.1"
SAMPLE = cluster.ROOT / "tools" / "sample.jpg"
# Of load: before the loss, between it and the new node, and at the end.
SECONDS = 10.0
# Longer than any replica takes to start.
RETURN_S = 300.0
_PAUSE_S = 0.2


def main() -> int:
    parser = commandline.Parser(
        prog="python -m deploy.ray.demo",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model-store", type=Path, default=Path("model_store"), metavar="DIR",
        help="folder of the archives (default: %(default)s)",
    )  # fmt: skip
    store = parser.parse_args().model_store
    signal.signal(signal.SIGTERM, _interrupt)
    config = Config(Path("config.properties").resolve(), {}).move(model_store=store)
    return commandline.guarded(lambda: demo(read_archives(config)))


def demo(archives: Sequence[Archive]) -> int:
    """Show the loss of a node; 0 if it was survived. Raises ServingError if nothing can start."""
    port, grpc_port = free_ports(2, HOST)
    print("starting Ray: a head and two worker nodes on this machine", flush=True)
    # Either node has room for a replica of each model.
    with cluster.started_nodes([len(archives)] * 2, HOST, port, grpc_port) as nodes:
        signal.signal(signal.SIGTERM, _interrupt)  # Ray has set its own
        print("loading the models", flush=True)
        commands.run(_arguments(archives))
        server = f"http://{HOST}:{port}"
        print(f"{CLIENTS} clients of each model send a photograph to {server}", flush=True)
        tasks = {archive.model: archive.task for archive in archives}
        with clients(server, tasks, SAMPLE.read_bytes()) as seen:
            returned = _lose_a_node(nodes, archives, seen)
    _print_table(seen)
    survived = returned and all(each.answers and not each.failed for each in seen.values())
    print(f"the loss of the node was {'survived' if survived else 'NOT survived'}")
    return 0 if survived else 1


def _lose_a_node(nodes: Any, archives: Sequence[Archive], seen: Mapping[str, Seen]) -> bool:
    """Kill a node, and add another one. Returns whether all replicas came back in time."""
    begun = time.monotonic()
    time.sleep(SECONDS)
    _print_rates("with both nodes", seen, begun)
    places = commands.places(seen)
    lost = max(nodes.worker_nodes, key=lambda node: len(places[node.node_id]))
    print(f"killing a node, which has {' and '.join(sorted(places[lost.node_id]))}", flush=True)
    killed = time.monotonic()
    nodes.remove_node(lost, allow_graceful=False)
    time.sleep(SECONDS)
    _print_rates("without it", seen, killed)
    print("adding a node", flush=True)
    added = time.monotonic()
    cluster.add_node(nodes, len(archives))
    wanted = sum(map(_replicas, archives))
    while True:
        places = commands.places(seen)
        back = time.monotonic()
        if lost.node_id not in places and sum(map(len, places.values())) == wanted:
            break
        if back - added > RETURN_S:
            print(f"{RETURN_S:.0f} s later, replicas are still missing")
            return False
        time.sleep(_PAUSE_S)
    print(f"all replicas run again, {back - added:.0f} s after the node was added", flush=True)
    time.sleep(SECONDS)
    _print_rates("with the new node", seen, back)
    return True


def _arguments(archives: Sequence[Archive]) -> dict[str, Any]:
    sources = [
        {"source": str(archive.path.resolve()), "ray": _placement(_replicas(archive))}
        for archive in archives
    ]
    # All nodes share the cores of this machine.
    threads = max(machine.count_cores() // sum(map(_replicas, archives)), 1)
    return {"archives": sources, "device": "cpu", "threads": threads}


def _replicas(archive: Archive) -> int:
    return 2 if archive.task == "classify" else 1


def _placement(replicas: int) -> dict[str, float]:
    return {"min_replicas": replicas, "max_replicas": replicas, "max_replicas_per_node": 1}


def _print_rates(when: str, seen: Mapping[str, Seen], since: float) -> None:
    now = time.monotonic()
    rates = ", ".join(f"{model} {each.rate(since, now):.1f}/s" for model, each in seen.items())
    print(f"  {when}: {rates}", flush=True)


def _print_table(seen: Mapping[str, Seen]) -> None:
    print("\nwhat the clients saw")
    print(f"  {'model':<12}{'answered':>10}{'retried':>10}{'failed':>10}{'longest wait':>16}")
    for model, each in seen.items():
        print(
            f"  {model:<12}{len(each.answers):>10}{each.retried.total():>10}"
            f"{each.failed.total():>10}{each.longest:>14.1f} s"
        )
    for what in ("retried", "failed"):
        for model, each in seen.items():
            for kind, number in getattr(each, what).items():
                print(f"  {model} {what}: {number} x {kind}")
    print()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
