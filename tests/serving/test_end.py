"""SIGTERM under load: readiness fails first, and no accepted request is lost."""

from __future__ import annotations

import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from serving.config import Config
from tests import running
from tests.running import MakeConfig, processes_of, wait_until

pytestmark = pytest.mark.slow

CLIENTS = 8
DRAIN_S = 2
TIMEOUT_S = 120


@dataclass
class Client:
    """Asks over one new connection after the other until it gets none."""

    address: str
    picture: bytes
    codes: list[int] = field(default_factory=list)
    refused_at: float = 0.0

    def ask(self) -> None:
        while True:
            connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)
            try:
                connection.connect()
            except OSError:
                self.refused_at = time.monotonic()
                return
            try:
                connection.request("POST", "/predictions/resnet101", self.picture)
                self.codes.append(connection.getresponse().status)
            except (OSError, http.client.HTTPException):
                self.codes.append(0)
            finally:
                connection.close()


def test_no_accepted_request_is_lost(
    tmp_path: Path, model_store: Path, make_config: MakeConfig, jpeg: bytes
) -> None:
    path = make_config(
        tmp_path, model_store, load_models="resnet101.mar", drain_seconds=str(DRAIN_S)
    )
    config = Config.read(path)
    clients = [Client(urlsplit(config.inference).netloc, jpeg) for _ in range(CLIENTS)]
    ready = f"{config.metrics}/readyz"
    with running.serve(path) as server, ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(client.ask) for client in clients]
        wait_until(lambda: all(len(client.codes) >= 2 for client in clients))
        server.process.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        wait_until(lambda: requests.get(ready, timeout=10).status_code == 503)
        assert time.monotonic() - signalled < DRAIN_S, "balancers have no time to notice"
        assert requests.get(ready, timeout=10).json() == {"ready": False, "reason": "draining"}
        for future in asking:
            future.result()
        assert server.process.wait(TIMEOUT_S) == 0
        assert server.said().endswith("stopped\n")
    assert processes_of(tmp_path) == []
    assert {code for client in clients for code in client.codes} == {200}
    assert min(client.refused_at for client in clients) >= signalled + DRAIN_S
