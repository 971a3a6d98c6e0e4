"""A row of TorchServe's batch and its headers -> one request: picture bytes and options.

The picture comes as the raw body (any content type), as the field ``data`` of a multipart form or
of a gRPC ``input`` map, or as JSON ``{"data": "<base64>"}``. An option comes as a field or key
beside ``data``, or as the header ``x-<option>``; a field wins over a header. Unknown fields, keys
and headers are ignored, as HTTP does with headers it does not know.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.errors import BadRequest, EmptyBody, InvalidOption, NotAcceptable

# A JSON document and no picture format of ours begins so.
_JSON_START = re.compile(rb"\s*[\[{\"]")
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,")


@dataclass(frozen=True)
class Request:
    """One client's request, before its picture is looked at."""

    picture: bytes
    options: Mapping[str, object]
    accept: str

    def integer(self, name: str, *, default: int, low: int, high: int, multiple: int = 1) -> int:
        """The whole number called ``name``; InvalidOption where it is no such number."""
        value = self.options.get(name, default)
        if isinstance(value, str):
            # Seven characters hold every number any option allows; int() of a megabyte does not.
            value = int(value) if re.fullmatch(r"\s*[+-]?[0-9]{1,7}\s*", value) else None
        step = f" in multiples of {multiple}" if multiple > 1 else ""
        # bool is an int to Python: {"top_k": true} is a mistake, not a 1.
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidOption(f"{name} must be a whole number from {low} to {high}{step}")
        if not low <= value <= high or value % multiple:
            raise InvalidOption(f"{name} must be from {low} to {high}{step}, not {value}")
        return value

    def media_type(self, offered: Mapping[str, str]) -> str:
        """The key of ``offered`` (``{"png": "image/png", ...}``, preferred first) to answer with.

        The option ``format`` decides; without it the ``Accept`` header, by q-value (RFC 9110,
        12.5.1). InvalidOption or NotAcceptable where neither can be met.
        """
        wanted = self.options.get("format")
        if wanted is not None:
            key = wanted.strip().lower() if isinstance(wanted, str) else ""
            if key not in offered:
                raise InvalidOption(f"format must be one of {', '.join(offered)}")
            return key
        quality = {key: _quality(self.accept, media) for key, media in offered.items()}
        best = max(quality, key=lambda key: quality[key])
        if quality[best] == 0:
            raise NotAcceptable(f"can answer with {', '.join(offered.values())} only")
        return best


def parse(row: Mapping[str, Any], headers: Mapping[str, object]) -> Request:
    """One row of the batch, as TorchServe hands it over -> Request.

    Raises BadRequest for broken JSON or base64, EmptyBody where no picture is in it.
    """
    known = header_values(headers)
    options: dict[str, object] = {
        name[2:].replace("-", "_"): value for name, value in known.items() if name.startswith("x-")
    }
    fields: Mapping[str, Any] = row
    # TorchServe parses a body of type application/json itself, and hands over what it was.
    body = row.get("body")
    if isinstance(body, str):
        body = body.encode()  # ... and decodes one of type text/*
    if isinstance(body, (bytes, bytearray)) and _JSON_START.match(body):
        body = _parse_json(body)
    if isinstance(body, Mapping):
        fields = body
        picture = _from_base64(body.get("data"))
    elif body is not None and not isinstance(body, (bytes, bytearray)):
        raise BadRequest('a JSON body must be an object: {"data": "<base64 of the picture>"}')
    else:
        picture = _as_bytes(row.get("data") if body is None else body)
    if not picture:
        raise EmptyBody("no picture: send it as the body, as the form field data or as JSON")
    for name in fields.keys() - {"data", "body"}:
        options[name] = _as_text(fields[name])
    return Request(picture, options, known.get("accept", ""))


def header_values(headers: Mapping[str, object]) -> dict[str, str]:
    """Header values by lower-case name.

    TorchServe mixes one dict per form field into the same mapping; those are not headers.
    """
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def is_grpc(headers: Mapping[str, object]) -> bool:
    """Whether the caller came over gRPC: HTTP/1.1 demands Host, TorchServe's gRPC passes none."""
    return "host" not in header_values(headers)


def _parse_json(body: bytes | bytearray) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not valid JSON") from error


def _from_base64(value: object) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, str):
        raise BadRequest('"data" must be a string: the base64 of the picture')
    text = _DATA_URI.sub("", value, count=1) if value.startswith("data:") else value
    text = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest('"data" is not valid base64') from error


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()  # a form field of type text/*
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def _as_text(value: object) -> object:
    """Form fields and gRPC inputs arrive as bytes; JSON values keep their type."""
    return (
        bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    )


def _quality(accept: str, media: str) -> float:
    """How much ``accept`` wants ``media``, from 0 to 1; the most specific range that fits wins."""
    if not accept.strip():
        return 1.0
    ranges = {"*/*": 0, media.split("/")[0] + "/*": 1, media: 2}
    fits: list[tuple[int, float]] = []
    for part in accept.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        if name in ranges:
            fits.append((ranges[name], _q_value(parameters)))
    return max(fits, default=(0, 0.0))[1]


def _q_value(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        match = re.fullmatch(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)", parameter)
        if match:
            return min(float(match[1]), 1.0)
    return 1.0
