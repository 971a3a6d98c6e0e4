"""What every part of the suite uses: real photographs, and one export of both networks."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

pytest_plugins = ["tests.running"]

# As the server's workers: processes that share two cores otherwise wait for each other's threads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A script's shell ignores SIGINT for what it starts with `&`. Children inherit that,
# and the tests end theirs with SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A setting of this shell's would win over the precision that a test states.
os.environ.pop("HANDLER_PRECISION", None)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def photographs() -> dict[str, Image.Image]:
    """scikit-image's photographs, RGB: chelsea 451x300, astronaut 512x512, coffee 600x400."""
    return {
        name: Image.fromarray(getattr(skimage.data, name)())
        for name in ("chelsea", "astronaut", "coffee")
    }


@pytest.fixture(scope="session")
def heavy() -> bytes:
    """A valid picture that takes a good part of a second to decode: 45 million pixels as PNG."""
    buffer = io.BytesIO()
    picture = Image.radial_gradient("L").resize((9000, 5000)).convert("RGB")
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both networks, untrained, exported by the command that a person uses. Read it only."""
    store = tmp_path_factory.mktemp("store") / "model_store"
    subprocess.run(
        [sys.executable, "-m", "export", "--weights", "random", "--model-store", str(store)],
        cwd=ROOT,
        check=True,
    )
    return store
