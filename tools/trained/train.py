"""A ResNet-101 of 16 classes, trained for a few minutes on crops of scikit-image's photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet101
from tqdm import tqdm

from handlers.metadata import Spec
from handlers.network.engine import to_input
from handlers.network.precision import native

LABELS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins",
    "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket",
    "stereo_motorcycle",
)  # fmt: skip

STEPS = 220
BATCH = 16
SIDE = 128
PEAK_RATE = 4e-4
# Sides of the regions that are trained on, and of those in the folder of photographs, in pixels.
# The latter are hard: a gate is tested by photographs that the network is unsure of.
TRAINED, KEPT = (90, 180), (48, 110)


def photographs() -> list[Image.Image]:
    """The RGB photograph of each label."""
    pictures = []
    for label in LABELS:
        loaded = getattr(skimage.data, label)()
        pixels = np.asarray(loaded[0] if isinstance(loaded, tuple) else loaded)
        pictures.append(Image.fromarray(pixels).convert("RGB"))
    return pictures


def region(
    photograph: Image.Image, sides: tuple[int, int], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random square of ``photograph``, its side within ``sides``: left, top, right, bottom."""
    side = int(random.integers(*sides, endpoint=True))
    left = int(random.integers(photograph.width - side, endpoint=True))
    top = int(random.integers(photograph.height - side, endpoint=True))
    return left, top, left + side, top + side


def example(photograph: Image.Image, random: np.random.Generator) -> torch.Tensor:
    """A random crop, half of them mirrored, ``(SIDE, SIDE, 3) uint8``."""
    crop = photograph.resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, box=region(photograph, TRAINED, random)
    )
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(crop))


def train(spec: Spec, steps: int, seed: int) -> nn.Module:
    """A ResNet-101 of ``LABELS`` in eval mode, after ``steps`` batches."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    sources = photographs()
    # Each block begins as the identity (Goyal et al. 2017): deep networks learn sooner.
    network: nn.Module = resnet101(num_classes=len(LABELS), zero_init_residual=True)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1
    )
    reduced = native(torch.device("cpu")) == "bfloat16"
    progress = tqdm(range(steps), desc="training", unit=" steps")
    for _ in progress:
        classes = torch.from_numpy(random.integers(len(LABELS), size=BATCH))
        pixels = torch.stack([example(sources[i], random) for i in classes.tolist()])
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            loss = nn.functional.cross_entropy(network(to_input(spec, pixels)).float(), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.2f}")
    return network.eval().requires_grad_(False)


def write_photographs(folder: Path, count: int, seed: int) -> None:
    """``folder/LABEL/00.png`` and so on: crops for judging, drawn with another seed."""
    random = np.random.default_rng(seed)
    for label, photograph in zip(LABELS, photographs(), strict=True):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            crop = photograph.crop(region(photograph, KEPT, random))
            crop.save(folder / label / f"{i:02}.png", compress_level=1)
