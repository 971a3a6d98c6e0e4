"""Embeddings in the client: decoded with and without NumPy, and written by ``vision embed``."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import numpy as np
import pytest

from tests.client.conftest import VISION, invoke, join, vision
from tests.standin import LIMIT_S, Answer, Answering
from vision_client import AsyncClient, Client, MissingExtra, Model, ServerError
from vision_client.answers import Reply
from vision_client.tasks.embed import EMBED

VECTOR = np.array([3.0, 0.1, -4.0], "<f4")
MODEL = Model("resnet101_embed", True, "embed", "IMAGENET1K_V1-63fe2227")


def npy(vector: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(vector))
    return file.getvalue()


NPY = npy(VECTOR)


class Embedding(Answering):
    """Answers with a vector of the picture's first byte; a picture of one byte is an error.

    One that begins with "z" sets ``stuck`` and waits for ``go``.
    """

    weights = "first"

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.stuck, self.go = threading.Event(), threading.Event()

    def reply(self, path: str, headers: Message, content: bytes) -> Answer:
        if content.startswith(b"z"):
            self.stuck.set()
            self.go.wait(LIMIT_S)
        if len(content) == 1:
            error = b'{"code": 400, "type": "BadImage", "message": "no picture"}'
            return Answer(400, {}, error)
        weights = content[1:].decode() if content[1:2].isupper() else self.weights
        named = {"x-model-weights": weights.encode()}
        return Answer(200, named, npy(np.full(3, content[0], "<f4")))


@pytest.fixture
def server() -> Iterator[Embedding]:
    server = Embedding(Answer())
    server.models = (MODEL,)
    with server.listening():
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "cab":
        (folder / f"{name}.jpg").write_bytes(f"{name}-picture".encode())
    return folder


def test_a_vector_with_numpy_and_without() -> None:
    embedding = EMBED.decode(Reply(NPY, "w", "id"), 0.5)
    assert (embedding.weights, embedding.request_id, len(embedding)) == ("w", "id", 3)
    assert list(embedding.values) == VECTOR.tolist()
    assert embedding.numpy().dtype == np.float32
    assert np.array_equal(embedding.numpy(), VECTOR)
    assert np.array_equal(np.stack([embedding, embedding]), np.stack([VECTOR, VECTOR]))
    assert np.asarray(embedding, np.float64).dtype == np.float64
    assert "data" not in repr(embedding)


def test_without_numpy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    embedding = EMBED.decode(Reply(NPY), 0.5)
    assert len(embedding.values) == 3
    with pytest.raises(MissingExtra, match=r"Embedding\.numpy .*'vision-client\[numpy\]'"):
        embedding.numpy()


@pytest.mark.parametrize(
    "body",
    [
        b"", b'{"embedding": [1.0, 2.0]}', b"\x89PNG\r\n\x1a\n", VECTOR.tobytes(), NPY[:-1],
        NPY + b"\0", NPY[:10], NPY.replace(b"(3,)", b"(4,)"), npy(VECTOR.astype("<f8")),
        npy(VECTOR.astype(">f4")), npy(np.zeros((1, 3), "<f4")), npy(np.zeros(0, "<f4")),
        NPY.replace(b"\x01\x00", b"\x02\x00", 1), NPY.replace(b"v\x00", b"\x36\x00", 1),
    ],
)  # fmt: skip
def test_other_answers_are_errors(body: bytes) -> None:
    with pytest.raises(ServerError, match="not an embedding"):
        EMBED.decode(Reply(body), 0.5)


@pytest.mark.parametrize("normalize", [False, True])
def test_what_is_asked(server: Embedding, normalize: bool) -> None:
    with Client(server.url) as client:
        assert client.embed(b"abc", normalize=normalize).numpy().tolist() == [97.0] * 3
    assert server.paths == ["/predictions/resnet101_embed"]
    asked = server.asked[0]
    assert (asked["x-format"], asked["x-normalize"]) == ("npy", str(int(normalize)))


def test_on_an_event_loop(server: Embedding) -> None:
    async def ask() -> list[float]:
        async with AsyncClient(server.url) as client:
            return list((await client.embed(b"abc", model="mine", normalize=True)).values)

    assert asyncio.run(ask()) == [97.0] * 3
    assert server.paths == ["/predictions/mine"]
    assert server.asked[0]["x-normalize"] == "1"


def test_a_folder_becomes_one_file(server: Embedding, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"x")
    output = tmp_path / "vectors.npz"
    run = vision("embed", photos, "-o", output, "-n", VISION_SERVER=server.url)
    assert run.returncode == 1
    assert f"failed {photos}/broken.jpg: 400 BadImage: no picture" in run.stderr
    with np.load(output, allow_pickle=False) as file:
        assert sorted(file) == ["names", "vectors", "weights"]
        assert file["names"].tolist() == [f"{photos}/{name}.jpg" for name in "abc"]
        assert file["vectors"].dtype == np.float32
        assert file["vectors"].tolist() == [[float(ord(name))] * 3 for name in "abc"]
        assert str(file["weights"]) == "first"
    assert {headers["x-normalize"] for headers in server.asked} == {"1"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "vectors.npz"]


def test_a_file_is_replaced_only_by_force(server: Embedding, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.npz"
    output.write_bytes(b"mine")
    run = vision("embed", photos, "-o", output, VISION_SERVER=server.url)
    assert (run.returncode, output.read_bytes()) == (2, b"mine")
    assert "exists already" in run.stderr
    assert "--force" in run.stderr
    assert vision("embed", photos, "-o", output, "-f", VISION_SERVER=server.url).returncode == 0
    assert len(np.load(output)["vectors"]) == 3


def test_vectors_of_other_weights_are_not_mixed_in(
    server: Embedding, photos: Path, tmp_path: Path
) -> None:
    (photos / "b.jpg").write_bytes(b"bOther")
    run = vision("embed", photos, "-o", tmp_path / "v.npz", "-j", "1", VISION_SERVER=server.url)
    assert run.returncode == 1
    assert "b.jpg: the network changed meanwhile" in run.stderr
    assert len(np.load(tmp_path / "v.npz")["names"]) == 2


@pytest.mark.parametrize(
    ("output", "photo", "reason"),
    [
        ("vectors.csv", "photos", "-o vectors.npz"),
        ("no/such/v.npz", "photos", "No such file or directory"),
    ],
)
def test_wrong_usage(
    output: str, photo: str, reason: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    run = vision("embed", photo, "-o", output, COLUMNS="200", VISION_SERVER="http://127.0.0.1:9")
    assert run.returncode == 2
    assert reason in run.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["photos"]


def test_nothing_is_left_of_a_run_without_answers(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.npz"
    run = vision("embed", photos, "-o", output, VISION_SERVER="http://127.0.0.1:9")
    assert run.returncode == 1
    assert "no connection" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_an_interruption_keeps_what_was_answered(
    server: Embedding, photos: Path, tmp_path: Path
) -> None:
    (photos / "z.jpg").write_bytes(b"z-picture")
    command = [VISION, "embed", str(photos), "-o", str(tmp_path / "v.npz"), "-j", "1"]
    environment = {**os.environ, "VISION_SERVER": server.url}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert server.stuck.wait(LIMIT_S)
            time.sleep(0.5)  # the command reports what was answered before
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=LIMIT_S)
        finally:
            server.go.set()
            run.kill()
    assert run.returncode == 130, errors
    assert "stopped: embedded 3 of 4" in errors
    assert np.load(tmp_path / "v.npz")["vectors"].tolist() == [[97.0] * 3, [98.0] * 3, [99.0] * 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "v.npz"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt(number: signal.Signals) -> None:
    """SIGHUP is ignored if the parent ignores it, as ``nohup`` does."""
    script = (
        "import signal, sys; from vision_client.cli.interrupts import *\n"
        "number = int(sys.argv[1]); signal.signal(number, getattr(signal, sys.argv[2]))\n"
        "interrupt_on_signals()\n"
        "with uninterrupted():\n    signal.raise_signal(number); print('saved', flush=True)\n"
        "try:\n    signal.raise_signal(number)\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
    )
    for inherited, said in (("SIG_DFL", "saved\ninterrupted\n"), ("SIG_IGN", "saved\n")):
        run = subprocess.run(
            [sys.executable, "-c", script, str(int(number)), inherited],
            capture_output=True, text=True, timeout=LIMIT_S, check=True,
        )  # fmt: skip
        assert run.stdout == said


@pytest.mark.parametrize("force", [("--force",), ()])
def test_a_complete_file_stays_if_photographs_are_missing(
    server: Embedding, photos: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    """Also one that another command wrote meanwhile."""
    output = tmp_path / "v.npz"
    (photos / "z.jpg").write_bytes(b"z-picture")

    def appear() -> None:
        server.stuck.wait(LIMIT_S)
        output.write_bytes(b"mine")
        (tmp_path / "v-partial-1.npz").write_bytes(b"mine, too")
        if force:
            server.weights = "other"
        server.go.set()

    if force:
        output.write_bytes(b"mine")
    thread = threading.Thread(target=appear)
    thread.start()
    run = invoke("embed", photos, "-o", output, "-j", "1", *force, "-s", server.url)
    join(thread)
    assert (run.exit_code, output.read_bytes()) == (1, b"mine")
    written = tmp_path / "v-partial-2.npz"
    assert f"{output} exists and stays; the vectors are in {written}" in run.stderr
    assert len(np.load(written)["names"]) == (3 if force else 4)
    assert {p.name for p in tmp_path.iterdir()} == {
        "photos", "v.npz", "v-partial-1.npz", "v-partial-2.npz",
    }  # fmt: skip


def test_a_full_disk_names_the_file(
    server: Embedding, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space left on device: .*v\.npz"):
        invoke("embed", photos, "-o", tmp_path / "v.npz", "-s", server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
