"""CycleGAN's generator of zebras from horses, with the weights of *Deep Learning with PyTorch*."""

from __future__ import annotations

import math
import re

import torch
from torch import nn

from export.networks import (
    Checkpoint,
    Download,
    Example,
    Network,
    Preprocessing,
    Serving,
    Sizes,
    StateDict,
)
from export.networks._generator import Generator
from export.untrained import pictures
from handlers.metadata import Spec

_BOOK = "https://github.com/deep-learning-with-pytorch/dlwpt-code/raw/master/data/p1ch2/"

# Standard deviation before tanh: most samples stay clear of its flat ends.
TANH_SCALE = 0.6

# InstanceNorm2d of PyTorch before 0.4 saved statistics that it never used.
_STALE_STATISTICS = re.compile(r"\.(running_mean|running_var|num_batches_tracked)$")


def build(_: Spec) -> nn.Module:
    return Generator()


def repair(state: StateDict) -> StateDict:
    """Drop stale statistics, and rename what the original code saved when it used dropout.

    Dropout puts the second convolution of each block one position later.
    """
    return {
        re.sub(r"\.conv_block\.6\.", ".conv_block.5.", key): tensor
        for key, tensor in state.items()
        if not _STALE_STATISTICS.search(key)
    }


def condition(module: nn.Module, _: Spec) -> None:
    """Random over channels and smooth over space: the output looks and compresses like a picture.

    Binomial kernels upsample by two without a checkerboard.
    """
    assert isinstance(module, Generator)
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            order = layer.kernel_size[0] - 1
            row = torch.tensor([float(math.comb(order, i)) for i in range(order + 1)])
            kernel = torch.outer(row, row) / row.sum() ** 2
            layer.weight.copy_(torch.randn(*layer.weight.shape[:2], 1, 1) * kernel)
    before_tanh = module.model[:-1](pictures(2, 128, 128))
    last = module.model[-2]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    scale = TANH_SCALE / before_tanh.std(dim=(0, 2, 3))
    last.weight.mul_(scale.view(-1, 1, 1, 1))
    last.bias.mul_(scale).sub_(before_tanh.mean(dim=(0, 2, 3)) * scale)


NETWORK = Network(
    name="cyclegan",
    task="translate",
    build=build,
    sizes=Sizes(
        proof=((1, 64, 64), (5, 64, 64), (1, 256, 256), (5, 96, 156)),
        gate=(4, 128, 128),
    ),
    # The network halves its input twice and doubles it twice, so only multiples of 4 keep their
    # size. The book has Resize(256), ToTensor() and no normalisation; the original training code
    # feeds [-1, 1].
    variants={
        "book": Preprocessing(resize=256, multiple=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        "original": Preprocessing(
            resize=256, multiple=4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
    },
    checkpoints={
        "horse2zebra": Checkpoint(
            Download(
                file="horse2zebra_0.4.0.pth",
                url=_BOOK + "horse2zebra_0.4.0.pth",
                sha256="043afb9bdb059f8423ba772f9b01b5d72dc63f8221989e7750807df6c55d56b4",
                bytes=45_519_250,
            ),
            variant="book",
            source="Deep Learning with PyTorch, chapter 2 (data/p1ch2/horse2zebra_0.4.0.pth)",
            licence="as the book's repository; trained by the CycleGAN authors (BSD-2-Clause code)",
        ),
    },
    repair=repair,
    untrained=condition,
    serving=Serving(
        batch_size=4,
        # On two cores in float32, eight pictures of the default size take 8 s, and of size=1024
        # four minutes.
        job_queue_size=8,
        # On two cores the largest input takes half a minute, and a batch may have four of them.
        response_timeout_s=600,
        # With more, the intermediate results of a batch outgrow a CPU's caches: four pictures of
        # 256x256 together take up to 1.4 times as long as one by one (docs/performance.md).
        cpu_batch_pixels=256 * 256,
    ),
    example=Example(
        picture=Download(
            file="horse.jpg",
            url=_BOOK + "horse.jpg",
            sha256="478b2b255c74ad18547b6df158a08703d7c5961e89a5c46f2685f820122fff66",
        ),
        checkpoint="horse2zebra",
        size=(316, 256),  # the picture has 1500x1220
    ),
)
