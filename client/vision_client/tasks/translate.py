"""Translation: a picture."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from vision_client.answers import Answer, Reply
from vision_client.extras import MissingExtra, extra
from vision_client.files import whole
from vision_client.tasks.decoder import Decoder, Range

if TYPE_CHECKING:
    from PIL import Image

Format: TypeAlias = Literal["png", "jpeg", "jpg", "webp"]  # jpg is jpeg
FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")  # the server's, its default first
# By the suffix of a file, in lower case.
FORMAT_BY_SUFFIX: Mapping[str, Format] = {
    ".png": "png",
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    ".webp": "webp",
}
# The shorter side in pixels. The default and ``multiple`` are those of the bundle's generator.
SIZE = Range(default=256, low=64, high=1024, multiple=4)
QUALITY = Range(default=90, low=1, high=95)  # of JPEG and WebP

_SIGNATURES: Mapping[bytes, Format] = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp"}


@dataclass(frozen=True)
class Translation(Answer):
    """A translated picture: ``data`` is a PNG, JPEG or WebP file, RGB."""

    data: bytes = field(repr=False)

    @property
    def format(self) -> Format:
        """Of ``data``: png, jpeg or webp."""
        return next(name for start, name in _SIGNATURES.items() if self.data.startswith(start))

    def image(self) -> Image.Image:
        """The decoded picture as a PIL image; needs Pillow."""
        with extra("images", "Translation.image"):
            from PIL import Image
        image = Image.open(io.BytesIO(self.data))
        image.load()
        return image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to ``path``, which is never left half-written; links are followed.

        The suffix is the format. If ``data`` has another one, it is converted, which needs Pillow
        (MissingExtra), to JPEG and WebP with quality 90: for another quality, ask the server for
        that format. Without a suffix, ``data`` is written. ValueError for any other suffix, OSError
        if the file cannot be written.
        """
        path = Path(path)
        data = self._converted(path) if path.suffix else self.data
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        with whole(target) as file:
            file.write(data)

    def _repr_png_(self) -> bytes | None:
        """For notebooks. None without Pillow if ``data`` is no PNG."""
        try:
            return self._as("png", "showing a picture")
        except MissingExtra:
            return None

    def _converted(self, path: Path) -> bytes:
        """``data`` in the format that the suffix of ``path`` says."""
        wanted = FORMAT_BY_SUFFIX.get(path.suffix.lower())
        if wanted is None:
            suffixes = ", ".join(FORMAT_BY_SUFFIX)
            raise ValueError(f"{path}: {path.suffix} is not one of {suffixes}")
        without = f"translate(..., format={wanted!r})"
        return self._as(wanted, f"converting {self.format}, which {without} avoids,")

    def _as(self, format: Format, feature: str) -> bytes:
        """``data`` in ``format``; ``feature`` is what needs Pillow if that is another one."""
        if format == self.format:
            return self.data
        with extra("images", feature):
            from PIL import Image
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(self.data)) as image:
            image.save(buffer, format.upper(), quality=QUALITY.default)
        return buffer.getvalue()


def server_format(format: Format | None) -> Format | None:
    """``format`` as the server calls it."""
    return "jpeg" if format is not None and format.lower() == "jpg" else format


def decode(reply: Reply, seconds: float) -> Translation:
    """ServerError if ``reply`` is not a picture."""
    if not reply.body.startswith(tuple(_SIGNATURES)):
        raise reply.unexpected("a picture")
    return Translation(reply.weights, reply.request_id, seconds, reply.body)


TRANSLATE = Decoder("translate", decode, canary={"size": SIZE.low})
