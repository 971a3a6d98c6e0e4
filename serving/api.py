"""A running server as its own tools see it: predictions, workers, what is served."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
from PIL import Image

from serving.config import Config
from vision_client import Client

MANAGEMENT_S = 30  # for an answer of the management API


@dataclass(frozen=True)
class Worker:
    """One worker process; ``status`` is TorchServe's word, ``rss`` resident bytes (0: unknown)."""

    id: str
    pid: int
    status: str
    device: str
    rss: int


class Api:
    """The REST APIs of the server that ``config`` describes.

    ``key_file`` is where TorchServe writes its tokens; it is read where authorisation is on.
    Every method may raise ``requests.RequestException``.
    """

    def __init__(self, config: Config, key_file: Path) -> None:
        self._config = config
        self._key_file = key_file
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy of the shell's is not for our own server

    def client(self, timeout: float) -> Client:
        """What users have, let in as its own tools are; ``timeout`` in seconds."""
        return Client(
            self._config.inference, token=lambda: self._key("inference") or "", timeout=timeout
        )

    def predict(
        self, model: str, picture: bytes, *, timeout: float, **options: str | int
    ) -> requests.Response:
        """POST ``picture`` as the raw body, ``options`` as headers."""
        headers = {f"x-{name.replace('_', '-')}": str(value) for name, value in options.items()}
        headers |= {"content-type": "application/octet-stream", **self._token("inference")}
        url = f"{self._config.inference}/predictions/{model}"
        return self._http.post(url, data=picture, headers=headers, timeout=timeout)

    def refusal(self, model: str, *, timeout: float) -> str | None:
        """Why ``model`` gives no true answer to a small picture now; None where it does."""
        options = {"size": 64} if model == "cyclegan" else {}
        try:
            response = self.predict(model, _canary(), timeout=timeout, **options)
        except requests.Timeout:
            return f"no answer within {timeout:g} s"
        except requests.RequestException:
            return "no connection"
        if response.status_code == requests.codes.ok:
            return None
        return f"answers {response.status_code}: {_message(response)}"

    def workers(self, model: str, *, timeout: float = MANAGEMENT_S) -> list[Worker]:
        """Every worker of ``model``, started or not; ``timeout`` in seconds."""
        return [_worker(found) for found in self._model(model, timeout=timeout)["workers"]]

    def pending(self, model: str) -> int:
        """Requests for ``model`` that wait for a worker."""
        return int(self._model(model)["jobQueueStatus"]["pendingRequests"])

    def describe(self, model: str) -> dict[str, Any]:
        """The metadata that the archive carries, as a worker has loaded it."""
        found: dict[str, Any] = self._model(model, customized="true")["customizedMetadata"]
        return found

    def scale(self, model: str, workers: int) -> None:
        """Ask for ``workers`` workers of ``model`` and return before they are ready."""
        self._manage("PUT", model, min_worker=str(workers), max_worker=str(workers))

    def _model(self, model: str, *, timeout: float = MANAGEMENT_S, **query: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self._manage("GET", model, timeout=timeout, **query).json()
        return found[0]

    def _manage(
        self, verb: str, model: str, *, timeout: float = MANAGEMENT_S, **query: str
    ) -> requests.Response:
        url = f"{self._config.management}/models/{model}"
        headers = self._token("management")
        response = self._http.request(verb, url, params=query, headers=headers, timeout=timeout)
        response.raise_for_status()
        return response

    def _token(self, api: str) -> dict[str, str]:
        key = self._key(api)
        return {"authorization": f"Bearer {key}"} if key else {}

    def _key(self, api: str) -> str | None:
        if not self._config.has_tokens:
            return None
        try:
            return str(json.loads(self._key_file.read_text())[api]["key"])
        except (OSError, ValueError, KeyError):
            return None  # TorchServe is about to write it; until then it refuses us, as it should


def _worker(found: dict[str, Any]) -> Worker:
    # "gpuId::0 utilization.gpu [%]::..." or "N/A"
    gpu = re.match(r"gpuId::(\d+)", found["gpuUsage"])
    device = f"cuda:{gpu[1]}" if gpu else "cuda" if found["gpu"] else "cpu"
    try:
        rss = psutil.Process(found["pid"]).memory_info().rss
    except (psutil.Error, ValueError):
        rss = 0
    return Worker(found["id"], found["pid"], found["status"], device, rss)


def _canary() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def _message(response: requests.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.reason
