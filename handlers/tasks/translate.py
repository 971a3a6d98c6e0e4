"""Translation: a picture in, a picture out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar

from PIL import Image

from handlers.metadata import Output, Spec
from handlers.request import Answer, Integer, Offer, Request

if TYPE_CHECKING:
    import torch

# Level 1 takes a quarter of the time of zlib's default, 6, for a tenth more bytes.
_PNG_LEVEL = 1
# The range of the option ``size``: the shorter side, in pixels. Every network takes the smallest:
# its ``multiple`` divides 64.
SMALLEST, LARGEST = 64, 1024


class Translate:
    """The network's output as an RGB picture: PNG, JPEG or WebP."""

    output: ClassVar[Output] = "picture"

    def __init__(self, spec: Spec) -> None:
        integers: dict[str, Integer] = {}
        if spec.crop is None:  # else the network has one size
            integers["size"] = Integer(spec.resize, SMALLEST, LARGEST, spec.multiple)
        integers["quality"] = Integer(default=90, low=1, high=95)
        formats = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
        self.offer = Offer(formats, integers)
        self.canary_options = {"size": str(SMALLEST)} if "size" in integers else {}
        self._range = spec.output_range

    def answer(self, output: torch.Tensor, request: Request) -> Answer:
        """``output`` is ``(3, H, W) float32``, with values in the specification's output_range."""
        picture = to_image(output, self._range)
        body = encode(picture, request.format, request.options["quality"])
        return Answer(body, self.offer.formats[request.format])


def to_image(output: torch.Tensor, output_range: tuple[float, float] = (-1.0, 1.0)) -> Image.Image:
    """``(3, H, W)`` with values in ``output_range`` -> RGB image, rounded and clamped to 8 bits."""
    low, high = output_range
    levels = output.sub(low).mul(255 / (high - low)).round_().clamp_(0, 255).byte()
    _, height, width = levels.shape
    pixels = levels.permute(1, 2, 0).contiguous().numpy().tobytes()
    return Image.frombytes("RGB", (width, height), pixels)


def encode(image: Image.Image, name: str, quality: int) -> bytes:
    """``image`` as a png, jpeg or webp file; ``quality`` (1 to 95) applies to the last two."""
    buffer = io.BytesIO()
    if name == "png":
        image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    else:
        image.save(buffer, name.upper(), quality=quality)
    return buffer.getvalue()


TASK = Translate
