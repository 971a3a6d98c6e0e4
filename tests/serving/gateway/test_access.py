"""Who may call: API keys and TLS on a server of its own, which also has small limits."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import requests
from cryptography import x509

from serving.certificates import issue_client, issue_server
from serving.config import Config
from serving.keys import add_key
from serving.management import Management
from serving.runfolder import RunFolder
from tests.exposition import families
from tests.routes import prediction
from tests.running import MakeConfig, serve, wait_until
from vision_client import Client, ServerError, inference_pb2_grpc

pytestmark = pytest.mark.slow

TIMEOUT_S = 60
HEADER_S, UPLOAD_S = 2, 4


class Guarded:
    """A server for one model with keys and TLS, and small limits for slow clients."""

    def __init__(self, config: Path) -> None:
        self.folder = config.parent
        self.config = Config.read(config)
        self.run = RunFolder(self.folder / "run")
        host, port = self.config.addresses["inference_address"]
        self.address = (host, port)
        self.url = f"https://localhost:{port}/predictions/resnet101"
        self.ca = str(self.folder / "tls" / "ca.pem")
        self.keys = self.folder / "keys.txt"

    def post(self, key: str | None, data: bytes, **options: Any) -> requests.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return requests.post(
            self.url, data=data, headers=headers, verify=self.ca, timeout=TIMEOUT_S, **options
        )

    @contextlib.contextmanager
    def stub(self) -> Iterator[Any]:
        credentials = grpc.ssl_channel_credentials(Path(self.ca).read_bytes())
        address = f"localhost:{self.config.values['grpc_inference_port']}"
        with grpc.secure_channel(address, credentials) as channel:
            yield inference_pb2_grpc.InferenceAPIsServiceStub(channel)

    def log(self) -> list[dict[str, Any]]:
        text = (self.run.logs / "access.log").read_text()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def alice(guarded: Guarded) -> str:
    return key_of(guarded, "alice")


def key_of(guarded: Guarded, name: str) -> str:
    for line in guarded.keys.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise AssertionError(name)


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, model_store: Path, make_config: MakeConfig
) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    store = folder / "model_store"
    store.mkdir()
    os.link(model_store / "resnet101.mar", store / "resnet101.mar")
    issue_server(folder / "tls", ["localhost", "127.0.0.1"])
    add_key(folder / "keys.txt", "alice")
    add_key(folder / "keys.txt", "bob")
    config = make_config(
        folder,
        store,
        api_keys="keys.txt",
        tls_certificate="tls/server.pem",
        tls_key="tls/server.key",
        header_seconds=str(HEADER_S),
        upload_seconds=str(UPLOAD_S),
        idle_seconds="3",
        gateway_connections="60",
        gateway_memory_bytes=str(2**27),
    )
    with serve(config):
        yield Guarded(config)


def test_a_key_is_needed(guarded: Guarded, alice: str, jpeg: bytes) -> None:
    assert guarded.post(alice, jpeg).status_code == 200
    for key in (None, "wrong", alice[:-1], alice + "x", alice.swapcase(), f"{alice} {alice}"):
        response = guarded.post(key, jpeg)
        assert (response.status_code, response.json()["type"]) == (401, "Unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    for headers in ({"authorization": alice}, {"authorization": f"Basic {alice}"}):
        response = requests.post(
            guarded.url, data=jpeg, headers=headers, verify=guarded.ca, timeout=TIMEOUT_S
        )
        assert response.status_code == 401


def test_a_key_is_needed_over_grpc(guarded: Guarded, alice: str, jpeg: bytes) -> None:
    request = prediction("resnet101", data=jpeg)
    with guarded.stub() as stub:
        stub.Predictions(
            request, timeout=TIMEOUT_S, metadata=[("authorization", f"Bearer {alice}")]
        )
        for metadata in ([], [("authorization", "Bearer wrong")]):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predictions(request, timeout=TIMEOUT_S, metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert json.loads(caught.value.details())["type"] == "Unauthorized"


def test_health_needs_no_key(guarded: Guarded) -> None:
    base = guarded.url.removesuffix("/predictions/resnet101")
    for path in ("/livez", "/readyz", "/readyz/resnet101", "/models", "/ping"):
        assert requests.get(base + path, verify=guarded.ca, timeout=TIMEOUT_S).ok


def test_our_client_has_a_key_and_an_authority(guarded: Guarded, alice: str, jpeg: bytes) -> None:
    base = guarded.url.removesuffix("/predictions/resnet101")
    with Client(base, token=alice, ca=guarded.ca) as client:
        assert client.classify(jpeg).weights == "untrained"
    with Client(base, token="wrong" * 5, ca=guarded.ca) as client:
        with pytest.raises(ServerError) as caught:
            client.classify(jpeg)
        assert caught.value.code == 401
    with pytest.raises(Exception, match="certificate"), Client(base, token=alice) as client:
        client.classify(jpeg)


def test_the_log_names_the_client_and_no_key(guarded: Guarded, alice: str, jpeg: bytes) -> None:
    response = guarded.post(alice, jpeg)
    chosen = response.headers["x-request-id"]

    def line() -> dict[str, Any] | None:
        return next((entry for entry in guarded.log() if entry["request_id"] == chosen), None)

    wait_until(lambda: line() is not None)
    found = line()
    assert found is not None
    assert (found["client"], found["address"]) == ("alice", "127.0.0.1")
    for path in guarded.run.logs.iterdir():
        assert alice.encode() not in path.read_bytes(), path


def test_the_worker_never_sees_a_key(guarded: Guarded, alice: str) -> None:
    """TorchServe has a key of its own, which no client can learn or use."""
    own = RunFolder(guarded.run.path).token("inference")
    assert own
    assert guarded.post(own, b"x").status_code == 401


def test_keys_are_read_again(guarded: Guarded, jpeg: bytes) -> None:
    carol = add_key(guarded.keys, "carol")
    wait_until(lambda: guarded.post(carol, jpeg).status_code == 200)
    add_key(guarded.keys, "carol", rotate=True)
    wait_until(lambda: guarded.post(carol, jpeg).status_code == 401)


def test_an_expired_key_is_not_valid(guarded: Guarded, jpeg: bytes) -> None:
    erin = add_key(guarded.keys, "erin")
    wait_until(lambda: guarded.post(erin, jpeg).status_code == 200)
    today = datetime.now(UTC).date()
    text = guarded.keys.read_text()
    guarded.keys.write_text(text.replace(erin, f"{erin} expires={today - timedelta(days=1)}"))
    wait_until(lambda: guarded.post(erin, jpeg).status_code == 401)
    guarded.keys.write_text(text.replace(erin, f"{erin} expires={today + timedelta(days=1)}"))
    wait_until(lambda: guarded.post(erin, jpeg).status_code == 200)
    # The metrics say when keys and certificates expire.
    found = families(guarded.config.metrics)
    [key] = found["vision_key_expiry_timestamp_seconds"].samples
    assert key.labels == {"key": "erin"}
    assert 86_400 <= key.value - time.time() <= 2 * 86_400
    chain = x509.load_pem_x509_certificate((guarded.folder / "tls/server.pem").read_bytes())
    [certificate] = found["vision_certificate_expiry_timestamp_seconds"].samples
    assert certificate.labels == {"certificate": "server"}
    assert certificate.value == chain.not_valid_after_utc.timestamp()


def test_broken_keys_keep_the_old_ones(guarded: Guarded, alice: str, jpeg: bytes) -> None:
    before = guarded.keys.read_text()
    said = guarded.folder / "said.log"
    try:
        guarded.keys.write_text(before + "mallory\n")
        wait_until(lambda: "keys.txt" in said.read_text())
        assert guarded.post(alice, jpeg).status_code == 200
        guarded.keys.chmod(0o644)
        time.sleep(1.5)
        assert guarded.post(alice, jpeg).status_code == 200
    finally:
        guarded.keys.chmod(0o600)
        guarded.keys.write_text(before)
    assert said.read_text().count("keys.txt") <= 3  # said once each, not every second


def test_a_client_has_its_own_limit(guarded: Guarded, alice: str, jpeg: bytes) -> None:
    bob = key_of(guarded, "bob")
    text = guarded.keys.read_text()
    guarded.keys.write_text(text.replace(bob, f"{bob} concurrent=2"))
    time.sleep(2.5)
    management = Management.of(guarded.run)
    [worker] = [psutil.Process(w.pid) for w in management.workers("resnet101")]
    with ThreadPoolExecutor(5) as pool:
        worker.suspend()
        try:
            asked = [pool.submit(guarded.post, bob, jpeg) for _ in range(4)]
            wait_until(lambda: sum(answer.done() for answer in asked) == 2)
            other = pool.submit(guarded.post, alice, jpeg)
            time.sleep(0.3)
            assert not other.done()
        finally:
            worker.resume()
        codes = sorted(answer.result().status_code for answer in asked)
        assert codes == [200, 200, 429, 429]
        assert other.result().status_code == 200
    refused = next(a.result() for a in asked if a.result().status_code == 429)
    assert refused.json()["type"] == "TooManyRequests"
    assert int(refused.headers["retry-after"]) >= 1


def test_a_certificate_is_read_again(guarded: Guarded) -> None:
    def serial() -> str:
        context = ssl.create_default_context(cafile=guarded.ca)
        with (
            socket.create_connection(guarded.address, TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            certificate = secure.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])

    before = serial()
    issue_server(guarded.folder / "tls")
    wait_until(lambda: serial() != before)


def test_plain_text_is_refused_on_a_tls_port(guarded: Guarded) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(guarded.url.replace("https", "http"), timeout=TIMEOUT_S)


def _secure(guarded: Guarded) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=guarded.ca)
    plain = socket.create_connection(guarded.address, TIMEOUT_S)
    return context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(
    ("sent", "within", "status"),
    [
        (b"POST /predictions/resnet101 HTTP/1.1\r\nhost: h\r\n", HEADER_S, b"408"),
        (
            b"POST /predictions/resnet101 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer KEY\r\n"
            b"content-length: 100\r\n\r\nx",
            UPLOAD_S,
            b"408",
        ),
        (b"", 3, b""),
    ],
    ids=["headers", "body", "nothing"],
)
def test_a_slow_client_is_let_go(
    guarded: Guarded, alice: str, sent: bytes, within: float, status: bytes
) -> None:
    started = time.monotonic()
    with _secure(guarded) as connection:
        connection.sendall(sent.replace(b"KEY", alice.encode()))
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(4096):
                received += data
    assert received[9:12] == status
    assert within * 0.8 < time.monotonic() - started
    if received:
        assert json.loads(received.partition(b"\r\n\r\n")[2])["type"] == "RequestTimeout"


def test_large_uploads_are_bounded(guarded: Guarded, alice: str, jpeg: bytes) -> None:
    """Beyond a quarter of the gateway's memory, a client may upload small pictures only."""
    dave = add_key(guarded.keys, "dave")
    wait_until(lambda: guarded.post(dave, jpeg).status_code == 200)
    head = (
        "POST /predictions/resnet101 HTTP/1.1\r\nhost: h\r\n"
        f"authorization: Bearer {alice}\r\ncontent-length: {12 * 2**20}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for status in ("", "", "429"):
            connection = stack.enter_context(_secure(guarded))
            connection.sendall(head.encode())
            connection.settimeout(1)
            received = b""
            with contextlib.suppress(TimeoutError):
                received = connection.recv(4096)
            assert received[9:12].decode() == status
        assert guarded.post(alice, jpeg).status_code == 200
        assert guarded.post(dave, b"x" * 26 * 2**20).status_code == 413
        assert guarded.post(key_of(guarded, "bob"), b"x" * 12 * 2**20).status_code == 400
    wait_until(lambda: guarded.post(alice, b"x" * 12 * 2**20).status_code == 400)


def test_connections_are_bounded(guarded: Guarded, alice: str) -> None:
    """Beyond the limit, a connection is closed before TLS; the others still work."""
    with contextlib.ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(socket.create_connection(guarded.address, TIMEOUT_S))

        def is_closed() -> bool:
            """Whether another connection is; else it is held, as earlier ones may have left."""
            probe = stack.enter_context(socket.create_connection(guarded.address, 1))
            try:
                return probe.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(lambda: all(is_closed() for _ in range(3)))
    wait_until(lambda: _answers(lambda: guarded.post(alice, b"x").status_code == 400))


def _answers(ask: Callable[[], bool]) -> bool:
    with contextlib.suppress(requests.RequestException):
        return ask()
    return False


def test_client_certificates(
    tmp_path: Path, model_store: Path, make_config: MakeConfig, jpeg: bytes
) -> None:
    store = tmp_path / "model_store"
    store.mkdir()
    shutil.copy(model_store / "resnet101.mar", store)
    issue_server(tmp_path / "tls", ["localhost"])
    issue_client(tmp_path / "tls", "alice")
    config = make_config(
        tmp_path,
        store,
        tls_certificate="tls/server.pem",
        tls_key="tls/server.key",
        tls_client_ca="tls/ca.pem",
    )
    with serve(config):
        guarded = Guarded(config)
        pair = (str(tmp_path / "tls" / "client-alice.pem"), str(tmp_path / "tls/client-alice.key"))
        answer = guarded.post(None, jpeg, cert=pair)
        assert answer.status_code == 200
        wait_until(lambda: any(line["client"] == "alice" for line in guarded.log()))
        with pytest.raises(requests.ConnectionError):
            guarded.post(None, jpeg)
