"""Client and AsyncClient, over REST and gRPC, against the real server."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.client.conftest import (
    LIMIT_S,
    Blocking,
    Kind,
    Secure,
    Strict,
    forwarder,
    url,
)
from tests.running import Running, free_port
from vision_client import AsyncClient, Client, ConnectionFailed, ServerError, TimedOut
from vision_client.models import DEFAULTS
from vision_client.tasks.translate import FORMATS, Format


def test_classify_is_what_the_server_says(
    client: Client | Blocking, server: Running, jpeg: bytes
) -> None:
    headers = {"x-top-k": "3"}
    expected = requests.post(
        server.url(DEFAULTS["classify"]), data=jpeg, headers=headers, timeout=LIMIT_S
    ).json()
    answer = client.classify(jpeg, top_k=3)
    assert [vars(p) for p in answer.predictions] == expected["predictions"]
    assert answer.best == answer.predictions[0]
    assert answer.seconds > 0


def test_weights_and_request_id_over_rest(
    kind: Kind, client: Client | Blocking, jpeg: bytes
) -> None:
    for answer in (client.classify(jpeg), client.translate(jpeg, size=64)):
        if kind.scheme == "http":
            assert answer.weights == "untrained"
            assert answer.untrained
            assert len(answer.request_id or "") == 36
        else:
            assert (answer.weights, answer.request_id, answer.untrained) == (None, None, False)


@pytest.mark.parametrize("format", FORMATS)
def test_translate(client: Client | Blocking, jpeg: bytes, tmp_path: Path, format: Format) -> None:
    answer = client.translate(jpeg, size=128, format=format, quality=80)
    assert (answer.image().format, answer.image().size) == (format.upper(), (192, 128))
    answer.save(tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes() == answer.data
    assert [path.name for path in tmp_path.iterdir()] == ["picture"]


def test_a_picture_that_cannot_be_saved_leaves_nothing(
    client: Client | Blocking, jpeg: bytes, tmp_path: Path
) -> None:
    answer = client.translate(jpeg, size=64)
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
        client.classify(jpeg if picture is None else picture, top_k=top_k)
    assert (caught.value.code, caught.value.type) == (code, type)


def test_a_request_over_torchserves_own_limit(client: Client | Blocking) -> None:
    """An empty body over REST and a reset stream over gRPC become a 413 with a message."""
    with pytest.raises(ServerError, match="more bytes than the server takes") as caught:
        client.classify(bytes(26 * 2**20))
    assert (caught.value.code, caught.value.type) == (413, "RequestEntityTooLarge")


def test_an_error_among_good_answers_is_raised(
    client: Client | Blocking, server: Running, heavy: bytes, jpeg: bytes
) -> None:
    """While the worker is busy, the other requests queue up into one batch with a bad member."""
    with ThreadPoolExecutor(8) as pool, Client(server.config.inference) as other:
        for _ in range(3):
            first = pool.submit(other.classify, heavy)
            rest = [pool.submit(other.classify, jpeg) for _ in range(5)]
            with pytest.raises(ServerError, match="400 BadImage"):
                client.classify(b"no picture")
            first.result()
            assert {len(answer.result().predictions) for answer in rest} == {5}


def test_no_server(kind: Kind) -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        kind.make(f"{kind.scheme}://127.0.0.1:{free_port()}").classify(b"x")


def test_no_such_host(kind: Kind) -> None:
    with pytest.raises(ConnectionFailed, match=r"no connection to \w+://nowhere.invalid:9:"):
        kind.make(f"{kind.scheme}://nowhere.invalid:9").classify(b"x")


def test_too_slow(kind: Kind, server: Running, heavy: bytes) -> None:
    with pytest.raises(TimedOut, match="gave no answer in time"):
        kind.make(url(server.config, kind.scheme), timeout=0.2).classify(heavy)


def test_another_server(kind: Kind, server: Running) -> None:
    """The management port speaks REST but has no predictions."""
    if kind.scheme == "http":
        with pytest.raises(ServerError, match="404 ResourceNotFoundException"):
            kind.make(server.config.management).classify(b"x")
    else:
        with pytest.raises(ConnectionFailed):
            kind.make(server.config.management.replace("http", "grpc")).classify(b"x")


@pytest.mark.slow
def test_tokens(kind: Kind, strict: Strict, jpeg: bytes) -> None:
    address = url(strict.config, kind.scheme)
    with pytest.raises(ServerError, match="400 InvalidKeyException: Token Authorization failed"):
        kind.make(address).classify(jpeg)
    with pytest.raises(ServerError, match="Token Authorization failed"):
        kind.make(address, token="wrong").classify(jpeg)
    key = strict.key
    assert kind.make(address, token=key).classify(jpeg).predictions
    calls = 0

    def current() -> str:
        nonlocal calls
        calls += 1
        return key

    client = kind.make(address, token=current)
    client.classify(jpeg)
    client.classify(jpeg)
    assert calls == 2, "tokens expire: the function is called for each request"


def crowd(address: str, key: str, pictures: list[bytes], retries: int) -> set[int]:
    """The statuses of ``pictures``, sent at once from threads; 200 is success."""
    with (
        Client(address, token=key, retries=retries) as client,
        ThreadPoolExecutor(len(pictures)) as pool,
    ):

        def ask(picture: bytes) -> int:
            try:
                client.classify(picture)
            except ServerError as error:
                return error.code
            return 200

        return set(pool.map(ask, pictures))


async def crowd_on_a_loop(address: str, key: str, pictures: list[bytes], retries: int) -> set[int]:
    """The same from one event loop."""
    async with AsyncClient(address, token=key, retries=retries) as client:

        async def ask(picture: bytes) -> int:
            try:
                await client.classify(picture)
            except ServerError as error:
                return error.code
            return 200

        return set(await asyncio.gather(*map(ask, pictures)))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_busy_server_is_retried(strict: Strict, heavy: bytes, jpeg: bytes, scheme: str) -> None:
    """One request is queued and the others are refused, retried, and answered."""
    key = strict.key
    address, pictures = url(strict.config, scheme), [heavy] + [jpeg] * 7
    assert crowd(address, key, pictures, retries=0) == {200, 503}
    assert crowd(address, key, pictures, retries=6) == {200}
    assert asyncio.run(crowd_on_a_loop(address, key, pictures, retries=0)) == {200, 503}
    assert asyncio.run(crowd_on_a_loop(address, key, pictures, retries=6)) == {200}


def test_tls(kind: Kind, secure: Secure, jpeg: bytes) -> None:
    address = secure.urls[kind.scheme]
    assert kind.make(address, ca=secure.ca).classify(jpeg).predictions
    with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
        kind.make(address).classify(jpeg)


def test_a_missing_ca_file(kind: Kind) -> None:
    with pytest.raises(OSError, match=r"nowhere\.pem"):
        kind.make(f"{kind.scheme}s://127.0.0.1:9", ca="nowhere.pem").classify(b"x")


def test_connections_are_kept(kind: Kind, server: Running, jpeg: bytes) -> None:
    address = url(server.config, kind.scheme).rpartition("/")[2]
    with forwarder(address) as between:
        client = kind.make(f"{kind.scheme}://127.0.0.1:{between.port}")
        for _ in range(3):
            client.classify(jpeg)
        assert between.accepted == 1


def test_threads_share_a_client(server: Running, photographs: dict[str, Image.Image]) -> None:
    """Each thread gets the answer to its own picture."""
    for address in (server.config.inference, f"grpc://{server.config.grpc}"):
        with Client(address) as client, ThreadPoolExecutor(6) as pool:
            alone = {name: client.classify(image).best for name, image in photographs.items()}
            names = list(photographs) * 6
            together = pool.map(lambda name: client.classify(photographs[name]).best, names)
            for name, best in zip(names, together, strict=True):
                assert best.class_id == alone[name].class_id
                assert best.probability == pytest.approx(alone[name].probability, abs=1e-4)


def test_cancelling_ends_the_call(server: Running, heavy: bytes, jpeg: bytes) -> None:
    async def cancelled(scheme: str) -> None:
        async with AsyncClient(url(server.config, scheme)) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.classify(heavy), 0.1)
            assert (await client.classify(jpeg)).predictions

    for scheme in ("http", "grpc"):
        asyncio.run(cancelled(scheme))


def test_the_environments_proxy_is_not_used_for_this_machine(
    kind: Kind, server: Running, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert kind.make(url(server.config, kind.scheme)).classify(jpeg).predictions
