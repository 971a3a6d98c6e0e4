"""What reduced precision does to ResNet-101's answers: ``python -m benchmarks.precision``.

Crops of scikit-image's photographs go through ``model_store/resnet101.pt`` in float32 and in
bfloat16, on the CPU. One row rounds the logits to bfloat16 too, which is what a network that is
reduced as a whole gives.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import skimage.data
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.machine import facts, summary
from handlers.network.engine import Engine
from handlers.pictures.pool import Pixels
from handlers.pictures.resample import resample
from tests.specs import RESNET101

PHOTOGRAPHS = ("astronaut", "cat", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry")
CROPS = 4  # along each side
TOP = 5


def pictures() -> Iterator[Image.Image]:
    """The photographs whole, and each cut into CROPS x CROPS."""
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        yield picture
        width, height = picture.width // CROPS, picture.height // CROPS
        for left in range(0, width * CROPS, width):
            for top in range(0, height * CROPS, height):
                yield picture.crop((left, top, left + width, top + height))


def logits(path: Path, precision: str) -> torch.Tensor:
    """``(N, classes) float32``, a row per picture."""
    network = Engine(path, torch.device("cpu"), precision)
    found = []
    with torch.inference_mode():
        for picture in tqdm(list(pictures()), desc=precision):
            image = resample(RESNET101, picture)
            pixels = Pixels(image.size, bytearray(image.tobytes()))
            found.append(network(network.preprocess([pixels])))
    return torch.cat(found)


def row(name: str, exact: torch.Tensor, found: torch.Tensor) -> str:
    """Ties among the TOP highest probabilities, changed first classes, largest shift."""
    before, after = exact.softmax(1), found.softmax(1)
    top = after.topk(TOP).values
    equal = top[:, 1:] == top[:, :-1]
    changed = (before.argmax(1) != after.argmax(1)).sum()
    shift = (before - after).abs().max()
    figures = (int(equal.any(1).sum()), int(equal[:, 0].sum()), int(changed))
    return f"{name:<28}" + "".join(f"{n:>14}" for n in figures) + f"{shift:>14.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    path = parser.parse_args().model_store / "resnet101.pt"
    exact, reduced = logits(path, "float32"), logits(path, "bfloat16")
    print(summary(facts("cpu")))
    print(f"{len(exact)} pictures; {path}")
    headings = (f"ties in top {TOP}", "tie at 1st", "1st changed", "largest shift")
    print(f"{'':<28}" + "".join(f"{heading:>14}" for heading in headings))
    print(row("float32", exact, exact))
    print(row("bfloat16", exact, reduced))
    print(row("bfloat16, logits rounded too", exact, reduced.bfloat16().float()))


if __name__ == "__main__":
    main()
