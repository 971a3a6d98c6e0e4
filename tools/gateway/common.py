"""A server for the measurements, its processes, and clients that record their answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np
import psutil

from serving.config import Config
from serving.errors import ServingError
from serving.management import Management
from serving.runfolder import RunFolder
from tools import bundle, server
from tools.bench.common import FOLDER, STORE, TASKS, Task
from tools.bench.load import Sample
from tools.bench.pictures import photographs

TIMEOUT_S = 60.0  # the longest that a client waits for one answer
BACK_S = 0.5  # a client's pause after an error


@dataclass(frozen=True)
class Served:
    """A running server and its models with their tasks; ``picture`` is what clients send."""

    config: Config
    run: RunFolder
    management: Management
    models: dict[str, Task]
    picture: bytes

    @property
    def classifier(self) -> str:
        return next(model for model, task in self.models.items() if task.name == "classify")

    def process(self, name: str) -> psutil.Process:
        """The server's process ``name``: envoy or java. ServingError if it has none."""
        supervisor = self.run.supervisor()
        for child in supervisor.children() if supervisor else ():
            if child.name() == name:
                return child
        raise ServingError(f"the server of {self.run.path} has no process {name}")

    async def ask(
        self, session: aiohttp.ClientSession, model: str, samples: list[Sample], *, obeys: bool
    ) -> None:
        """Send one request and append its sample to ``samples``; after an error, pause.

        If ``obeys``, the pause is the server's ``retry-after``. The error in the sample is the
        status with the type, or the kind of connection error.
        """
        begun, error, wait = time.monotonic(), "", 0.0
        try:
            url = f"{self.config.inference}/predictions/{model}"
            async with session.post(url, data=self.picture) as response:
                await response.read()
                if response.status != 200:
                    error = f"{response.status} {response.headers.get('x-error-type')}"
                    wait = float(response.headers.get("retry-after", BACK_S)) if obeys else BACK_S
        except (aiohttp.ClientError, TimeoutError) as failed:
            error, wait = type(failed).__name__, BACK_S
        samples.append(Sample(begun, time.monotonic(), error))
        await asyncio.sleep(wait)

    async def polite(self, model: str, count: int, seconds: float) -> list[Sample]:
        """``count`` requests one after the other, or as many as begin within ``seconds``."""
        end, samples = time.monotonic() + seconds, list[Sample]()
        async with connect() as session:
            while len(samples) < count and time.monotonic() < end:
                await self.ask(session, model, samples, obeys=True)
        return samples


@contextlib.contextmanager
def served(
    device: str, *, gateway: bool = True, shell: Mapping[str, str] | None = None, **properties: str
) -> Iterator[Served]:
    """A server of the exported networks, with ``properties`` in its configuration.

    ``shell`` has further environment variables for it.
    """
    folder, properties = FOLDER / "gateway", {"drain_seconds": "0", **properties}
    picture = photographs(FOLDER)["1280x720"].read_bytes()
    logging.info("starting a server %s its gateway", "with" if gateway else "without")
    started = bundle.started(
        STORE, folder, device, None, gateway=gateway, shell=shell, **properties
    )
    with started as (config, _):
        management = Management.of(RunFolder(folder))
        models = {name: TASKS[task] for name, task in server.tasks(management).items()}
        yield Served(config, RunFolder(folder), management, models, picture)


def connect(address: str = "127.0.0.1") -> aiohttp.ClientSession:
    """A client with the source ``address``, by which the gateway tells clients apart."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, local_addr=(address, 0)),
        timeout=aiohttp.ClientTimeout(TIMEOUT_S),
    )


@contextlib.asynccontextmanager
async def load(
    server: Served, model: str, connections: int, address: str, *, obeys: bool
) -> AsyncIterator[list[Sample]]:
    """Run ``connections`` closed loops within the context; yields their growing samples."""
    samples: list[Sample] = []

    async def loop(session: aiohttp.ClientSession) -> None:
        while True:
            await server.ask(session, model, samples, obeys=obeys)

    async with connect(address) as session:
        tasks = [asyncio.create_task(loop(session)) for _ in range(connections)]
        try:
            yield samples
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def errors(samples: Sequence[Sample]) -> str:
    """The number of each kind of error, as text; empty if there was none."""
    counts = Counter(sample.error for sample in samples if sample.error)
    return ", ".join(f"{error}: {count}" for error, count in counts.items())


def latency(samples: Sequence[Sample], percent: float) -> float:
    """A percentile of the latency of successful answers, in ms; ServingError if there are none."""
    good = [1e3 * (sample.done - sample.due) for sample in samples if not sample.error]
    if not good:
        raise ServingError(f"no request was answered: {errors(samples)}")
    return float(np.percentile(good, percent, method="inverted_cdf"))


def mib(process: psutil.Process) -> float:
    """Resident memory in MiB."""
    return float(process.memory_info().rss) / 2**20
