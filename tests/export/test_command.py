"""``python -m export``: refusals, interruptions, and exports of a user's own.

A failed export leaves the model store as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from torch import nn

from export import pipeline
from export import weights as published
from export.__main__ import main
from export.checkpoints import Loaded
from export.networks import find, registered
from export.pipeline import fingerprint
from handlers.metadata import Weights

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests/networks/tiny_classifier.py"
LABELS = ["pug", "beagle", "boxer", "Siamese", "Persian"]

Command = Callable[..., list[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


def _states(store: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time and digest of every file but the lock."""
    return {
        file.name: (
            file.stat().st_ino,
            file.stat().st_mtime_ns,
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in store.iterdir()
        if file.name != ".lock"
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's checkpoint of OWN, with the names of its classes beside it."""
    path = tmp_path_factory.mktemp("own") / "pets.pth"
    network = find(str(OWN))
    state = network.build(network.spec(labels=tuple(LABELS))).state_dict()
    torch.save({"epoch": 9, "state_dict": state}, path)
    path.with_suffix(".json").write_text(json.dumps(LABELS))
    return path


@pytest.fixture(scope="module", autouse=True)
def interruptible() -> Iterator[None]:
    """A suite started in the background ignores SIGINT; its commands inherit that."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def _start(command_line: list[str], *, until: str, **variables: str) -> subprocess.Popen[str]:
    """Start a command and read its output up to the first line with ``until`` in it."""
    process = subprocess.Popen(
        command_line,
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until in line:
            return process
    raise AssertionError("".join(lines))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No cached weights, and a proxy that refuses connections; one attempt to download."""
    monkeypatch.setattr(published, "ATTEMPTS", 1)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{held.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        yield


@pytest.mark.usefixtures("offline")
def test_no_weights_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["export", "--model-store", str(tmp_path / "store")])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main() == 1
    said = capsys.readouterr().err
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    for named in ("horse2zebra_0.4.0.pth", "resnet101-63fe2227.pth", cache):
        assert str(named) in said
    for name in ("cyclegan", "resnet101"):
        for weights in ("PATH", "random"):
            assert f"make export NETWORK={name} WEIGHTS={weights}" in said
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {".lock"}


@pytest.mark.slow
def test_broken_checkpoint_leaves_the_artefacts(run: Run, store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    torch.save({"fc.weight": torch.zeros(7, 2048)}, broken)
    before = _states(store)
    done = run("export", "resnet101", "--resnet101", broken, "--model-store", store)
    assert done.returncode == 1
    assert f"error: {broken} does not fit this network:" in done.stderr
    assert "missing    conv1.weight" in done.stderr
    assert "Traceback" not in done.stderr
    assert _states(store) == before


def test_second_run_changes_nothing(run: Run, store: Path) -> None:
    before = _states(store)
    done = run("export", "cyclegan", "--weights", "random", "--model-store", store)
    assert done.returncode == 0
    assert "unchanged: the .pt is kept" in done.stdout
    assert "archive unchanged" in done.stdout
    assert _states(store) == before


@pytest.mark.parametrize("package", ["export", "handlers"])
def test_a_new_module_in_a_sub_folder_changes_the_fingerprint(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = [tmp_path / name for name in ("export", "handlers")]
    for copied in packages:
        shutil.copytree(ROOT / copied.name, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(pipeline, "PACKAGES", packages)
    network = registered()["resnet101"]
    weights = Weights("untrained", "random", False, None, None)
    loaded = Loaded(network, nn.Identity(), network.spec(), weights)
    before = fingerprint(loaded)
    parts = tmp_path / package / "parts"
    (parts / "__pycache__").mkdir(parents=True)
    (parts / "__pycache__" / "new.py").touch()
    assert fingerprint(loaded) == before
    (parts / "new.py").touch()
    assert fingerprint(loaded) != before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moment", "status"),
    [(signal.SIGTERM, "traced, ", 143), (signal.SIGINT, "in a fresh process", 130)],
)
def test_interrupted_export_leaves_the_artefacts(
    number: signal.Signals,
    moment: str,
    status: int,
    command: Command,
    tmp_path: Path,
) -> None:
    store, scratch = tmp_path / "store", tmp_path / "tmp"
    store.mkdir()
    scratch.mkdir()
    for suffix in ("pt", "json", "mar"):
        (store / f"{OWN.stem}.{suffix}").write_text("of before")
    before = _states(store)
    options = ("--weights", "random", "--model-store", store)
    command_line = command("export", OWN, *options)
    process = _start(command_line, until=moment, TMPDIR=str(scratch))
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == status, output
    assert "Traceback" not in output
    assert _states(store) == before
    assert not list(scratch.iterdir())
    assert not [p for p in psutil.process_iter(["cmdline"]) if _mentions(p, store)]


def _mentions(process: psutil.Process, path: Path) -> bool:
    return any(str(path) in word for word in process.info["cmdline"] or ())


@dataclass
class Rivals:
    """Two exports at once: the first is stopped halfway while the second runs."""

    store: Path
    first: subprocess.Popen[str]
    second: subprocess.CompletedProcess[str]
    first_work: list[Path]
    said: str


@pytest.fixture(scope="module")
def rivals(command: Command, own: Path, tmp_path_factory: pytest.TempPathFactory) -> Rivals:
    store = tmp_path_factory.mktemp("rivals") / "model_store"
    options = ("--weights", own, "--labels", own.with_suffix(".json"), "--model-store", store)
    command_line = command("export", OWN, *options)
    first = _start(command_line, until="traced, ")
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(
        command("export", "cyclegan", "--weights", "random", "--model-store", store),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first_work = [path for path in store.glob(".export-*/*") if path.is_file()]
    first.send_signal(signal.SIGCONT)
    said, _ = first.communicate()
    return Rivals(store, first, second, first_work, said)


@pytest.mark.slow
def test_second_export_at_once_is_refused(rivals: Rivals) -> None:
    assert rivals.second.returncode == 1
    assert f"another export is writing to {rivals.store}" in rivals.second.stderr


@pytest.mark.slow
def test_first_export_goes_on_undisturbed(rivals: Rivals) -> None:
    assert [path.name for path in rivals.first_work] == ["tiny_classifier.pt"]
    assert rivals.first.returncode == 0
    names = {f"{OWN.stem}.{suffix}" for suffix in ("pt", "pt2", "json", "mar")}
    assert set(_states(rivals.store)) == names


@pytest.mark.slow
def test_own_checkpoint_and_labels_reach_the_archive(rivals: Rivals, own: Path, run: Run) -> None:
    """--weights and --labels need no name where there is a single network."""
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    with zipfile.ZipFile(rivals.store / "tiny_classifier.mar") as mar:
        metadata = json.loads(mar.read("tiny_classifier.json"))
        assert yaml.safe_load(mar.read("tiny_classifier.yaml"))["batchSize"] == 4
    assert metadata == json.loads((rivals.store / "tiny_classifier.json").read_text())
    assert metadata["network"] == str(OWN)
    assert metadata["spec"]["labels"] == LABELS
    assert metadata["golden"]["output_shape"] == [1, len(LABELS)]
    assert metadata["weights"] == {
        "name": f"pets-{digest[:8]}",
        "source": "pets.pth",
        "trained": True,
        "sha256": digest,
        "licence": None,
    }
    again = run("export.archive", "--model-store", rivals.store)
    assert "tiny_classifier.mar: unchanged" in again.stdout
