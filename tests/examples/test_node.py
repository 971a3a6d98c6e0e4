"""examples/node against the real server: as a person runs it, over REST and over gRPC."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import grpc
import psutil
import pytest
from PIL import Image, ImageChops

from serving.logs import LogTail
from serving.sockets import client
from tests.client.conftest import PREDICTIONS
from tests.debian import require
from tests.examples.run import ROOT, Run, run, shell_blocks
from tests.routes import TIMEOUT_S, post, prediction
from tests.running import Running, free_port, wait_until
from tests.standin import (
    CLASSIFIER,
    MODELS,
    TRANSLATOR,
    Answer,
    Answering,
    AnsweringRpc,
)
from vision_client import Model, inference_pb2_grpc

pytestmark = pytest.mark.slow

require("nodejs", "npm")

# Requests that one client may have on the server: two batches, and three quarters of the queue.
MOST = 16 + 75
TRANSPORTS = ("rest", "grpc")

both = pytest.mark.parametrize("transport", TRANSPORTS)


class Start(Protocol):
    """Starts ``node TRANSPORT.mjs ...`` against the server, with changes to the environment."""

    def __call__(
        self, transport: str, *arguments: str | Path, **changes: str
    ) -> subprocess.Popen[str]: ...


class Node(Protocol):
    """Runs the same to its end."""

    def __call__(self, transport: str, *arguments: str | Path, **changes: str) -> Run: ...


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages, in a copy of those parts of the repository that it needs."""
    root = tmp_path_factory.mktemp("repository")
    node = root / "examples" / "node"
    shutil.copytree(ROOT / "examples/node", node, ignore=shutil.ignore_patterns("node_modules"))
    proto = root / "client" / "vision_client" / "inference.proto"
    proto.parent.mkdir(parents=True)
    shutil.copy(ROOT / "client/vision_client/inference.proto", proto)
    ci = run("npm", "ci", "--no-audit", "--no-fund", cwd=node)
    assert ci.returncode == 0, ci.stdout + ci.stderr
    return node


@pytest.fixture
def environment(server: Running) -> dict[str, str]:
    return {"VISION_SERVER": server.config.inference, "VISION_GRPC": server.config.grpc}


@pytest.fixture
def start(installed: Path, environment: dict[str, str]) -> Start:
    def call(transport: str, *arguments: str | Path, **changes: str) -> subprocess.Popen[str]:
        if transport == "grpc":  # which does not list the models
            translates = "translate" in arguments
            changes = {"VISION_MODEL": TRANSLATOR if translates else CLASSIFIER, **changes}
        return subprocess.Popen(
            ["node", str(installed / f"{transport}.mjs"), *map(str, arguments)],
            env={**os.environ, **environment, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.fixture
def node(start: Start) -> Node:
    def call(transport: str, *arguments: str | Path, **changes: str) -> Run:
        with start(transport, *arguments, **changes) as process:
            output = process.communicate(timeout=TIMEOUT_S)
        return Run(process.args, process.returncode, *output)

    return call


def waiting(
    start: Start, transport: str, command: str, photo: Path, *rest: str | Path, **changes: str
) -> tuple[subprocess.Popen[str], BinaryIO]:
    """A process that has started and waits for its photograph, which is to be written to the pipe.

    The supervisor replaces a worker that is suspended for 10 s, and Node may take longer to start.
    """
    os.mkfifo(photo)
    process = start(transport, command, photo, *rest, **changes)
    opened: list[int] = []

    def has_a_reader() -> bool:
        with suppress(OSError):
            opened.append(os.open(photo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    wait_until(has_a_reader)
    os.set_blocking(opened[0], True)
    return process, os.fdopen(opened[0], "wb")


@pytest.fixture
def photo(tmp_path: Path, jpeg: bytes) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    return path


def ranked(server: Running, jpeg: bytes, top_k: int) -> list[str]:
    """The lines as which the server's answer should be printed."""
    answer = post(server, "resnet101", data=jpeg, headers={"x-top-k": str(top_k)})
    predictions = answer.json()["predictions"]
    return [f"{100 * p['probability']:5.2f} %  {p['label']}" for p in predictions]


def assert_fails(ended: Run, message: str) -> None:
    """One line that matches ``message``, and status 1."""
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(f"{message}.*\n", ended.stderr), ended.stderr


def test_the_lock_file_names_no_registry() -> None:
    lock = (ROOT / "examples/node/package-lock.json").read_text()
    assert lock.count('"integrity"') > 30
    assert '"resolved"' not in lock


@both
def test_classify(node: Node, server: Running, photo: Path, jpeg: bytes, transport: str) -> None:
    five, two = node(transport, "classify", photo), node(transport, "classify", photo, "2")
    assert (five.returncode, two.returncode) == (0, 0), five.stderr + two.stderr
    weights = ["weights: untrained"] if transport == "rest" else []
    assert five.stdout.splitlines() == ranked(server, jpeg, 5) + weights
    assert two.stdout.splitlines() == ranked(server, jpeg, 2) + weights
    warning = "untrained weights: the answer means nothing\n" if transport == "rest" else ""
    assert two.stderr == warning


@both
@pytest.mark.parametrize("size", [[], ["128"]])
def test_translate(
    node: Node, server: Running, photo: Path, jpeg: bytes, transport: str, size: list[str]
) -> None:
    out = photo.with_name("zebra.png")
    ended = node(transport, "translate", photo, out, *size)
    assert ended.returncode == 0, ended.stderr
    assert f"{out} written\n" in ended.stdout
    headers = {"x-size": size[0]} if size else {}
    expected = post(server, "cyclegan", data=jpeg, headers=headers).content
    with Image.open(out) as got, Image.open(io.BytesIO(expected)) as wanted:
        assert (got.format, got.size, got.mode) == ("PNG", wanted.size, wanted.mode)
        assert ImageChops.difference(got, wanted).getbbox() is None
    assert sorted(path.name for path in out.parent.iterdir()) == ["photo.jpg", "zebra.png"]


@both
def test_errors(node: Node, photo: Path, tmp_path: Path, transport: str) -> None:
    """The server's messages, and those of files that cannot be read or written."""
    text, pdf, large = tmp_path / "a.txt", tmp_path / "a.pdf", tmp_path / "large"
    text.write_text("this is no picture\n")
    pdf.write_bytes(b"%PDF-1.7")
    large.write_bytes(bytes(25 << 20))
    out, folder = tmp_path / "out.png", tmp_path / "folder.png"
    folder.mkdir()
    before = sorted(tmp_path.iterdir())
    cases: list[tuple[list[str | Path], str]] = [
        (["classify", text], "400 BadImage: the bytes are not a picture"),
        (["translate", text, out], "400 BadImage: the bytes are not a picture"),
        (["classify", pdf], "415 UnsupportedFormat: "),
        (["classify", photo, "0"], "422 InvalidOption: top_k must be from 1 to 1000, not 0"),
        # More than TorchServe reads: it answers without our JSON.
        (["classify", large], "413 "),
        (["classify", tmp_path / "missing.jpg"], r"ENOENT: no such file .*missing\.jpg'"),
        (["translate", photo, folder, "64"], ""),
    ]
    for arguments, message in cases:
        assert_fails(node(transport, *arguments), message)
    assert sorted(tmp_path.iterdir()) == before


@both
def test_no_server(node: Node, photo: Path, transport: str) -> None:
    port = free_port()
    where = {"VISION_SERVER": f"http://127.0.0.1:{port}", "VISION_GRPC": f"127.0.0.1:{port}"}
    ended = node(transport, "classify", photo, **where)
    advice = f"127.0.0.1:{port}: start the server with `make start`, or set VISION_"
    assert_fails(ended, f"no connection to .*{advice}.*")
    assert "ECONNREFUSED" in ended.stderr


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
    ended = node(transport, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        f"usage: node {transport}.mjs classify PHOTO [topK]",
        f"       node {transport}.mjs translate PHOTO OUT.png [size]",
    ]


def refusal(code: int, type: str, **headers: bytes) -> Answer:
    body = json.dumps({"code": code, "type": type, "message": "no"}).encode()
    return Answer(code, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@both
def test_a_busy_server_is_asked_again(node: Node, photo: Path, transport: str) -> None:
    weights = {"x-model-weights": b"mine"}
    busy = refusal(429, "TooManyRequests", retry_after=b"2")
    with (
        Answering.started(headers=weights, body=PREDICTIONS) as rest,
        AnsweringRpc(PREDICTIONS).listening() as rpc,
    ):
        rest.first, rpc.first = [busy], [busy]
        where = {"VISION_SERVER": rest.url, "VISION_GRPC": rpc.url.removeprefix("grpc://")}
        ended = node(transport, "classify", photo, **where)
    assert ended.returncode == 0
    assert ended.stdout.startswith("50.00 %  cat\n")
    assert re.fullmatch(r"429 TooManyRequests: no.*; asking again in 2\.0 s\n", ended.stderr)
    if transport == "rest":
        assert rest.paths == [f"/predictions/{CLASSIFIER}"] * 2
        assert rest.asked[0]["x-timeout-ms"] == "130000"


@both
def test_the_server_gives_up(node: Node, photo: Path, transport: str) -> None:
    late = refusal(504, "DeadlineExceeded")
    with Answering.started() as rest, AnsweringRpc(b"").listening() as rpc:
        rest.answer, rpc.first = late, [late]
        where = {"VISION_SERVER": rest.url, "VISION_GRPC": rpc.url.removeprefix("grpc://")}
        ended = node(transport, "classify", photo, **where)
    assert_fails(ended, ".* gave no answer within 130 s")


def test_which_model_is_asked(node: Node, photo: Path) -> None:
    with Answering.started(headers={"x-model-weights": b"mine"}, body=PREDICTIONS) as server:
        here = {"VISION_SERVER": server.url}
        assert node("rest", "classify", photo, **here, VISION_MODEL="my/vit").returncode == 0
        server.models = (*MODELS[1:], Model("vit_b_16", True, "classify", "mine"))
        assert node("rest", "classify", photo, **here).returncode == 0
        server.models = MODELS[1:]
        assert_fails(node("rest", "classify", photo, **here), "the server has no model for the")
        server.models, server.answer = None, Answer(404)
        assert_fails(node("rest", "classify", photo, **here), ".* set VISION_MODEL")
        server.answer = Answer(body=b"<html>")
        assert_fails(node("rest", "classify", photo, **here), ".* not the server of this project")
    assert server.paths[:2] == ["/predictions/my%2Fvit", "/predictions/vit_b_16"]
    assert_fails(node("grpc", "classify", photo, VISION_MODEL=""), "over gRPC .* set VISION_MODEL")


def test_an_error_names_its_request(node: Node, photo: Path) -> None:
    with Answering.started() as server:
        server.answer = refusal(400, "BadImage", x_request_id=b"abc")
        ended = node("rest", "classify", photo, VISION_SERVER=server.url)
    assert ended.stderr == "400 BadImage: no (request abc)\n"
    assert re.fullmatch("[0-9a-f-]{36}", server.asked[0]["x-request-id"])


@contextmanager
def held(server: Running, model: str) -> Iterator[None]:
    """Suspend ``model``'s worker while it has a request, so that the next ones wait."""
    (worker,) = [psutil.Process(worker.pid) for worker in server.management.workers(model)]
    # Once this is answered, no request is left over from before.
    assert post(server, model, data=b"no picture").status_code == 400
    log = LogTail(server.run.logs / "ts_log.log")
    with ThreadPoolExecutor(1) as pool:
        worker.suspend()
        try:
            taken = pool.submit(post, server, model, data=b"no picture")
            wait_until(lambda: "Flushing req.cmd" in log.read())
            yield
        finally:
            worker.resume()
        assert taken.result().status_code == 400


def active(server: Running) -> int:
    """Requests that the gateway has received and not answered."""
    with client(server.run.sockets.admin) as admin:
        text = admin.get("/stats?filter=^http.public.downstream_rq_active$").text
    return int(text.partition(":")[2])


@both
def test_no_answer_in_time(
    start: Start, server: Running, photo: Path, jpeg: bytes, transport: str
) -> None:
    pipe_path = photo.with_name("pipe")
    process, pipe = waiting(start, transport, "classify", pipe_path, VISION_TIMEOUT="0.3")
    with process, held(server, "resnet101"):
        with pipe:
            pipe.write(jpeg)
        output = process.communicate(timeout=TIMEOUT_S)
    ended = Run(process.args, process.returncode, *output)
    assert_fails(ended, ".* gave no answer within 0.3 s")


def test_a_server_that_cancels_first(node: Node, photo: Path) -> None:
    """TorchServe cancels in about one of ten timeouts, so a server of ours stands in for it."""

    class Cancels(inference_pb2_grpc.InferenceAPIsServiceServicer):  # type: ignore[misc]
        def Predictions(self, request: Any, context: Any) -> None:  # noqa: N802
            context.abort(grpc.StatusCode.CANCELLED, "Call cancelled")

    cancelling = grpc.server(ThreadPoolExecutor(1))
    inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(Cancels(), cancelling)
    port = cancelling.add_insecure_port("127.0.0.1:0")
    cancelling.start()
    ended = node("grpc", "classify", photo, VISION_GRPC=f"127.0.0.1:{port}")
    cancelling.stop(None).wait()
    assert ended.returncode == 1
    assert ended.stderr == f"127.0.0.1:{port} gave no answer within 130 s\n"


def test_an_error_in_a_batch_is_not_saved_as_a_picture(
    start: Start, server: Running, photo: Path, jpeg: bytes
) -> None:
    out = photo.with_name("out.png")
    log = LogTail(server.run.logs / "model_log.log")

    def ask(pending: int) -> Any:
        request = prediction("cyclegan", data=jpeg, size=b"64")
        call = server.grpc.Predictions.future(request, timeout=TIMEOUT_S)
        wait_until(lambda: server.management.pending("cyclegan") >= pending)
        return call

    process, pipe = waiting(start, "grpc", "translate", photo.with_name("damaged.jpg"), out)
    with process:
        with pipe, held(server, "cyclegan"):
            good = [ask(1)]
            pipe.write(jpeg[:2000])
            pipe.close()
            wait_until(lambda: server.management.pending("cyclegan") >= 2)
            good += [ask(3), ask(4)]
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert all(call.result().prediction.startswith(b"\x89PNG") for call in good)
    # The log comes a moment after the answer, and on a busy machine a batch may be cut in two.
    mixed = r"batch of [2-4]: .*(ok, \S+ BadImage|BadImage, \S+ ok)"
    wait_until(lambda: re.search(mixed, log.read()) is not None)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.startswith("400 BadImage: ")
    assert not out.exists()


def test_a_refused_request_is_retried(
    start: Start, server: Running, photo: Path, jpeg: bytes
) -> None:
    """The server's real 429, over both transports."""
    expected = ranked(server, jpeg, 1)[0]
    asking, pipes = zip(
        *(waiting(start, t, "classify", photo.with_name(t), "1") for t in TRANSPORTS), strict=True
    )
    with ThreadPoolExecutor(MOST) as pool:
        with held(server, "resnet101"):
            queued = [
                pool.submit(post, server, "resnet101", data=b"no picture") for _ in range(MOST - 1)
            ]
            wait_until(lambda: active(server) == MOST)
            for pipe in pipes:
                with pipe:
                    pipe.write(jpeg)
            notices = [process.stderr.readline() for process in asking if process.stderr]
        assert {answer.result().status_code for answer in queued} == {400}
    for process, notice in zip(asking, notices, strict=True):
        assert re.fullmatch(r"429 .*; asking again in \d+\.\d s\n", notice)
        with process:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, stderr
        assert stdout.splitlines()[0] == expected


def test_the_readmes_commands(
    installed: Path, environment: dict[str, str], photographs: dict[str, Image.Image]
) -> None:
    (block,) = shell_blocks("Node")
    photographs["coffee"].save(installed / "photo.jpg")
    ended = run("bash", "-euxc", block, cwd=installed.parents[1], env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" %  ") >= 6
    with Image.open(installed / "zebra.png") as picture:
        assert picture.height == 384
