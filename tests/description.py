"""docs/openapi.yaml, and pictures for its requests."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from export.networks import find
from handlers.errors import RequestError

DESCRIPTION: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "docs/openapi.yaml").read_text()
)
# (code, type)
ERRORS = {(error.code, error.__name__) for error in RequestError.__subclasses__()}
OPERATIONS = [
    (path, verb)
    for path, item in DESCRIPTION["paths"].items()
    for verb in ("get", "post", "put")
    if verb in item
]
# The features of resnet101 are described, and not served by this server.
FEATURES = find("resnet101", "embed")
OPERATIONS = [one for one in OPERATIONS if not one[0].endswith(FEATURES.name)]
PREDICTIONS = [operation for operation in OPERATIONS if "predictions" in operation[0]]


def picture(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((12, 9)).convert("RGB").save(buffer, format)
    return buffer.getvalue()


PICTURES = {f"image/{name}": picture(name) for name in ("png", "jpeg", "webp", "gif", "bmp")}


def resolved(value: Any) -> Any:
    """``value`` with its ``$ref``s replaced by their targets; none is recursive."""
    if isinstance(value, Mapping):
        if "$ref" in value:
            target: Any = DESCRIPTION
            for name in value["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            return resolved(target)
        return {key: resolved(item) for key, item in value.items()}
    return [resolved(item) for item in value] if isinstance(value, list) else value
