"""Files that the examples of the TorchScript files must refuse."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

# By file: a part of the message. All but the last are of cyclegan, which is the smaller.
REFUSED_MODELS = {
    "missing.pt": "no such file",
    "truncated.pt": "no TorchScript file, or is damaged",
    "text.pt": "no TorchScript file, or is damaged",
    "foreign.pt": "cannot be checked",
    "half.pt": "cannot be checked",
    "flipped.pt": "misses its golden example on cpu",
    "other.pt": "misses its golden example on cpu",
    "nan.pt": "misses its golden example on cpu",
    "resnet101.pt": "gives classes, this program needs picture",
}
REFUSED_PICTURES = ("missing.png", "text.png", "truncated.png", "folder")


@pytest.fixture(scope="session")
def refused(
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with REFUSED_MODELS and REFUSED_PICTURES. Read it only."""
    folder = tmp_path_factory.mktemp("refused")
    whole = (model_store / "cyclegan.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pt").write_text("no network\n")
    # In the middle of the weights, where PyTorch's reader notices nothing.
    middle, flips = len(whole) // 2, 400
    flipped = bytes(byte ^ 0xFF for byte in whole[middle : middle + flips])
    (folder / "flipped.pt").write_bytes(whole[:middle] + flipped + whole[middle + flips :])
    _save_others(model_store / "cyclegan.pt", folder)
    (folder / "resnet101.pt").symlink_to(model_store / "resnet101.pt")
    (folder / "text.png").write_text("no picture\n")
    buffer = io.BytesIO()
    photographs["chelsea"].save(buffer, "PNG")
    (folder / "truncated.png").write_bytes(buffer.getvalue()[:50_000])
    (folder / "folder").mkdir()
    return folder


def _save_others(pt: Path, folder: Path) -> None:
    """The network of ``pt`` with other extra files."""
    extra: dict[str, Any] = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    network = torch.jit.load(pt, _extra_files=extra)
    golden = np.frombuffer(extra["golden_output.f32"], "<f4").copy()
    one_off, one_nan = golden.copy(), golden.copy()
    one_off[-1] += 0.01 * np.abs(golden).max()
    one_nan[-1] = np.nan
    torch.jit.save(network, folder / "foreign.pt")
    for name, output in (("half", golden[::2]), ("other", one_off), ("nan", one_nan)):
        extra["golden_output.f32"] = output.tobytes()
        torch.jit.save(network, folder / f"{name}.pt", _extra_files=extra)
