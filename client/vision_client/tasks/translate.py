"""Translation: a picture."""

from __future__ import annotations

import io
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from vision_client.answers import Answer, Reply
from vision_client.extras import extra
from vision_client.tasks.decoder import Decoder, Range

if TYPE_CHECKING:
    from PIL import Image

Format: TypeAlias = Literal["png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)  # the server's default first
# The shorter side in pixels. The default and ``multiple`` are those of the bundle's generator.
SIZE = Range(default=256, low=64, high=1024, multiple=4)
QUALITY = Range(default=90, low=1, high=95)  # of JPEG and WebP

_SIGNATURES = (b"\x89PNG", b"\xff\xd8", b"RIFF")


@dataclass(frozen=True)
class Translation(Answer):
    """A translated picture: ``data`` is a PNG, JPEG or WebP file, RGB."""

    data: bytes = field(repr=False)

    def image(self) -> Image.Image:
        """The decoded picture as a PIL image; needs Pillow."""
        with extra("images", "Translation.image"):
            from PIL import Image
        image = Image.open(io.BytesIO(self.data))
        image.load()
        return image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``data`` to ``path``, which is never left half-written. OSError if that fails."""
        path = Path(path)
        partial = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with partial.open("xb") as file:
                file.write(self.data)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def decode(reply: Reply, seconds: float) -> Translation:
    """ServerError if ``reply`` is not a picture."""
    if not reply.body.startswith(_SIGNATURES):
        raise reply.unexpected("a picture")
    return Translation(reply.weights, reply.request_id, seconds, reply.body)


TRANSLATE = Decoder("translate", decode, canary={"size": SIZE.low})
