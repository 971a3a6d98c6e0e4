"""TorchServe's management REST API: models, workers, queues."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from serving.runfolder import RunFolder
from serving.sockets import client

TIMEOUT_S = 30.0
# TorchServe unpacks the archive before it answers.
REGISTER_S = 300.0


@dataclass(frozen=True)
class Worker:
    """One worker process. ``status`` is TorchServe's, ``rss`` is in bytes (0: unknown)."""

    id: str
    pid: int
    status: str
    device: str
    rss: int


class Management:
    """The management API behind ``http``. A model is named with or without a version: its key.

    Every method may raise ``httpx.HTTPError``. ``timeout`` is in seconds.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @classmethod
    def of(cls, run: RunFolder) -> Management:
        """The management API of the server that runs from ``run``."""
        return cls(client(run.sockets.management, lambda: run.token("management")))

    def models(self, *, timeout: float = TIMEOUT_S) -> list[str]:
        """The names of all models."""
        names: list[str] = []
        page: str | None = "0"
        while page is not None:
            reply = self._request("GET", "", timeout, next_page_token=page)
            with self._torchserve():
                names += [model["modelName"] for model in reply["models"]]
                page = reply.get("nextPageToken")
        return names

    def workers(self, model: str, *, timeout: float = TIMEOUT_S) -> list[Worker]:
        """Every worker of ``model``, started or not."""
        fields = self._model(model, timeout)
        with self._torchserve():
            return [_worker(worker) for worker in fields["workers"]]

    def pending(self, model: str) -> int:
        """Requests for ``model`` that wait for a worker."""
        fields = self._model(model, TIMEOUT_S)
        with self._torchserve():
            return int(fields["jobQueueStatus"]["pendingRequests"])

    def describe(self, model: str, *, timeout: float = TIMEOUT_S) -> dict[str, Any]:
        """The metadata in the archive and how the model is served, from one of its workers."""
        description: dict[str, Any] = self._model(model, timeout, customized="true")[
            "customizedMetadata"
        ]
        return description

    def scale(self, model: str, workers: int) -> None:
        """Ask for ``workers`` workers of ``model`` and return before they are ready."""
        count = str(workers)
        self._request("PUT", f"/{model}", TIMEOUT_S, min_worker=count, max_worker=count)

    def register(self, archive: str, workers: int) -> None:
        """Load a further version, from a file of the model store; return before it is ready."""
        self._request(
            "POST", "", REGISTER_S, url=archive, initial_workers=str(workers), synchronous="false"
        )

    def set_default(self, key: str) -> None:
        """Let this version answer requests that name none."""
        self._request("PUT", f"/{key}/set-default", TIMEOUT_S)

    def unregister(self, key: str) -> None:
        """End the workers of a version, which must not be the default, and forget it."""
        self._request("DELETE", f"/{key}", TIMEOUT_S)

    def _model(self, model: str, timeout: float, **query: str) -> dict[str, Any]:
        versions = self._request("GET", f"/{model}", timeout, **query)
        with self._torchserve():
            return dict(versions[0])

    @contextlib.contextmanager
    def _torchserve(self) -> Iterator[None]:
        """Raise HTTPError if the reply that is read is not TorchServe's."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise httpx.DecodingError(
                "the management API does not answer as TorchServe does: is another server there?"
            ) from error

    def _request(self, verb: str, path: str, timeout: float, **query: str) -> Any:
        response = self._http.request(verb, f"/models{path}", params=query, timeout=timeout)
        response.raise_for_status()
        with self._torchserve():
            return response.json()


def _worker(fields: dict[str, Any]) -> Worker:
    # "gpuId::0 utilization.gpu [%]::..." or "N/A"
    gpu = re.match(r"gpuId::(\d+)", fields["gpuUsage"])
    device = f"cuda:{gpu[1]}" if gpu else "cuda" if fields["gpu"] else "cpu"
    try:
        rss = psutil.Process(fields["pid"]).memory_info().rss
    except (psutil.Error, ValueError):
        rss = 0
    return Worker(fields["id"], fields["pid"], fields["status"], device, rss)
