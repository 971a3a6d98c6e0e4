"""A row of TorchServe's batch and its headers -> one request: picture bytes and options.

The picture comes as the raw body (any content type), as the field ``data`` of a multipart form or
of a gRPC ``input`` map, or as JSON ``{"data": "<base64>"}``. An option comes as a field or key
beside ``data``, or as the header ``x-<option>``; a field wins over a header. Unknown fields, keys
and headers are ignored, as HTTP does with headers it does not know; a second picture is refused,
and so is what is given twice.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.errors import BadRequest, EmptyBody, InvalidOption, NotAcceptable, TooLarge
from handlers.pictures.formats import MAGIC_BYTES, is_picture
from handlers.pictures.limits import LIMITS, Limits

# A JSON document and no picture format of ours begins so.
_JSON_START = re.compile(rb"\s*[\[{\"]")
# A request has a handful; each value of a document costs up to a hundred times its bytes.
_JSON_VALUES = 100
# Fields of a form, entries of a gRPC map or keys of a JSON object: a request has a handful.
_FIELDS = 100
_DATA_URI = re.compile(rb"data:[^,]{0,200};base64,")
# No more of a text is searched for it.
_DATA_URI_BYTES = 256
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n\f\v"
# ASCII: int() takes no other white space around other digits.
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,7}\s*", re.ASCII)
# TorchServe adds ts_request_sequence_id and others to calls of the gRPC method StreamPredictions2.
_SEQUENCE_HEADERS = "ts_request_sequence"
# What a form has around each field's value: boundary, name, file name, type.
_PART_BYTES = 1024


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
            value = int(value) if _WHOLE.fullmatch(value) else None
        elif isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON knows one kind of number: 3.0 is 3
        step = f" in multiples of {multiple}" if multiple > 1 else ""
        # bool is an int to Python: {"top_k": true} is a mistake, not a 1.
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidOption(f"{name} must be a whole number from {low} to {high}{step}")
        if not low <= value <= high or value % multiple:
            found = f", not {value}" if abs(value) < 10**7 else ""
            raise InvalidOption(f"{name} must be from {low} to {high}{step}{found}")
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


def parse(
    row: Mapping[str, Any], headers: Mapping[str, object], limits: Limits = LIMITS
) -> Request:
    """One row of the batch, as TorchServe hands it over -> Request.

    Raises BadRequest for broken JSON or base64, for several pictures and for more than 100 fields,
    EmptyBody where there is no picture, TooLarge where it has more than ``limits.request_bytes``.
    """
    _refuse_many(row)
    known = header_values(headers)
    options: dict[str, object] = {
        name[2:].replace("-", "_"): value for name, value in known.items() if name.startswith("x-")
    }
    fields: Mapping[str, Any] = row
    body = row.get("body")
    # Unless config.properties says otherwise, TorchServe decodes what is announced as text/* ...
    if isinstance(body, str):
        body = body.encode()
    # ... and parses what is announced as application/json.
    if isinstance(body, (bytes, bytearray)) and _is_json(body, known):
        body = _parse_json(body)
    if isinstance(body, Mapping):
        _refuse_many(body)
        fields = body
        picture = _from_base64(body.get("data"), limits)
    elif body is not None and not isinstance(body, (bytes, bytearray)):
        raise BadRequest('a JSON body must be an object: {"data": "<base64 of the picture>"}')
    else:
        _refuse_lost_parts(row, known)
        picture = _as_bytes(row.get("data") if body is None else body)
    if not picture:
        raise EmptyBody(_no_picture(known))
    if len(picture) > limits.request_bytes:
        raise _too_many_bytes(limits)
    for name in fields.keys() - {"data", "body"}:
        value = fields[name]
        if _is_picture(value):
            raise BadRequest("several pictures: send each in a request of its own")
        options[name] = _as_text(value)
    return Request(picture, options, known.get("accept", ""))


def header_values(headers: Mapping[str, object]) -> dict[str, str]:
    """Header values by lower-case name.

    TorchServe mixes one dict per form field into the same mapping; those are not headers.
    """
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def is_grpc(headers: Mapping[str, object]) -> bool:
    """Whether the caller came over gRPC: TorchServe passes no header on, but its own for sequences.

    Over REST there is at least one: TorchServe adds its own to every route of ours.
    """
    return all(name.startswith(_SEQUENCE_HEADERS) for name in header_values(headers))


def is_bidirectional(headers: Mapping[str, object]) -> bool:
    """Whether the caller used the gRPC method StreamPredictions2.

    Over REST there are other headers too, so whoever sends such a header is answered as usual.
    """
    return bool(header_values(headers)) and is_grpc(headers)


def _is_json(body: bytes | bytearray, known: Mapping[str, str]) -> bool:
    """By its first character, or by its type where it is no picture: types lie."""
    announced = known.get("content-type", "").lower().startswith("application/json")
    return bool(_JSON_START.match(body)) or (announced and bool(body) and not _is_picture(body))


def _is_picture(value: object) -> bool:
    """Whether a body or a field is a picture; in JSON one is base64."""
    if isinstance(value, str):
        start = value[: _DATA_URI_BYTES + 64].encode(errors="replace")
        start = _without_data_uri(start)[:64]
        with contextlib.suppress(binascii.Error):
            return is_picture(base64.b64decode(start, altchars=b"-_", validate=True))
        return False
    # Its beginning will do; a copy of all of it is work on every request's way.
    return isinstance(value, (bytes, bytearray)) and is_picture(bytes(value[:MAGIC_BYTES]))


def _refuse_many(fields: Mapping[str, Any]) -> None:
    """BadRequest for more than 100 fields, before any of them is looked at."""
    if len(fields) > _FIELDS:
        raise BadRequest(f"more than {_FIELDS} fields: a request has data and options")


def _no_picture(known: Mapping[str, str]) -> str:
    if known.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        # What curl --data-binary announces unless told otherwise.
        return (
            "no picture: the content type announces a web form; send the picture as the body with "
            "its own, such as image/jpeg"
        )
    return "no picture: send it as the body, as the form field data or as JSON"


def _refuse_lost_parts(row: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """BadRequest where a form had more than ``row``: TorchServe keeps the last field of a name."""
    length = known.get("content-length", "")
    if not known.get("content-type", "").startswith("multipart/") or not length.isdecimal():
        return
    kept = sum(len(name) + len(_as_bytes(value)) + _PART_BYTES for name, value in row.items())
    if int(length) > kept + _PART_BYTES:
        raise BadRequest("a form field is given more than once: send one picture, as data")


def _parse_json(body: bytes | bytearray) -> object:
    if sum(map(body.count, (b",", b"[", b"{"))) > _JSON_VALUES:
        raise BadRequest(f"the JSON has more than {_JSON_VALUES} values: it needs data and options")
    try:
        return json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not valid JSON") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadRequest("a key of the JSON is given more than once: send one picture, as data")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")  # RFC 8259 has no NaN and no Infinity


def _from_base64(value: object, limits: Limits) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, str):
        raise BadRequest('"data" must be one string: the base64 of one picture')
    try:
        text = value.encode("ascii")
        text = _without_data_uri(text).translate(_URL_SAFE, _WHITE_SPACE).rstrip(b"=")
        if len(text) * 3 // 4 > limits.request_bytes:
            raise _too_many_bytes(limits)
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest('"data" is not valid base64') from error


def _without_data_uri(text: bytes) -> bytes:
    """Base64 without what a data: URI (RFC 2397) has before it."""
    found = _DATA_URI.match(text, 0, _DATA_URI_BYTES)
    return text[found.end() :] if found else text


def _too_many_bytes(limits: Limits) -> TooLarge:
    return TooLarge(f"the picture has more than {limits.request_bytes} bytes, the limit")


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
