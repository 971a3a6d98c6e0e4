"""What the server answers, in Python's terms."""

from __future__ import annotations

import io
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vision_client.errors import MALFORMED, ServerError

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Reply:
    """A good answer as it came; over gRPC, which has no headers, the last two are None."""

    body: bytes
    weights: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One class: its number from 0, its name, its softmax probability from 0 to 1."""

    class_id: int
    label: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What every answer carries.

    ``weights`` names the network's weights; ``untrained`` means that the answer means nothing.
    ``request_id`` is the server's, for its log. Both are None over gRPC. ``seconds`` is how long
    the call took, pauses between tries included.
    """

    weights: str | None
    request_id: str | None
    seconds: float

    @property
    def untrained(self) -> bool:
        return self.weights == UNTRAINED


@dataclass(frozen=True)
class Classification(Answer):
    """The most probable classes, best first."""

    predictions: tuple[Prediction, ...]

    @property
    def best(self) -> Prediction:
        return self.predictions[0]


@dataclass(frozen=True)
class Translation(Answer):
    """A translated picture: ``data`` is a PNG, JPEG or WebP file, RGB."""

    data: bytes = field(repr=False)

    def image(self) -> Image.Image:
        """Decoded, as a PIL image."""
        image = Image.open(io.BytesIO(self.data))
        image.load()
        return image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``data`` to ``path``, whole or not at all. OSError where that fails."""
        write_whole(Path(path), self.data)


def write_whole(path: Path, data: bytes) -> None:
    """``data`` as the file ``path``: never a half-written one, whatever ends this process."""
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            file.write(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def classification(reply: Reply, seconds: float) -> Classification:
    """ServerError where ``reply`` is not a list of predictions: another server answers there."""
    try:
        found = json.loads(reply.body)["predictions"]
        predictions = tuple(
            Prediction(int(p["class_id"]), str(p["label"]), float(p["probability"])) for p in found
        )
    except MALFORMED as error:
        raise _unexpected(reply, "predictions") from error
    if not predictions or not all(0 <= p.probability <= 1 for p in predictions):
        raise _unexpected(reply, "predictions")
    return Classification(reply.weights, reply.request_id, seconds, predictions)


def translation(reply: Reply, seconds: float) -> Translation:
    """ServerError where ``reply`` is no picture."""
    if not reply.body.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF")):
        raise _unexpected(reply, "a picture")
    return Translation(reply.weights, reply.request_id, seconds, reply.body)


def _unexpected(reply: Reply, wanted: str) -> ServerError:
    start = reply.body[:60].decode(errors="replace")
    return ServerError(502, "UnexpectedAnswer", f"not {wanted} but {start!r}", reply.request_id)
