"""The page's own server, used without a browser, as by another program or site."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from http.client import HTTPConnection
from typing import Any
from urllib.parse import unquote

import psutil
import pytest
import requests

from handlers.formats import SUPPORTED
from tests.page.opened import LIMIT_S, command, page_server
from tests.running import free_port
from tests.standin import MODELS, TRANSLATOR, Answering
from vision_client import Client, Model
from vision_client.models import MISSING
from vision_client.page.app import INDEX
from vision_client.tasks.decoder import Range
from vision_client.tasks.translate import FORMATS


def test_answers_are_those_of_the_client(address: str, client: Client, jpeg: bytes) -> None:
    expected = client.classify(jpeg, top_k=2)
    answer = requests.post(f"{address}/classify?top_k=2", data=jpeg, timeout=60).json()
    classes = [prediction.class_id for prediction in expected.predictions]
    assert [prediction["class_id"] for prediction in answer["predictions"]] == classes
    assert answer["weights"] == "untrained"
    assert answer["request_id"]
    assert answer["seconds"] > 0
    url = f"{address}/translate?size=64&format=jpeg&quality=50"
    picture = requests.post(url, data=jpeg, timeout=60)
    assert picture.content == client.translate(jpeg, size=64, format="jpeg", quality=50).data
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.headers["x-model-weights"] == "untrained"
    assert picture.headers["x-request-id"]
    assert float(picture.headers["x-seconds"]) > 0


@pytest.mark.parametrize("query", ["classify?top_k=0", "classify?top_k=many", "translate?size=9"])
def test_a_bad_option_is_the_servers_error(address: str, jpeg: bytes, query: str) -> None:
    answer = requests.post(f"{address}/{query}", data=jpeg, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["code"] == 422
    assert answer.json()["type"] == "InvalidOption"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:1:2", ""])
@pytest.mark.parametrize("path", ["", "/about", "/static/page.js"])
def test_another_name_for_this_machine_is_refused(address: str, path: str, host: str) -> None:
    answer = requests.get(f"{address}{path}", headers={"host": host}, timeout=10)
    assert answer.status_code == 421
    assert answer.json()["type"] == "MisdirectedRequest"


@pytest.fixture(scope="module")
def asked() -> Iterator[Answering]:
    """A fake server that counts requests and answers 404."""
    with Answering.started(404) as server:
        yield server


@pytest.fixture(scope="module")
def asking(asked: Answering) -> Iterator[str]:
    """The URL of a page that uses ``asked``."""
    with page_server(asked.url) as url:
        yield url


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "{own}"},
        {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
        {"sec-fetch-site": "anything"},
        {"sec-fetch-site": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/about"), ("HEAD", "/about"), ("POST", "/classify"), ("POST", "/translate"),
     ("GET", "/static/page.js")],
)  # fmt: skip
def test_another_site_is_refused(
    asked: Answering, asking: str, method: str, path: str, headers: dict[str, str]
) -> None:
    """Browsers send Sec-Fetch-Site even with requests that have no Origin."""
    headers = {name: value.format(own=asking) for name, value in headers.items()}
    before = len(asked.asked), len(asked.gets)
    answer = requests.request(method, f"{asking}{path}", headers=headers, timeout=60)
    assert answer.status_code == 403
    if method != "HEAD":
        assert answer.json()["type"] == "ForeignOrigin"
    assert (len(asked.asked), len(asked.gets)) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": "{own}"},
        {"origin": "{own}"},
        {},
    ],
)
def test_the_page_itself_and_its_user_are_answered(
    asked: Answering, asking: str, headers: dict[str, str]
) -> None:
    headers = {name: value.format(own=asking) for name, value in headers.items()}
    before = len(asked.gets)
    assert requests.get(f"{asking}/about", headers=headers, timeout=60).status_code == 200
    assert asked.gets[before:] == ["/models", "/readyz"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "code", "type"),
    [
        ("POST", "/classify", {"content-encoding": "gzip"}, 400, "BadRequest"),
        ("POST", "/translate", {"content-encoding": "gzip"}, 400, "BadRequest"),
        ("POST", "/translate?format=%00", {}, 422, "InvalidOption"),
        ("POST", "/translate?format=png%0d%0ax: y", {}, 422, "InvalidOption"),
        ("POST", "/translate?format=gif", {}, 422, "InvalidOption"),
        ("GET", "/nowhere", {}, 404, "NotFound"),
        ("GET", "/classify", {}, 405, "MethodNotAllowed"),
        ("DELETE", "/", {}, 405, "MethodNotAllowed"),
    ],
)
def test_errors_are_json(
    asked: Answering, asking: str, method: str, path: str, headers: dict[str, str], code: int,
    type: str,
) -> None:  # fmt: skip
    before = len(asked.asked)
    answer = requests.request(
        method, f"{asking}{path}", headers=headers, data=b"no picture", timeout=60
    )
    assert answer.status_code == code
    error = answer.json()
    assert (error["code"], error["type"]) == (code, type)
    assert error["message"]
    assert ("allow" in answer.headers) == (code == 405)
    assert len(asked.asked) == before


def test_another_site_may_link_to_the_page(asked: Answering, asking: str) -> None:
    before = len(asked.asked)
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert requests.get(asking, headers=headers, timeout=60).status_code == 200
    assert len(asked.asked) == before


def test_a_tunnel_on_another_port_is_accepted(address: str, jpeg: bytes) -> None:
    headers = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    answer = requests.post(f"{address}/classify", data=jpeg, headers=headers, timeout=60)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["", "/static/page.js", "/nowhere", "/classify"])
def test_every_response_has_the_security_headers(address: str, path: str) -> None:
    headers = requests.get(f"{address}{path}", timeout=10).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "camera=(self)" in headers["permissions-policy"]


def test_loopback_only(address: str) -> None:
    port = address.rpartition(":")[2]
    addresses = [
        ":".join(map(str, connection.laddr))
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert [a for a in addresses if a.endswith(f":{port}")] == [f"127.0.0.1:{port}"]


def test_a_port_in_use(address: str) -> None:
    port = int(address.rpartition(":")[2])
    ended = subprocess.run(
        command(f"http://127.0.0.1:{free_port()}", port),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == f"port {port} is not available: Address already in use; choose another\n"
    assert ended.stdout == ""


def about(page: str) -> dict[str, Any]:
    models: dict[str, Any] = requests.get(f"{page}/about", timeout=60).json()["models"]
    return models


def described(model: Model, **choices: list[int]) -> dict[str, Any]:
    """The page's description of ``model``."""
    return {**asdict(model), "choices": choices}


def test_named_networks(asked: Answering) -> None:
    """They are asked and described."""
    options = ("--classify", "<vit>", "--translate", TRANSLATOR)
    before = len(asked.paths)
    with page_server(asked.url, 0, *options) as page:
        requests.post(f"{page}/classify", data=b"x", timeout=60)
        requests.post(f"{page}/translate", data=b"x", timeout=60)
        models = about(page)
    paths = ["/predictions/<vit>", f"/predictions/{TRANSLATOR}"]
    assert [unquote(path) for path in asked.paths[before:]] == paths
    assert models == {
        "classify": described(Model("<vit>", False, reason=MISSING)),
        "translate": described(MODELS[1], size=[64, 128, 256, 384, 512, 768, 1024]),
    }


def test_the_servers_own_networks() -> None:
    """What the page offers of each option is what the model takes."""
    seven = replace(MODELS[0], options={"top_k": Range(default=5, low=1, high=7)})
    odd = replace(MODELS[1], options={"size": Range(default=200, low=64, high=800, multiple=100)})
    with Answering.started() as server, page_server(server.url) as page:
        server.models = (seven, odd)
        assert about(page) == {
            "classify": described(seven, top_k=[1, 2, 3, 4, 5, 6, 7]),
            "translate": described(odd, size=[200]),
        }
        assert about(page)["classify"]["options"]["top_k"]["default"] == 5
        server.models = (*MODELS[1:], replace(MODELS[0], options=None))
        assert about(page)["classify"] == described(server.models[1])
        server.models = MODELS[1:]
        assert about(page)["classify"] is None
        server.draining = True
        assert about(page)["translate"]["reason"] == "draining"


def test_the_files_and_formats_are_those_of_the_server() -> None:
    html = INDEX.read_text("utf-8")
    types = re.search(r'accept="([^"]+)"', html)[1].split(",")  # type: ignore[index]
    names = {kind.removeprefix("image/") for kind in types if not kind.startswith(".")}
    assert names == {*re.split(", | or ", SUPPORTED.lower()), "apng"}
    assert tuple(re.findall(r'<option value="(\w+)"', html)) == FORMATS


def test_a_cancelled_request_is_cancelled_upstream() -> None:
    """The page's server closes its connection when the browser has closed its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT_S)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with page_server(url, 0, "--translate", "slow", "--classify", "slow") as page:
            browser = HTTPConnection(page.removeprefix("http://"), timeout=LIMIT_S)
            browser.request("POST", "/translate", b"picture")
            upstream, _ = server.accept()
            with upstream:
                upstream.settimeout(LIMIT_S)
                while not upstream.recv(65_536).endswith(b"picture"):
                    pass
                browser.close()
                assert upstream.recv(1) == b""
