"""Preprocessing equals torchvision's, at a bounded cost."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet101_Weights
from torchvision.transforms import v2

from handlers.errors import TooLarge
from handlers.metadata import Spec
from handlers.pictures.limits import Limits
from handlers.pictures.resample import resample, resized_size
from tests.specs import CYCLEGAN, CYCLEGAN_ORIGINAL, RESNET101, RESNET101_V2
from tests.tensors import to_tensor

ROOT = Path(__file__).parents[2]

VARIANTS = {
    "v1": (RESNET101, ResNet101_Weights.IMAGENET1K_V1),
    "v2": (RESNET101_V2, ResNet101_Weights.IMAGENET1K_V2),
}
# Sizes (None: the photograph's own), and the share of samples that may be one step off: Pillow
# rounds to 8 bits between its two passes, which affects elongated pictures most.
SIZES: dict[str, tuple[tuple[int, int] | None, float]] = {
    "own": (None, 0.005),
    "1280x720": ((1280, 720), 0.005),
    "224x224": ((224, 224), 0.005),
    "3000x224": ((3000, 224), 0.15),
    "20x900": ((20, 900), 0.15),
    "77x1001": ((77, 1001), 0.15),
}


def levels(spec: Spec, tensor: torch.Tensor) -> torch.Tensor:
    """The 8-bit levels of a normalised tensor."""
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    exact = (tensor * std + mean) * 255
    assert (exact - exact.round()).abs().max() < 1e-3
    return exact.round()


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
@pytest.mark.parametrize(("size", "share"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("spec", "weights"), VARIANTS.values(), ids=VARIANTS)
def test_resnet101_parity_with_torchvision(
    photographs: dict[str, Image.Image],
    spec: Spec,
    weights: ResNet101_Weights,
    size: tuple[int, int] | None,
    share: float,
    name: str,
) -> None:
    picture = photographs[name] if size is None else photographs[name].resize(size)
    ours, theirs = to_tensor(spec, resample(spec, picture)), weights.transforms()(picture)
    assert ours.shape == theirs.shape == (3, 224, 224)
    assert ours.dtype == theirs.dtype == torch.float32
    difference = (levels(spec, ours) - levels(spec, theirs)).abs()
    # 224 -> 232 puts many samples on a tie. We resample only the region that the crop keeps, with a
    # box of 32-bit floats: both of Pillow's passes may round the other way.
    tied = (spec, size) == (RESNET101_V2, (224, 224))
    assert difference.max() <= (2 if tied else 1)
    assert (difference > 0).float().mean() <= (0.03 if tied else share)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 1000), (1000, 1), (20_000, 50), (50, 20_000), (223, 225), (256, 256)]
)
def test_any_shape_is_cropped_to_the_square(size: tuple[int, int]) -> None:
    tensor = to_tensor(RESNET101, resample(RESNET101, Image.new("RGB", size, (255, 0, 128))))
    assert tensor.shape == (3, 224, 224)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225])
    assert torch.allclose(tensor, expected.view(3, 1, 1).expand_as(tensor), atol=1e-5)


def test_an_elongated_picture_takes_no_memory_for_its_cropped_parts() -> None:
    """Resized in full, 1x20000 would be 256x5120000: 5 GB."""
    code = """if True:
        import resource
        from PIL import Image
        from handlers.pictures.resample import resample
        from tests.specs import RESNET101
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resample(RESNET101, Image.new("RGB", (300, 300)))
        before = peak()
        for size in ((20_000, 50), (1, 1_000), (1, 20_000), (20_000, 1)):
            assert resample(RESNET101, Image.new("RGB", size)).size == (224, 224)
        print(peak() - before)  # KiB on Linux
    """
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert int(run.stdout) < 100_000


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((1500, 1220), 256, (316, 256)),  # the book's horse
        ((1220, 1500), 256, (256, 316)),
        ((256, 256), 256, (256, 256)),
        ((100, 101), 64, (64, 64)),
        ((100, 103), 64, (64, 64)),
        ((100, 104), 64, (64, 68)),
        ((1920, 1080), 1024, (1820, 1024)),
        ((3, 4), 64, (64, 84)),
        ((1, 10), 64, (64, 640)),
    ],
)
def test_cyclegan_sizes(size: tuple[int, int], resize: int, expected: tuple[int, int]) -> None:
    assert resized_size(CYCLEGAN, *size, resize) == expected


def test_cyclegan_sizes_follow_the_rule() -> None:
    source = np.random.default_rng(0)
    for width, height in source.integers(1, 5000, (500, 2)).tolist():
        resize = 4 * int(source.integers(16, 257))
        size = resized_size(CYCLEGAN, width, height, resize)
        assert resized_size(CYCLEGAN, height, width, resize) == size[::-1]
        assert size[0 if width <= height else 1] == min(size) == resize
        assert max(size) % 4 == 0
        assert abs(max(size) - resize * max(width, height) / min(width, height)) <= 2


@pytest.mark.parametrize(
    ("name", "resize", "expected"),
    [("chelsea", 256, (384, 256)), ("astronaut", 256, (256, 256)), ("coffee", 128, (192, 128))],
)
def test_cyclegan_parity_with_torchvision(
    photographs: dict[str, Image.Image], name: str, resize: int, expected: tuple[int, int]
) -> None:
    picture = photographs[name]
    theirs = v2.Resize(resize)(picture)
    assert theirs.size == expected  # multiples of 4, for which both rules agree
    theirs = v2.functional.to_dtype(v2.functional.pil_to_tensor(theirs), torch.float32, scale=True)
    ours = to_tensor(CYCLEGAN, resample(CYCLEGAN, picture, resize=resize))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (CYCLEGAN, (1.0, 0.0, 0.4)),
        (CYCLEGAN_ORIGINAL, (1.0, -1.0, -0.2)),
        (RESNET101, (2.2489, -2.0357, -0.0267)),
        (RESNET101_V2, (2.2489, -2.0357, -0.0267)),
    ],
    ids=lambda value: f"{value.name}-{value.variant}" if isinstance(value, Spec) else "",
)
def test_every_variant_normalises_by_its_mean_and_std(
    spec: Spec, expected: tuple[float, float, float]
) -> None:
    tensor = to_tensor(spec, resample(spec, Image.new("RGB", (300, 280), (255, 0, 102))))
    assert tensor.amax(dim=(1, 2)).tolist() == pytest.approx(expected, abs=1e-4)
    assert tensor.amin(dim=(1, 2)).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "resize"), [((2000, 1000), 1024), ((1, 31), 256), ((1, 1_000_000), 256)]
)
def test_too_many_pixels_for_the_network(size: tuple[int, int], resize: int) -> None:
    with pytest.raises(TooLarge, match="2000000"):
        resample(CYCLEGAN, Image.new("RGB", size), resize=resize)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_picture_at_the_limit_is_accepted(scale: int) -> None:
    limits = Limits(network_pixels=64 * 128 * scale**2)
    spec = dataclasses.replace(CYCLEGAN, resize=64, scale=scale)
    assert resample(spec, Image.new("RGB", (128, 64)), limits=limits).size == (128, 64)
    with pytest.raises(TooLarge, match=f"{132 * scale}x{64 * scale}"):
        resample(spec, Image.new("RGB", (132, 64)), limits=limits)


def test_bicubic_interpolation(photographs: dict[str, Image.Image]) -> None:
    spec = dataclasses.replace(RESNET101, interpolation="bicubic")
    theirs = v2.CenterCrop(224)(v2.Resize(256, v2.InterpolationMode.BICUBIC)(photographs["coffee"]))
    ours = np.asarray(resample(spec, photographs["coffee"]), np.int16)
    assert np.abs(ours - np.asarray(theirs, np.int16)).max() <= 1
