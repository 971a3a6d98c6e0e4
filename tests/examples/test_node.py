"""examples/node against the real server: as a person runs it, over REST and over gRPC."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import requests
from PIL import Image, ImageChops

from serving.logs import LogTail
from tests import tools
from tests.running import Running, free_port
from vision_client import inference_pb2, inference_pb2_grpc

pytestmark = pytest.mark.slow

tools.require("nodejs", "npm")

ROOT = Path(__file__).parents[2]
README = (ROOT / "examples" / "README.md").read_text()
TIMEOUT_S = 120
# job_queue_size of config.properties
QUEUE = 100
TRANSPORTS = ("rest", "grpc")

both = pytest.mark.parametrize("transport", TRANSPORTS)

Start = Callable[..., "subprocess.Popen[str]"]
Node = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository as far as the example needs it, with its packages."""
    root = tmp_path_factory.mktemp("repository")
    node = root / "examples" / "node"
    shutil.copytree(ROOT / "examples/node", node, ignore=shutil.ignore_patterns("node_modules"))
    proto = root / "client" / "vision_client" / "inference.proto"
    proto.parent.mkdir(parents=True)
    shutil.copy(ROOT / "client/vision_client/inference.proto", proto)
    ci = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"],
        cwd=node,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ci.returncode == 0, ci.stdout + ci.stderr
    return node


def environment(server: Running) -> dict[str, str]:
    return {
        **os.environ,
        "VISION_SERVER": server.config.inference,
        "VISION_GRPC": server.config.grpc,
    }


@pytest.fixture
def start(installed: Path, server: Running) -> Start:
    """Starts ``node TRANSPORT.mjs ...`` against the server."""

    def call(transport: str, *arguments: str | Path, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["node", str(installed / f"{transport}.mjs"), *map(str, arguments)],
            env={**environment(server), **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.fixture
def node(start: Start) -> Node:
    """The same to its end."""

    def call(
        transport: str, *arguments: str | Path, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        with start(transport, *arguments, **changes) as process:
            said = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, *said)

    return call


@pytest.fixture
def photo(tmp_path: Path, jpeg: bytes) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    return path


def ranked(server: Running, jpeg: bytes, top_k: int) -> list[str]:
    """The lines that the server's answer should be printed as."""
    headers = {"x-top-k": str(top_k)}
    answer = requests.post(
        server.url("resnet101"), data=jpeg, headers=headers, timeout=TIMEOUT_S
    ).json()
    return [f"{100 * p['probability']:5.2f} %  {p['label']}" for p in answer["predictions"]]


def test_the_lock_file_names_no_registry() -> None:
    lock = (ROOT / "examples/node/package-lock.json").read_text()
    assert lock.count('"integrity"') > 30
    assert '"resolved"' not in lock


@both
def test_classify(node: Node, server: Running, photo: Path, jpeg: bytes, transport: str) -> None:
    five, two = node(transport, "classify", photo), node(transport, "classify", photo, "2")
    assert (five.returncode, two.returncode) == (0, 0), five.stderr + two.stderr
    said = ["weights: untrained"] if transport == "rest" else []
    assert five.stdout.splitlines() == ranked(server, jpeg, 5) + said
    assert two.stdout.splitlines() == ranked(server, jpeg, 2) + said
    warning = "untrained weights: the answer means nothing\n" if transport == "rest" else ""
    assert two.stderr == warning


@both
@pytest.mark.parametrize("size", [[], ["128"]])
def test_translate(
    node: Node, server: Running, photo: Path, jpeg: bytes, transport: str, size: list[str]
) -> None:
    out = photo.with_name("zebra.png")
    run = node(transport, "translate", photo, out, *size)
    assert run.returncode == 0, run.stderr
    assert f"{out} written\n" in run.stdout
    headers = {"x-size": size[0]} if size else {}
    expected = requests.post(
        server.url("cyclegan"), data=jpeg, headers=headers, timeout=TIMEOUT_S
    ).content
    with Image.open(out) as got, Image.open(io.BytesIO(expected)) as wanted:
        assert (got.format, got.size, got.mode) == ("PNG", wanted.size, wanted.mode)
        assert ImageChops.difference(got, wanted).getbbox() is None
    assert sorted(path.name for path in out.parent.iterdir()) == ["photo.jpg", "zebra.png"]


@both
def test_errors_are_the_servers_words(
    node: Node, photo: Path, tmp_path: Path, transport: str
) -> None:
    text, pdf, large = tmp_path / "a.txt", tmp_path / "a.pdf", tmp_path / "large"
    text.write_text("this is no picture\n")
    pdf.write_bytes(b"%PDF-1.7")
    large.write_bytes(bytes(25 << 20))
    for arguments, expected in (
        (["classify", text], "400 BadImage: the bytes are no picture"),
        (["translate", text, tmp_path / "out.png"], "400 BadImage: the bytes are no picture"),
        (["classify", pdf], "415 UnsupportedFormat: "),
        (["classify", photo, "0"], "422 InvalidOption: top_k must be from 1 to 1000, not 0"),
        # More than TorchServe reads: it says so without our JSON.
        (["classify", large], "413 "),
    ):
        run = node(transport, *arguments)
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.startswith(expected)
        assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


@both
def test_no_server(node: Node, photo: Path, transport: str) -> None:
    port = free_port()
    where = {"VISION_SERVER": f"http://127.0.0.1:{port}", "VISION_GRPC": f"127.0.0.1:{port}"}
    run = node(transport, "classify", photo, **where)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("no connection to ")
    assert f"127.0.0.1:{port}: start the server with `make start`, or set VISION_" in run.stderr
    assert "ECONNREFUSED" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@both
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["constructor", "photo.jpg"],
        ["classify"],
        ["classify", "photo.jpg", "three"],
        ["classify", "photo.jpg", "3", "4"],
        ["translate", "photo.jpg"],
        ["translate", "photo.jpg", "out.jpg"],
        ["translate", "photo.jpg", "out.png", "big"],
    ],
    ids=" ".join,
)
def test_usage(node: Node, transport: str, arguments: list[str]) -> None:
    run = node(transport, *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines() == [
        f"usage: node {transport}.mjs classify PHOTO [topK]",
        f"       node {transport}.mjs translate PHOTO OUT.png [size]",
    ]


@both
def test_files_that_cannot_be_read_or_written(
    node: Node, photo: Path, tmp_path: Path, transport: str
) -> None:
    run = node(transport, "classify", tmp_path / "missing.jpg")
    assert (run.returncode, run.stdout) == (1, "")
    assert re.fullmatch(r"ENOENT: no such file .*missing\.jpg'\n", run.stderr)
    folder = tmp_path / "folder.png"
    folder.mkdir()
    run = node(transport, "translate", photo, folder, "64")
    assert (run.returncode, run.stdout) == (1, "")
    assert len(run.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "photo.jpg"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def held(server: Running, model: str) -> Iterator[None]:
    """While ``model``'s worker stands still with a request, so that what comes now waits."""
    (worker,) = [psutil.Process(found.pid) for found in server.management.workers(model)]
    # Once this is answered, nothing is left that nobody waited for.
    assert (
        requests.post(server.url(model), data=b"no picture", timeout=TIMEOUT_S).status_code == 400
    )
    log = LogTail(server.run.logs / "ts_log.log")
    with ThreadPoolExecutor(1) as pool:
        worker.suspend()
        try:
            taken = pool.submit(requests.post, server.url(model), data=b"no picture")
            until(lambda: "Flushing req.cmd" in log.read())
            yield
        finally:
            worker.resume()
        assert taken.result().status_code == 400


@both
def test_no_answer_in_time(node: Node, server: Running, photo: Path, transport: str) -> None:
    with held(server, "resnet101"):
        run = node(transport, "classify", photo, VISION_TIMEOUT="0.3")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.endswith(" gave no answer within 0.3 s\n")


def test_a_server_whose_clock_is_first(node: Node, photo: Path) -> None:
    """TorchServe then cancels, about once in ten times: too seldom to wait for, so it is played."""

    class Cancels(inference_pb2_grpc.InferenceAPIsServiceServicer):  # type: ignore[misc]
        def Predictions(self, request: Any, context: Any) -> None:  # noqa: N802
            context.abort(grpc.StatusCode.CANCELLED, "Call cancelled")

    cancelling = grpc.server(ThreadPoolExecutor(1))
    inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(Cancels(), cancelling)
    port = cancelling.add_insecure_port("127.0.0.1:0")
    cancelling.start()
    run = node("grpc", "classify", photo, VISION_GRPC=f"127.0.0.1:{port}")
    cancelling.stop(None).wait()
    assert run.returncode == 1
    assert run.stderr == f"127.0.0.1:{port} gave no answer within 130 s\n"


def test_an_error_among_good_answers_is_no_picture(
    start: Start, server: Running, photo: Path, jpeg: bytes
) -> None:
    """Over gRPC it comes with status OK, as if it were the answer."""
    damaged, out = photo.with_name("damaged.jpg"), photo.with_name("out.png")
    damaged.write_bytes(jpeg[:2000])
    log = LogTail(server.run.logs / "model_log.log")
    fields = {"data": jpeg, "size": b"64"}
    request = inference_pb2.PredictionsRequest(model_name="cyclegan", input=fields)

    def ask() -> Any:
        return server.grpc.Predictions.future(request, timeout=TIMEOUT_S)

    with held(server, "cyclegan"):
        good = [ask()]
        until(lambda: server.management.pending("cyclegan") == 1)
        process = start("grpc", "translate", damaged, out)
        until(lambda: server.management.pending("cyclegan") == 2)
        good += [ask(), ask()]
        until(lambda: server.management.pending("cyclegan") == 4)
    with process:
        printed, complaints = process.communicate(timeout=TIMEOUT_S)
    assert all(call.result().prediction.startswith(b"\x89PNG") for call in good)
    # The log comes a moment after the answer, and on a busy machine a batch may be cut in two.
    mixed = r"batch of [2-4]: .*(ok, BadImage|BadImage, ok)"
    until(lambda: re.search(mixed, log.read()) is not None)
    assert (process.returncode, printed) == (1, "")
    assert complaints.startswith("400 BadImage: ")
    assert not out.exists()


def test_a_full_queue_is_asked_again(
    start: Start, server: Running, photo: Path, jpeg: bytes
) -> None:
    """TorchServe's real 503, by both transports."""
    expected = ranked(server, jpeg, 1)[0]
    with ThreadPoolExecutor(QUEUE) as pool:
        with held(server, "resnet101"):
            url = server.url("resnet101")
            waiting = [pool.submit(requests.post, url, data=b"no picture") for _ in range(QUEUE)]
            until(lambda: server.management.pending("resnet101") == QUEUE)
            asking = [start(transport, "classify", photo, "1") for transport in TRANSPORTS]
            complaints = [process.stderr.readline() for process in asking if process.stderr]
        assert {answer.result().status_code for answer in waiting} == {400}
    for process, complaint in zip(asking, complaints, strict=True):
        assert re.fullmatch(r"503 .*; asking again in 1\.\d s\n", complaint)
        with process:
            printed, said = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, said
        assert printed.splitlines()[0] == expected


def test_the_readmes_commands(
    installed: Path, server: Running, photo: Path, photographs: dict[str, Image.Image]
) -> None:
    section = README.split("\n## Node\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    photographs["coffee"].save(installed / "photo.jpg")
    run = subprocess.run(
        ["bash", "-euxc", blocks[0]],
        cwd=installed.parents[1],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(" %  ") >= 6
    with Image.open(installed / "zebra.png") as picture:
        assert picture.height == 384
