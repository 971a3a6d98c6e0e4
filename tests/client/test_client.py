"""Client and AsyncClient, over REST and gRPC, against the real server."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.client.conftest import (
    Authority,
    Blocking,
    Kind,
    forwarder,
    url,
)
from tests.running import Running, free_port
from tests.standin import CLASSIFIER, LIMIT_S, TRANSLATOR, Answering
from vision_client import AsyncClient, Client, ConnectionFailed, ServerError, TimedOut
from vision_client.tasks.translate import FORMATS, Format


def test_classify_is_what_the_server_says(
    client: Client | Blocking, server: Running, jpeg: bytes
) -> None:
    headers = {"x-top-k": "3"}
    expected = requests.post(
        server.url(CLASSIFIER), data=jpeg, headers=headers, timeout=LIMIT_S
    ).json()
    answer = client.classify(jpeg, top_k=3, model=CLASSIFIER)
    assert [vars(p) for p in answer.predictions] == expected["predictions"]
    assert answer.best == answer.predictions[0]
    assert answer.seconds > 0


def test_weights_and_request_id(client: Client | Blocking, jpeg: bytes) -> None:
    for answer in (
        client.classify(jpeg, model=CLASSIFIER),
        client.translate(jpeg, size=64, model=TRANSLATOR),
    ):
        assert answer.weights == "untrained"
        assert answer.untrained
        assert len(answer.request_id or "") == 36


@pytest.mark.parametrize("format", FORMATS)
def test_translate(client: Client | Blocking, jpeg: bytes, tmp_path: Path, format: Format) -> None:
    answer = client.translate(jpeg, size=128, format=format, quality=80, model=TRANSLATOR)
    assert (answer.image().format, answer.image().size) == (format.upper(), (192, 128))
    answer.save(tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes() == answer.data
    assert [path.name for path in tmp_path.iterdir()] == ["picture"]


def test_a_picture_that_cannot_be_saved_leaves_nothing(
    client: Client | Blocking, jpeg: bytes, tmp_path: Path
) -> None:
    answer = client.translate(jpeg, size=64, model=TRANSLATOR)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        answer.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("picture", "top_k", "code", "type", "message"),
    [
        (b"no picture", None, 400, "BadImage", "the bytes are not a picture"),
        (b"", None, 400, "EmptyBody", "no picture"),
        (b"%PDF-1.7", None, 415, "UnsupportedFormat", "PDF is not supported"),
        (bytes(16 * 2**20 + 1), None, 413, "TooLarge", "16777216 bytes"),
        (None, 0, 422, "InvalidOption", "top_k must be from 1 to 1000, not 0"),
    ],
)
def test_errors_are_the_servers(
    client: Client | Blocking,
    jpeg: bytes,
    picture: bytes | None,
    top_k: int | None,
    code: int,
    type: str,
    message: str,
) -> None:
    with pytest.raises(ServerError, match=message) as caught:
        client.classify(jpeg if picture is None else picture, top_k=top_k, model=CLASSIFIER)
    assert (caught.value.code, caught.value.type) == (code, type)
    assert len(caught.value.request_id or "") == 36


def test_a_request_over_the_gateways_limit(client: Client | Blocking) -> None:
    with pytest.raises(ServerError, match="413 TooLarge"):
        client.classify(bytes(26 * 2**20), model=CLASSIFIER)


def test_an_error_among_good_answers_is_raised(
    client: Client | Blocking, server: Running, heavy: bytes, jpeg: bytes
) -> None:
    """While the worker is busy, the other requests queue up into one batch with a bad member."""
    with ThreadPoolExecutor(8) as pool, Client(server.config.inference) as other:
        for _ in range(3):
            first = pool.submit(other.classify, heavy, model=CLASSIFIER)
            rest = [pool.submit(other.classify, jpeg, model=CLASSIFIER) for _ in range(5)]
            with pytest.raises(ServerError, match="400 BadImage"):
                client.classify(b"no picture", model=CLASSIFIER)
            first.result()
            assert {len(answer.result().predictions) for answer in rest} == {5}


def test_no_server(kind: Kind) -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        kind.make(f"{kind.scheme}://127.0.0.1:{free_port()}").classify(b"x", model=CLASSIFIER)


def test_no_such_host(kind: Kind) -> None:
    with pytest.raises(ConnectionFailed, match=r"no connection to \w+://nowhere.invalid:9:"):
        kind.make(f"{kind.scheme}://nowhere.invalid:9").classify(b"x", model=CLASSIFIER)


def test_too_slow(kind: Kind, server: Running, heavy: bytes) -> None:
    """The server is told the client's timeout: its answer and the timeout come at the same time."""
    with pytest.raises(TimedOut, match=r"gave no answer in time|allows has passed"):
        kind.make(url(server.config, kind.scheme), timeout=0.2).classify(heavy, model=CLASSIFIER)


def test_another_server(kind: Kind) -> None:
    """It speaks HTTP/1.1 but has no predictions."""
    error: type[Exception] = ServerError if kind.scheme == "http" else ConnectionFailed
    with Answering.started(404) as other, pytest.raises(error):
        kind.make(other.url.replace("http", kind.scheme)).classify(b"x", model=CLASSIFIER)


def test_tls(kind: Kind, secure: dict[str, str], authority: Authority, jpeg: bytes) -> None:
    address = secure[kind.scheme]
    assert kind.make(address, ca=authority.ca).classify(jpeg, model=CLASSIFIER).predictions
    with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
        kind.make(address).classify(jpeg, model=CLASSIFIER)


def test_a_missing_ca_file(kind: Kind) -> None:
    with pytest.raises(OSError, match=r"nowhere\.pem"):
        kind.make(f"{kind.scheme}s://127.0.0.1:9", ca="nowhere.pem").classify(b"x", model="mine")


def test_connections_are_kept(kind: Kind, server: Running, jpeg: bytes) -> None:
    address = url(server.config, kind.scheme).rpartition("/")[2]
    with forwarder(address) as between:
        client = kind.make(f"{kind.scheme}://127.0.0.1:{between.port}")
        for _ in range(3):
            client.classify(jpeg, model=CLASSIFIER)
        assert between.accepted == 1


def test_threads_share_a_client(server: Running, photographs: dict[str, Image.Image]) -> None:
    """Each thread gets the answer to its own picture."""
    for address in (server.config.inference, f"grpc://{server.config.grpc}"):
        with Client(address) as client, ThreadPoolExecutor(6) as pool:
            alone = {
                name: client.classify(image, model=CLASSIFIER).best
                for name, image in photographs.items()
            }
            names = list(photographs) * 6
            together = pool.map(
                lambda name: client.classify(photographs[name], model=CLASSIFIER).best, names
            )
            for name, best in zip(names, together, strict=True):
                assert best.class_id == alone[name].class_id
                assert best.probability == pytest.approx(alone[name].probability, abs=1e-4)


def test_cancelling_ends_the_call(server: Running, heavy: bytes, jpeg: bytes) -> None:
    async def cancelled(scheme: str) -> None:
        async with AsyncClient(url(server.config, scheme)) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.classify(heavy, model=CLASSIFIER), 0.1)
            assert (await client.classify(jpeg, model=CLASSIFIER)).predictions

    for scheme in ("http", "grpc"):
        asyncio.run(cancelled(scheme))


def test_the_environments_proxy_is_not_used_for_this_machine(
    kind: Kind, server: Running, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert kind.make(url(server.config, kind.scheme)).classify(jpeg, model=CLASSIFIER).predictions
