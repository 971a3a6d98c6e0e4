"""CycleGAN generator: a photograph in, its translation out (horses become zebras)."""

from __future__ import annotations

import torch

from handlers.base import Answer, ImageHandler, Options
from handlers.pictures.decode import encode
from handlers.preprocess import to_image
from handlers.request import Request

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


class CycleGAN(ImageHandler):
    """The translated picture, at the size of the network's input."""

    # Beyond it the intermediate results of a batch outgrow a CPU's caches: four pictures of 256x256
    # together take up to 1.4 times as long as one after the other (docs/performance.md).
    cpu_pixels = 256 * 256

    def read_options(self, request: Request) -> Options:
        return Options(
            format=request.media_type(MEDIA_TYPES),
            resize=request.integer(
                "size", default=self.spec.resize, low=64, high=1024, multiple=self.spec.multiple
            ),
            quality=request.integer("quality", default=90, low=1, high=95),
        )

    def encode(self, output: torch.Tensor, options: Options) -> Answer:
        picture = encode(to_image(output), options.format.upper(), options.quality)
        return Answer(picture, MEDIA_TYPES[options.format])
