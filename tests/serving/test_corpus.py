"""Every odd file, on the real server by every route: its own answer, and nobody else notices."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.corpus import Case, cases
from tests.routes import ROUTES, Client

pytestmark = pytest.mark.slow

# So that requests meet in batches.
CLIENTS = 6
MODELS = ("resnet101", "cyclegan")


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    found = Client(server.config)
    yield found
    found.close()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, server: Any, jpeg: bytes) -> Iterator[str]:
    """The model under attack, while a bystander posts a good picture over and over."""
    name: str = request.param
    before = [worker.pid for worker in server.management.workers(name)]
    bystander = Client(server.config)
    done, seen = threading.Event(), []

    def watch() -> None:
        how = {"size": "64"} if name == "cyclegan" else {}
        while not done.wait(0.1):
            seen.append(bystander.raw(name, jpeg, **how).code)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        yield name
        done.set()
        watching.result()
    bystander.close()
    assert set(seen) == {200}
    assert [worker.pid for worker in server.management.workers(name)] == before, (
        "a worker was restarted"
    )


@pytest.mark.parametrize("route", ROUTES)
def test_each_file_has_its_status(client: Client, model: str, route: str) -> None:
    # Decoding does not depend on the route, and tests/handlers decodes them all.
    chosen = cases()[::2] if route == "raw" else cases()[1::8]

    def ask(case: Case) -> tuple[int, str]:
        reply = ROUTES[route](client, model, case.data, **case.options(model))
        return reply.code, reply.kind

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = dict(zip([case.name for case in chosen], pool.map(ask, chosen), strict=True))
    expected = {case.name: case.expected(model) for case in chosen}
    wrong = {name: (found[name], want) for name, want in expected.items() if found[name] != want}
    assert wrong == {}


def test_the_pixels_are_those_of_the_file(client: Client) -> None:
    """The same answer as for the expected pixels, sent as the plainest PNG."""
    exact = [case for case in cases() if case.pixels is not None and case.tolerance == 0][::12]
    assert len(exact) > 15
    for case in exact:
        plain = io.BytesIO()
        assert case.pixels is not None
        case.pixels.save(plain, "PNG")
        odd = json.loads(client.raw("resnet101", case.data).body)["predictions"]
        even = json.loads(client.raw("resnet101", plain.getvalue()).body)["predictions"]
        assert [p["class_id"] for p in odd] == [p["class_id"] for p in even], case.name
        for one, other in zip(odd, even, strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-4), case.name


@pytest.mark.parametrize("model", MODELS)
def test_no_error_tells_of_the_server(client: Client, model: str) -> None:
    """No path, version, traceback or file name in any answer."""
    for case in cases()[::9]:
        if case.code != 200:
            text = client.raw(model, case.data).body.decode()
            for secret in ("/", "\\\\", ".py", "Traceback", "PIL", "Pillow", "torch", "org."):
                assert secret not in text, case.name
