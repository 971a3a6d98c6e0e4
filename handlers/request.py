"""Parses one request: its picture, its options and the media type of its answer.

The picture is the raw body (with any content type), the field ``data`` of a multipart form or of a
gRPC ``input`` map, or JSON ``{"data": "<base64>"}``. An option is a field or key beside ``data``,
or the header ``x-<option>``; fields take precedence over headers. Unknown fields, keys and headers
are ignored, unless their name is an option's with a typing mistake. A second picture and repeated
names are refused.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from handlers.errors import BadRequest, EmptyBody, InvalidOption, NotAcceptable, TooLarge
from handlers.formats import MAGIC_BYTES, is_picture
from handlers.pictures.limits import LIMITS, Limits

# JSON starts like this; no supported image does.
_JSON_START = re.compile(rb"\s*[\[{\"]")
# A request needs a few values. Parsed, each takes up to a hundred times its bytes of memory.
_MAX_JSON_VALUES = 100
# Fields of a form, entries of a gRPC map or keys of a JSON object.
_MAX_FIELDS = 100
_DATA_URI = re.compile(rb"data:[^,]{0,200};base64,")
# The prefix of a data: URI must end within this many bytes.
_DATA_URI_BYTES = 256
_ID = re.compile(r"(?!-$)[\w.-]{1,128}", re.ASCII)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n\f\v"
# ASCII only: int() also accepts other scripts' digits and white space.
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,7}\s*", re.ASCII)
# Names of fields that an error repeats, and how many.
_NAME = re.compile(r"[\w.-]{1,40}", re.ASCII)
_MOST_NAMES = 5
# Common names of formats and media types.
_SAME_FORMAT = {"jpg": "jpeg"}
_SAME_MEDIA = {"image/jpg": "image/jpeg"}
# Letters of a name in which a wrong letter makes another name.
_SHORT = 4
# The bytes that a multipart form adds to each value: boundary, name, file name, content type.
_PART_BYTES = 1024


@dataclass(frozen=True)
class Integer:
    """A whole-number option: its default and its range, in multiples of ``multiple``."""

    default: int
    low: int
    high: int
    multiple: int = 1


@dataclass(frozen=True)
class Switch(Integer):
    """An option that is off or on: 0 or 1, which may be written ``false`` or ``true``."""

    default: int = 0
    low: int = 0
    high: int = 1


@dataclass(frozen=True)
class Offer:
    """What a task offers: media types by the value of ``format``, preferred first; and options."""

    formats: Mapping[str, str]
    integers: Mapping[str, Integer]


@dataclass(frozen=True)
class Message:
    """A request as the transport received it, unchecked.

    ``headers`` has lower-case names. ``fields`` are form fields or entries of a gRPC map. ``body``
    is the raw body or None: bytes, or text or JSON that the transport has already decoded.
    ``given_id`` is the transport's own name of the request.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    fields: Mapping[str, object] = field(default_factory=dict)
    given_id: str = "-"

    @property
    def id(self) -> str:
        """The header ``x-request-id``, for logs; ``given_id`` if it is missing or unsafe to log."""
        chosen = self.headers.get("x-request-id", "")
        return chosen if _ID.fullmatch(chosen) else self.given_id


@dataclass(frozen=True)
class Upload:
    """A picture's bytes, and its unchecked options: text or JSON values."""

    picture: bytes
    options: Mapping[str, object]
    accept: str

    def integer(self, name: str, offered: Integer) -> int:
        """The value of the option ``name``. Raises InvalidOption unless ``offered`` allows it."""
        low, high, multiple = offered.low, offered.high, offered.multiple
        value = self.options.get(name, offered.default)
        if isinstance(offered, Switch):
            return _switched(name, value)
        if isinstance(value, str):
            # Seven digits are enough for every option; int() of a megabyte of digits is slow.
            value = int(value) if _INTEGER.fullmatch(value) else None
        elif isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one type of number: 3.0 is 3
        step = f" in multiples of {multiple}" if multiple > 1 else ""
        # bool is a subclass of int: {"top_k": true} is a mistake, not a 1.
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidOption(f"{name} must be a whole number from {low} to {high}{step}")
        if not low <= value <= high or value % multiple:
            actual = f", not {value}" if abs(value) < 10**7 else ""
            raise InvalidOption(f"{name} must be from {low} to {high}{step}{actual}")
        return value

    def format(self, offered: Mapping[str, str]) -> str:
        """The format of the answer, a key of ``offered``: ``{"png": "image/png", ...}``.

        The option ``format`` decides; without it, the q-values of the ``Accept`` header (RFC 9110,
        12.5.1), and between equal ones the order of ``offered``. Raises InvalidOption for an
        unknown ``format``, NotAcceptable if ``Accept`` allows none of ``offered``.
        """
        requested = self.options.get("format")
        if requested is not None:
            key = requested.strip().lower() if isinstance(requested, str) else ""
            key = _SAME_FORMAT.get(key, key)
            if key not in offered:
                raise InvalidOption(f"format must be one of {', '.join(offered)}")
            return key
        quality = {key: _quality(self.accept, media) for key, media in offered.items()}
        best = max(quality, key=lambda key: quality[key])
        if quality[best] == 0:
            raise NotAcceptable(f"can answer with {', '.join(offered.values())} only")
        return best


@dataclass(frozen=True)
class Request:
    """A valid request. ``format`` is a key of ``Offer.formats``; ``options`` include defaults."""

    picture: bytes
    format: str
    options: Mapping[str, int]


@dataclass(frozen=True)
class Answer:
    """The answer to one request; ``code`` is the HTTP status."""

    body: bytes
    content_type: str
    code: int = 200


def parse(message: Message, offer: Offer, limits: Limits = LIMITS) -> Request:
    """Read ``message`` and check its options. Raises a RequestError if it is invalid."""
    upload = read(message, limits)
    _refuse_misspelt(message.headers, upload.options, offer)
    name = upload.format(offer.formats)
    integers = {key: upload.integer(key, offered) for key, offered in offer.integers.items()}
    return Request(upload.picture, name, integers)


def read(message: Message, limits: Limits = LIMITS) -> Upload:
    """Find the picture and the options in ``message``.

    Raises BadRequest for broken JSON or base64, for several pictures and for more than 100 fields;
    EmptyBody if there is no picture; TooLarge if it has more than ``limits.request_bytes``.
    """
    headers, body, fields = message.headers, message.body, message.fields
    _refuse_many(fields)
    options: dict[str, object] = {
        _option(name): value for name, value in headers.items() if name.startswith("x-")
    }
    # A transport may have decoded a body of type text/* ...
    if isinstance(body, str):
        body = body.encode()
    # ... or parsed one of type application/json.
    if isinstance(body, (bytes, bytearray)) and _is_json(body, headers):
        body = _parse_json(body)
    if isinstance(body, Mapping):
        _refuse_many(body)
        fields = body
        picture = _from_base64(body.get("data"), limits)
    elif body is not None and not isinstance(body, (bytes, bytearray)):
        raise BadRequest('a JSON body must be an object: {"data": "<base64 of the picture>"}')
    else:
        _refuse_lost_parts(message)
        picture = _as_bytes(fields.get("data") if body is None else body)
    if not picture:
        raise EmptyBody(_no_picture(headers, fields))
    if len(picture) > limits.request_bytes:
        raise _too_many_bytes(limits)
    for name in fields.keys() - {"data", "body"}:
        value = fields[name]
        if _is_picture(value):
            raise BadRequest("several pictures: send each in a request of its own")
        options[name] = _as_text(value)
    return Upload(picture, options, headers.get("accept", ""))


def _is_json(body: bytes | bytearray, headers: Mapping[str, str]) -> bool:
    """Whether ``body`` starts like JSON, or has its content type and is not a picture.

    Clients mislabel pictures.
    """
    announced = headers.get("content-type", "").lower().startswith("application/json")
    return bool(_JSON_START.match(body)) or (announced and bool(body) and not _is_picture(body))


def _is_picture(value: object) -> bool:
    """Whether a body or a field is a picture; in JSON, pictures are base64."""
    if isinstance(value, str):
        start = value[: _DATA_URI_BYTES + 64].encode(errors="replace")
        start = _without_data_uri(start)[:64]
        with contextlib.suppress(binascii.Error):
            return is_picture(base64.b64decode(start, altchars=b"-_", validate=True))
        return False
    # Copy only the beginning: this runs for every request.
    return isinstance(value, (bytes, bytearray)) and is_picture(bytes(value[:MAGIC_BYTES]))


def _refuse_many(fields: Mapping[str, object]) -> None:
    """Raise BadRequest for more than 100 fields, before any of them is processed."""
    if len(fields) > _MAX_FIELDS:
        raise BadRequest(f"more than {_MAX_FIELDS} fields: a request has data and options")


def _no_picture(headers: Mapping[str, str], fields: Mapping[str, object]) -> str:
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        # curl --data-binary sends this content type by default.
        return (
            "no picture: the content type announces a web form; send the picture as the body with "
            "its own, such as image/jpeg"
        )
    if fields and "data" not in fields:
        pictures = [name for name, value in fields.items() if _is_picture(value)]
        if pictures:
            return f"the picture is in the field {_listed(pictures)}: send it in the field data"
        return f"no picture: the field data is missing, there is only {_listed([*fields])}"
    return "no picture: send it as the body, as the form field data or as JSON"


def _listed(names: Sequence[str]) -> str:
    """At most five names of fields, without their odd characters."""
    shown = [name if _NAME.fullmatch(name) else "(an odd name)" for name in names[:_MOST_NAMES]]
    return ", ".join([*shown, *(["..."] if len(names) > _MOST_NAMES else [])])


def _refuse_misspelt(
    headers: Mapping[str, str], options: Mapping[str, object], offer: Offer
) -> None:
    """Raise InvalidOption for a name that is meant to be an option of ``offer``.

    Other unknown names are ignored, because proxies send headers of their own.
    """
    known = {_letters(option): option for option in (*offer.integers, "format")}
    sent = {_option(name): name for name in headers if name.startswith("x-")}
    for name, value in options.items():
        meant = known.get(_letters(name)) or _with_a_typo(name, value, known, offer)
        if meant and meant != name:
            right = _header(meant) if name in sent else meant
            wrong = _listed([sent.get(name, name)])
            raise InvalidOption(f"there is no option {wrong}: use {right}")
    for name in headers:
        meant = known.get(_letters(name))
        if meant and not name.startswith("x-"):
            raise InvalidOption(f"there is no option {_listed([name])}: use {_header(meant)}")


def _with_a_typo(name: str, value: object, known: Mapping[str, str], offer: Offer) -> str | None:
    """The option that ``name`` misses by one letter, if it could have ``value``.

    ``x-site: shop`` of a proxy is not meant to be a size, and ``x-formal: yes`` is no format.
    """
    letters = _letters(name)
    for right, option in known.items():
        if _differs_by_one(letters, right) and _could_be(value, option, offer):
            return option
    return None


def _could_be(value: object, option: str, offer: Offer) -> bool:
    """Whether ``value`` has the type of ``option``."""
    text = str(value)[:64].strip().lower()
    if option not in offer.integers:
        return text in offer.formats or text in _SAME_FORMAT
    if isinstance(offer.integers[option], Switch) and text in ("true", "false"):
        return True
    return _INTEGER.fullmatch(text) is not None


def _differs_by_one(word: str, right: str) -> bool:
    """Whether one letter of ``word`` is missing, too many, or swapped with the next, or wrong.

    A word of four letters with a wrong one is another word: site and side are not size.
    """
    pairs = enumerate(zip(word, right, strict=False))
    start = next((i for i, (ours, theirs) in pairs if ours != theirs), min(len(word), len(right)))
    rest, wanted = word[start:], right[start:]
    swapped = wanted[:2][::-1] + wanted[2:]
    if len(right) > _SHORT and rest[1:] == wanted[1:]:
        return True
    return rest == wanted[1:] or rest[1:] == wanted or rest == swapped


def _letters(name: str) -> str:
    """``X-Top-K`` and ``top_k`` -> ``topk``."""
    return re.sub("^x[-_]|[-_]", "", name.lower())


def _option(header: str) -> str:
    """``x-top-k`` -> ``top_k``."""
    return header[2:].replace("-", "_")


def _header(option: str) -> str:
    """``top_k`` -> ``x-top-k``."""
    return f"x-{option.replace('_', '-')}"


def _refuse_lost_parts(message: Message) -> None:
    """Raise BadRequest if a form repeats a name; TorchServe keeps only the last field of each name.

    The content length shows that fields are missing if they had more than about 1 KB.
    """
    length = message.headers.get("content-length", "")
    content_type = message.headers.get("content-type", "")
    if not content_type.startswith("multipart/") or not length.isdecimal():
        return
    kept = sum(
        len(name) + len(_as_bytes(value)) + _PART_BYTES for name, value in message.fields.items()
    )
    if int(length) > kept + _PART_BYTES:
        raise BadRequest("a form field is given more than once: send one picture, as data")


def _parse_json(body: bytes | bytearray) -> object:
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_JSON_VALUES:
        raise BadRequest(
            f"the JSON has more than {_MAX_JSON_VALUES} values: it needs data and options"
        )
    try:
        return json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not valid JSON") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise BadRequest("a key of the JSON is given more than once: send one picture, as data")
    return parsed


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
    """Remove the prefix of a data: URI (RFC 2397), if there is one."""
    prefix = _DATA_URI.match(text, 0, _DATA_URI_BYTES)
    return text[prefix.end() :] if prefix else text


def _too_many_bytes(limits: Limits) -> TooLarge:
    return TooLarge(f"the picture has more than {limits.request_bytes} bytes, the limit")


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()  # a form field of type text/*
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def _as_text(value: object) -> object:
    """Form fields and gRPC entries arrive as bytes; JSON values keep their type."""
    return (
        bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    )


def _switched(name: str, value: object) -> int:
    """The value of a Switch, 0 or 1: JSON's booleans and numbers, or their text."""
    text = str(value)[:64].strip().lower() if isinstance(value, str | int | float) else ""
    for switched, spellings in enumerate((("0", "0.0", "false"), ("1", "1.0", "true"))):
        if text in spellings:
            return switched
    raise InvalidOption(f"{name} must be true or false")


def _quality(accept: str, media: str) -> float:
    """The q-value of ``media`` in ``accept``, 0 to 1; the most specific matching range applies."""
    if not accept.strip():
        return 1.0
    ranges = {"*/*": 0, media.split("/")[0] + "/*": 1, media: 2}
    matches: list[tuple[int, float]] = []
    for part in accept.lower().split(","):
        name, *parameters = (text.strip() for text in part.split(";"))
        name = _SAME_MEDIA.get(name, name)
        if name in ranges:
            matches.append((ranges[name], _q_value(parameters)))
    return max(matches, default=(0, 0.0))[1]


def _q_value(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        match = re.fullmatch(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)", parameter)
        if match:
            return min(float(match[1]), 1.0)
    return 1.0
