"""Measures the gateway's cost: the same loads on a server without it and on one with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping

from tools.bench.common import FOLDER, Result
from tools.bench.load import Load, measure
from tools.bench.pictures import photographs
from tools.gateway.common import Served, served

# By model, and by protocol and number of clients.
Results = Mapping[tuple[str, str], Result]


async def cost(device: str, scale: float) -> AsyncIterator[str]:
    """Latency and throughput without and with the gateway, over REST and gRPC."""
    results = []
    for gateway in (False, True):
        with served(device, gateway=gateway) as server:
            results.append(run(server, scale))
            precisions = {m: server.management.describe(m)["precision"] for m in server.models}
    yield ", ".join(f"{model} in {precision}" for model, precision in precisions.items())
    bare, behind = results
    for line in table(bare, behind):
        yield line


def run(server: Served, scale: float) -> Results:
    """Each load of the measurement on ``server``; ``scale`` multiplies its seconds."""
    results, picture = {}, photographs(FOLDER)["1280x720"]
    urls = {"REST": server.config.inference, "gRPC": f"grpc://{server.config.grpc}"}
    for model, task in server.models.items():
        seconds = scale * task.seconds
        # TorchScript optimises on a worker's first batches.
        measure(Load("warm-up", urls["REST"], model, picture, seconds / 2, task.clients))
        for protocol, url in urls.items():
            for clients in (1, task.clients):
                label = f"{protocol}, {clients} client(s)"
                logging.info("%s, %s", model, label)
                load = Load(label, url, model, picture, seconds, clients)
                results[model, label] = measure(load)
    return results


def table(
    bare: Results, behind: Results, names: tuple[str, str] = ("bare", "gateway")
) -> Iterator[str]:
    """Each load on two servers of these names: p50 in ms, answers per second, and both ratios."""
    head = (f"{names[0]} p50", names[1], "ratio", f"{names[0]} 1/s", names[1], "ratio")
    yield f"{'':<32}" + "".join(f"{column:>10}" for column in head)
    for key, without in bare.items():
        pairs = (without.ms[0], behind[key].ms[0]), (without.rate, behind[key].rate)
        cells = [f"{a:>10.2f}{b:>10.2f}{b / a:>10.3f}" for a, b in pairs]
        yield f"{', '.join(key):<32}" + "".join(cells)
