"""Shared by classify.py and translate.py: loads and checks a network, and feeds it photographs.

Needs PyTorch and Pillow alone. Copy it into your application.
"""

from __future__ import annotations

import base64
import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch.export.passes import move_to_device_pass

# Largest error on the golden example, relative to its largest value: enough for the kernels of
# another device, not for a damaged file.
TOLERANCE = 1e-3


class Unusable(Exception):
    """A file or a device cannot be used; the message is for the user."""


@dataclass(frozen=True)
class Model:
    """A network on ``device`` that has passed its golden example, and how to feed it.

    ``spec`` is that of ``model.json``: resize, crop, multiple, interpolation, mean, std, labels,
    output_range.
    """

    network: Callable[[torch.Tensor], torch.Tensor]
    spec: dict[str, Any]
    weights: str
    device: torch.device

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W) float32`` -> the network's output, on the CPU. Raises Unusable."""
        try:
            with torch.inference_mode():
                return self.network(pictures.to(self.device)).cpu()
        except RuntimeError as error:  # usually out of memory
            raise Unusable(f"the network failed: {str(error).strip().splitlines()[-1]}") from error


def load(path: Path, output: str, device: str = "auto") -> Model:
    """The network in ``path``, whose ``output`` must be ``classes`` or ``picture``.

    A ``.pt2`` is an ``ExportedProgram``, any other file TorchScript. ``auto`` is the GPU if PyTorch
    can use one, else the CPU. Raises Unusable.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise Unusable("PyTorch finds no GPU that it can use: take --device cpu")
    if not path.is_file():
        raise Unusable(f"{path}: there is no such file")
    network, extra = (_program if path.suffix == ".pt2" else _script)(path, device)
    # float32 means float32: a GPU's convolutions would otherwise take TF32.
    torch.backends.cudnn.allow_tf32 = False
    try:
        about = json.loads(extra["model.json"])
        spec, golden = about["spec"], about["golden"]
        example = _tensor(extra["golden_input.f32"], golden["input_shape"])
        expected = _tensor(extra["golden_output.f32"], golden["output_shape"])
        model = Model(network, spec, about["weights"]["name"], torch.device(device))
        off = float((model(example) - expected).abs().max() / expected.abs().max())
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise Unusable(f"{path} cannot be checked: its model.json or golden example") from error
    if not off <= TOLERANCE:  # NaN too
        raise Unusable(
            f"{path} misses its golden example on {device}: relative error {off:.2g}, "
            f"allowed {TOLERANCE:g}; the file or the device is faulty"
        )
    if spec["output"] != output:
        raise Unusable(f"{path} gives {spec['output']}, this program needs {output}")
    return model


def _script(path: Path, device: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """TorchScript on ``device`` and its extra files."""
    extra: dict[str, Any] = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every load says that TorchScript is deprecated
            network = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    except (OSError, RuntimeError, ValueError) as error:
        raise Unusable(f"{path} is not a TorchScript file, or is damaged") from error
    return network.to(device), extra


def _program(path: Path, device: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The same of an ``ExportedProgram``, whose extra files are text."""
    extra: dict[str, Any] = {"model.json": ""}
    try:
        if not zipfile.is_zipfile(path):  # torch.export.load would print a traceback
            raise ValueError("no zip file")
        program = torch.export.load(path, extra_files=extra)
    except (AssertionError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise Unusable(f"{path} is not a torch.export file, or is damaged") from error
    for name in ("golden_input.f32", "golden_output.f32"):
        extra[name] = base64.b64decode(extra.get(f"{name}.base64", ""))
    return move_to_device_pass(program, device).module(), extra


def read(path: Path) -> Image.Image:
    """The picture in ``path``: upright, RGB, transparency on white. Raises Unusable."""
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith(("I", "F")):
                # convert() would cut them off at 255.
                raise Unusable(f"{path} has more than 8 bits per sample: convert it first")
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise Unusable(f"{path}: there is no such file") from error
    # Pillow's readers raise all of these, SyntaxError too, for a damaged file.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable(f"{path} is no picture that Pillow can read, or is damaged") from error


def resize(spec: dict[str, Any], picture: Image.Image, short: int) -> Image.Image:
    """``picture`` with a shorter side of ``short`` pixels, cropped if ``spec`` has a crop."""
    if spec["multiple"] == 1:
        long = short * max(picture.size) // min(picture.size)
    else:
        exact = short * max(picture.size) / min(picture.size)
        long = max(round(exact / spec["multiple"]) * spec["multiple"], short)
    width, height = (short, long) if picture.width <= picture.height else (long, short)
    method = Image.Resampling[spec["interpolation"].upper()]
    picture = picture.resize((width, height), method)
    if spec["crop"] is None:
        return picture
    left, top = round((width - spec["crop"]) / 2), round((height - spec["crop"]) / 2)
    return picture.crop((left, top, left + spec["crop"], top + spec["crop"]))


def to_input(spec: dict[str, Any], picture: Image.Image) -> torch.Tensor:
    """A resized RGB picture -> ``(1, 3, H, W) float32``."""
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(picture.height, picture.width, 3).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(spec[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (pixels / 255 - mean) / std


def to_picture(spec: dict[str, Any], output: torch.Tensor) -> Image.Image:
    """A network's output, ``(1, 3, H, W)`` in ``spec``'s ``output_range`` -> RGB picture."""
    low, high = spec["output_range"]
    levels = ((output[0] - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)
    _, height, width = levels.shape
    # Without NumPy, which PyTorch does not install.
    samples = bytes(levels.permute(1, 2, 0).flatten().tolist())
    return Image.frombytes("RGB", (width, height), samples)


def _tensor(data: bytes, shape: list[int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(shape)
