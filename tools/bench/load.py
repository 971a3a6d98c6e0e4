"""The load generator: closed and open loops, in a process of its own.

No established tool does both loops, latency without coordinated omission, REST and gRPC.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serving.errors import ServingError
from tools.bench.common import Result, process
from vision_client.endpoint import Access, Endpoint
from vision_client.errors import VisionError
from vision_client.rest import Rest
from vision_client.rpc import Rpc

# Clients of an open loop: more requests than a server holds with TorchServe and in its queue.
OPEN_CLIENTS = 128
TIMEOUT_S = 300
BUSY = 0.8  # of a core; Python threads use one at most
WARM_UP = 0.3  # of the seconds that count


@dataclass(frozen=True)
class Load:
    """What to send to ``url`` (http or grpc), for ``seconds`` after a warm-up.

    In a closed loop each of ``clients`` sends again as soon as it has its reply. With a ``rate``
    (requests/s) the loop is open: requests arrive in a Poisson process whatever the server does,
    and the next free client sends them. Latency counts from the arrival, so that a server which
    stalls is charged for everyone who waits.
    """

    label: str
    url: str
    model: str
    picture: Path
    seconds: float
    clients: int
    rate: float = 0.0


class Sample(NamedTuple):
    due: float  # the arrival of a request, by time.monotonic
    done: float  # its reply
    error: str  # or ""


def measure(load: Load) -> Result:
    """Run ``load`` in a process of its own. ServingError if a closed loop meets an error."""
    with process() as pool:
        return pool.submit(_run, load).result()


def _run(load: Load) -> Result:
    endpoint, picture = Endpoint.parse(load.url), load.picture.read_bytes()
    connect = Rpc if endpoint.is_grpc else Rest
    clients = [connect(endpoint, Access()) for _ in range(load.clients)]
    return loop([partial(_send, client, load.model, picture) for client in clients], load)


def _send(client: Rest | Rpc, model: str, picture: bytes) -> str:
    try:
        client.send(model, picture, {}, TIMEOUT_S)
    except VisionError as error:
        return str(error)
    return ""


def loop(senders: Sequence[Callable[[], str]], load: Load) -> Result:
    """Run ``load`` with a thread for each of ``senders``, which return "" or what was wrong."""
    started = time.monotonic()
    begin = started + WARM_UP * load.seconds
    end = begin + load.seconds
    # Twice as many as are due by the end. Threads can share the iterator of a list.
    count = int(2 * load.rate * (end - started)) + 100
    gaps = np.random.default_rng(0).exponential(1 / (load.rate or 1), count)
    arrivals = iter((started + gaps.cumsum()).tolist())

    def run(send: Callable[[], str]) -> list[Sample]:
        """What was sent from ``begin`` to ``end``: in a closed loop, at least one request."""
        samples: list[Sample] = []
        due = next(arrivals) if load.rate else started
        while due < end or not (samples or load.rate):
            time.sleep(max(due - time.monotonic(), 0))
            sample = Sample(due, error=send(), done=time.monotonic())
            if due >= begin:
                samples.append(sample)
            due = next(arrivals) if load.rate else sample.done
        return samples

    with ThreadPoolExecutor(len(senders)) as threads:
        results = threads.map(run, senders)
        time.sleep(max(begin - time.monotonic(), 0))
        cpu = time.process_time()
        time.sleep(max(end - time.monotonic(), 0))
        cpu = (time.process_time() - cpu) / (load.seconds or 1)
        samples = [sample for result in results for sample in result]
    if cpu > BUSY:
        logging.warning("%s, %s: the clients may be the limit", load.model, load.label)
    return summarise(load, samples, begin, end)


def summarise(load: Load, samples: Sequence[Sample], begin: float, end: float) -> Result:
    good = [sample for sample in samples if not sample.error]
    errors = Counter(sample.error for sample in samples if sample.error)
    if not good or (errors and not load.rate):
        raise ServingError(f"{load.model}, {load.label}: {dict(errors)}")
    if load.rate:
        rate = len(good) / (max(end, *(sample.done for sample in good)) - begin)
    else:
        # Interactive response-time law: clients / mean cycle. A count in the window would be off
        # by up to a batch.
        rate = load.clients * len(good) / sum(sample.done - sample.due for sample in good)
    latencies = [1e3 * (sample.done - sample.due) for sample in good]
    ms = np.percentile(latencies, (50, 95, 99), method="inverted_cdf").tolist()
    return Result(load.label, rate, tuple(ms))
