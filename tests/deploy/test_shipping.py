"""A bundle on another machine, and in a container: another user, no network, nothing writable."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.portable import checksums
from tests.deploy import image, tiny
from tests.deploy.image import Container, container, is_healthy
from tools.portable import contents, lock
from tools.portable.__main__ import main as build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user"),
]

ROOT = Path(__file__).parents[2]
NAME = contents.Product.read().full_name
STRANGER = 12_345  # a user that owns nothing here
PORT = "8080"  # in a network of its own


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users may enter; pytest's are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="shipped-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bundle(place: Path) -> Path:
    """The bundle of a small network, as `make bundle` writes it."""
    store = place / "store"
    store.mkdir()
    tiny.write(store / "tiny.mar", "minWorkers: 1\nmaxWorkers: 1\n")
    assert build(["--model-store", str(store), "--folder", str(place / "dist")]) == 0
    return place / "dist" / f"{NAME}.tar.gz"


@pytest.fixture(scope="module")
def installed(place: Path, bundle: Path) -> Path:
    """The root folder in which the Dockerfile's first stage has run: `./run install` is in it."""
    root = place / "root"
    root.mkdir()
    image.install(bundle.parents[1], root)
    return root


@pytest.fixture
def home(place: Path) -> Iterator[Path]:
    """The only folder that the stranger may write to."""
    folder = place / "home"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    yield folder
    shutil.rmtree(folder)


ASK = f"""
import io, sys, requests
from PIL import Image
file = io.BytesIO()
Image.new("RGB", (64, 64), "teal").save(file, "PNG")
url = "http://127.0.0.1:{PORT}/predictions/{tiny.MODEL}"
answer = requests.put(url, file.getvalue(), headers={{"x-fault": sys.argv[1]}}, timeout=60)
print(answer.status_code, Image.open(io.BytesIO(answer.content)).size)
"""
ANSWER = "200 (256, 256)\n"


def asking(inside: int, fault: str = "none") -> subprocess.Popen[str]:
    """A client in the network of process ``inside``, which asks for a prediction."""
    enter = ["nsenter", "--target", str(inside), "--net", sys.executable, "-c", ASK, fault]
    return subprocess.Popen(enter, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ask(inside: int) -> str:
    """What that client prints."""
    return asking(inside).communicate(timeout=90)[0]


def test_another_user_serves_a_read_only_bundle_without_a_network(
    installed: Path, home: Path
) -> None:
    unpacked, log = installed / "opt/vision", home.parent / "run.log"
    command = [str(unpacked / "run"), "--device", "cpu", "--port", PORT]
    with log.open("wb") as output:
        server = subprocess.Popen(
            image.without_route(STRANGER, command, home), cwd="/",
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + image.START_S
        while "Ctrl-C stops it" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert Path(f"/proc/{server.pid}").stat().st_uid == STRANGER
        assert ask(server.pid) == ANSWER
        routes = ["nsenter", "--target", str(server.pid), "--net", "ip", "route"]
        assert subprocess.run(routes, capture_output=True, check=True).stdout == b""
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, log.read_text()
    finally:
        server.kill()
        server.wait(30)
    assert log.read_text().endswith("stopped\n")
    assert checksums.faults(unpacked) == []
    assert [path.name for path in (unpacked / "local").iterdir()] == ["venv"]
    [cache] = (home / ".cache").iterdir()
    assert (cache / "run/logs/model_log.log").exists()


@pytest.fixture(scope="module")
def running(installed: Path) -> Iterator[Container]:
    with container(installed) as started:
        yield started


def test_the_container_answers_and_cannot_write(running: Container) -> None:
    assert ask(running.inside) == ANSWER
    status = Path(f"/proc/{running.inside}/status").read_text()
    assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    for folder in ("/", "/opt/vision", "/etc/vision", "/usr/local/bin"):
        write = f"import pathlib; pathlib.Path({folder!r}, 'new').touch()"
        done = running.execute("python3", "-c", write)
        assert done.returncode == 1
        assert re.search("Read-only file system|Permission denied", done.stderr)


def test_the_image_has_no_compiler_and_no_test_tools(running: Container) -> None:
    code = (
        "import importlib.util, json, pathlib\n"
        "tools = {'gcc', 'cc', 'g++', 'clang', 'make', 'pytest', 'ruff', 'mypy', 'git', 'curl'}\n"
        "names = {path.name for folder in ('/opt', '/usr/local') for path in\n"
        "         pathlib.Path(folder).rglob('*') if path.parent.name == 'bin'}\n"
        "modules = [name for name in ('pytest', 'hypothesis', 'mypy', 'hatchling', 'grpc_tools')\n"
        "           if importlib.util.find_spec(name)]\n"
        "print(json.dumps([sorted(names), sorted(tools & names), modules]))"
    )
    done = running.execute("/opt/vision/local/venv/bin/python", "-c", code)
    assert done.returncode == 0, done.stderr
    names, tools, modules = json.loads(done.stdout)
    assert {"vision", "python3"} <= set(names)
    assert (tools, modules) == ([], [])


def has_request(running: Container) -> bool:
    """Whether the gateway has a request that it has not answered."""
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8082/metrics').read())"
    metrics = running.execute("python3", "-c", code).stdout
    return re.search(r'downstream_rq_active{[^}]*"public"} [1-9]', metrics) is not None


def test_sigterm_fails_the_health_check_and_answers_what_was_accepted(running: Container) -> None:
    slow = asking(running.inside, "sleep 8")
    deadline = time.monotonic() + 30
    while not has_request(running):
        assert time.monotonic() < deadline
    os.kill(running.inside, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while is_healthy(running):
        assert time.monotonic() < deadline
    assert slow.communicate(timeout=90)[0] == ANSWER
    assert running.process.wait(60) == 0, running.log.read_text()
    assert running.log.read_text().endswith("stopped\n")


@pytest.fixture(scope="module")
def carrying(place: Path, bundle: Path) -> Path:
    """A bundle that carries the wheels of its lock, which has two small packages here."""
    folder = place / "carrying"
    folder.mkdir()
    subprocess.run(["tar", "xf", bundle, "-C", folder], check=True)
    unpacked = folder / NAME
    path = unpacked / "requirements.lock"
    entries = re.findall(r"^(?:jinja2|markupsafe)==.*\n(?:    .*\n)+", path.read_text(), re.M)
    path.write_text("".join(entries))
    wheels = lock.download(path, contents.installer(), unpacked / "wheels")
    assert len(wheels) == 3
    (unpacked / "bundle.json").write_text(
        json.dumps(contents.about(contents.Product.read(), wheels=True), indent=2)
    )
    renew(unpacked)
    return unpacked


def renew(unpacked: Path) -> None:
    """Write SHA256SUMS again."""
    names = [path for path in unpacked.rglob("*") if path.is_file()]
    files = {str(path.relative_to(unpacked)): path for path in names}
    files.pop(checksums.NAME, None)
    (unpacked / checksums.NAME).write_text(checksums.as_text(checksums.digests(files)))


def install_offline(unpacked: Path, home: Path) -> subprocess.CompletedProcess[str]:
    command = image.without_route(STRANGER, [str(unpacked / "run"), "install"], home)
    return subprocess.run(
        command, cwd="/", capture_output=True, text=True, timeout=120, check=False
    )


def test_wheels_are_installed_without_a_network_by_another_user(carrying: Path, home: Path) -> None:
    done = install_offline(carrying, home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from the wheels of this bundle" in done.stdout
    [cache] = (home / ".cache").iterdir()
    found = [path.name for path in (cache / "venv/lib").glob("python*/site-packages/*")]
    assert {"jinja2", "markupsafe", "vision_client"} <= set(found)
    assert not (cache / "venv/cache").exists()
    assert checksums.faults(carrying) == []
    assert install_offline(carrying, home).stdout.startswith("every file")
