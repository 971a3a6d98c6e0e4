"""A running server as the bench sees it: where to send, and what its workers hold in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.load import Load, Outcome, Route, measure
from serving.config import Config
from serving.management import Management

MODELS = ("resnet101", "cyclegan")


@dataclass(frozen=True)
class Server:
    """``start_s`` is what passed from its start to the first true answers of both models."""

    config: Config
    management: Management
    start_s: float

    def measure(
        self,
        model: str,
        picture: Path,
        *,
        seconds: float,
        warm: float,
        route: Route = "rest",
        clients: int = 0,
        rate: float = 0.0,
    ) -> Outcome:
        """What ``clients`` see, or requests at ``rate`` per second: one of the two."""
        rest = urlsplit(self.config.inference).netloc
        address = self.config.grpc if route == "grpc" else rest
        return measure(
            Load(route, address, model, str(picture), seconds, warm, clients=clients, rate=rate)
        )

    def rss(self, model: str) -> float:
        """Resident bytes of one worker of ``model`` and the decode processes that it started."""
        workers = self.management.workers(model)
        return sum(_with_children(worker.pid) for worker in workers) / len(workers)


def _with_children(pid: int) -> int:
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family)
