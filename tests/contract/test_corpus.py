"""Odd files by every route: each affects no answer but its own."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import MODELS
from tests.corpus import Case, cases
from tests.routes import ROUTES, Client, Reply, Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_workers")]

CLIENTS = 6  # several, so that requests meet in batches
# What no error may contain: paths, versions, tracebacks, file names.
SECRETS = ("/", "\\\\", ".py", "Traceback", "PIL", "Pillow", "torch", "org.")


@pytest.fixture
def client(served: Server) -> Iterator[Client]:
    routes = Client(served.rest, served.grpc_address)
    yield routes
    routes.close()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, client: Client, jpeg: bytes) -> Iterator[str]:
    """The model under attack, while another client posts a good picture over and over."""
    name: str = request.param
    done, codes = threading.Event(), set()

    def watch() -> None:
        while not done.wait(0.1):
            codes.add(client.raw(name, jpeg, size="64").code)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        yield name
        done.set()
        watching.result()
    assert codes == {200}


@pytest.mark.parametrize("route", ROUTES)
def test_each_file_has_its_status(served: Server, client: Client, model: str, route: str) -> None:
    # Decoding does not depend on the route, and tests/handlers decodes them all.
    start, step = (0, 8) if route == "raw" else (1, 40)
    chosen = cases()[start :: step * served.corpus_step]

    def ask(case: Case) -> Reply:
        return ROUTES[route](client, model, case.data, **case.options(model))

    with ThreadPoolExecutor(CLIENTS) as pool:
        replies = list(pool.map(ask, chosen))
    names = [case.name for case in chosen]
    statuses = {n: (reply.code, reply.kind) for n, reply in zip(names, replies, strict=True)}
    assert statuses == {case.name: case.expected(model) for case in chosen}
    for case, reply in zip(chosen, replies, strict=True):
        if reply.code != 200:
            text = reply.body.decode()
            assert not [secret for secret in SECRETS if secret in text], case.name


def test_the_pixels_are_those_of_the_file(served: Server, client: Client) -> None:
    """The same answer as for the expected pixels, sent as the plainest PNG."""
    exact = [case for case in cases() if case.pixels and case.tolerance == 0]
    exact = exact[:: 12 * served.corpus_step]
    assert len(exact) > 15 // served.corpus_step
    for case in exact:
        plain = io.BytesIO()
        assert case.pixels
        case.pixels.save(plain, "PNG")
        odd, even = (
            json.loads(client.raw("resnet101", data).body)["predictions"]
            for data in (case.data, plain.getvalue())
        )
        assert [p["class_id"] for p in odd] == [p["class_id"] for p in even], case.name
        for one, other in zip(odd, even, strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-4), case.name
