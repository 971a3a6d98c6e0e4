"""Shared by the whole suite: real photographs, and one export of all networks."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from export.networks import registered
from handlers.settings import VARIABLES

pytest_plugins = ["tests.running", "tests.served"]

# As in the server's workers. Otherwise processes that share cores wait for each other's threads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A script's shell ignores SIGINT in the jobs that it starts with `&`. Children inherit that, and
# the tests stop theirs with SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Set in the shell, they would override what a test chooses.
for _variable in VARIABLES.values():
    os.environ.pop(_variable, None)

ROOT = Path(__file__).parents[1]
MODELS = tuple(registered())  # every network of the bundle
# Servers of the whole suite. The tests of these, and whatever is marked so, run in one process.
SERVERS = {"server", "float32_server", "served"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `make test` divide the suite among processes: by file, if no mark says otherwise, but
    all tests of the shared servers in one.
    """

    def uses_servers(item: pytest.Item) -> bool:
        return not SERVERS.isdisjoint(getattr(item, "fixturenames", ()))

    files = {item.path for item in items if uses_servers(item)}
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            group = "servers" if item.path in files else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A short name for long texts: the processes send each other the names of tests."""
    return f"{argname}-{len(val)}" if isinstance(val, bytes | str) and len(val) > 200 else None


@pytest.fixture(scope="session")
def photographs() -> dict[str, Image.Image]:
    """scikit-image's photographs, RGB: chelsea 451x300, astronaut 512x512, coffee 600x400."""
    return {
        name: Image.fromarray(getattr(skimage.data, name)())
        for name in ("chelsea", "astronaut", "coffee")
    }


@pytest.fixture(scope="session")
def heavy() -> bytes:
    """A valid PNG of 45 million pixels, which takes about half a second to decode."""
    buffer = io.BytesIO()
    picture = Image.radial_gradient("L").resize((9000, 5000)).convert("RGB")
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """All networks, untrained, exported as by `make export`. Do not write to it.

    The processes of one run share it: the first that needs it exports.
    """
    folder = tmp_path_factory.getbasetemp()
    store = (folder if worker_id == "master" else folder.parent) / "model_store"
    with store.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(store.glob("*.mar")):
            command = [sys.executable, "-m", "export", "--weights", "random"]
            subprocess.run([*command, "--model-store", str(store)], cwd=ROOT, check=True)
    return store
