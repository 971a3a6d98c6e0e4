"""Fuzz target: any body, headers and options parse to options in range or a client error (4xx).

An input is readable text: the kind of row, headers, a blank line, the body or fields;
``python -m tools.fuzz.request --seconds 60``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from handlers.errors import RequestError
from handlers.pictures.limits import LIMITS
from handlers.request import Integer, Message, read
from handlers.torchserve import header_values, is_grpc, message

_FIELD = b"\n--\n"  # separates the fields of a form
_PICTURES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_CLASSES = {"json": "application/json"}


def seeds() -> Iterator[bytes]:
    yield b"body\naccept: image/webp;q=0.5, image/*;q = 0.1, */*\nx-size: 64\n\n\x89PNG\r\n\x1a\n"
    yield b'body\nx-top_k: 5\n\n{"data": "data:image/png;base64,iVBO Rw0K_-==", "top_k": 3}'
    yield b'body\n\n{"data": "UA==", "size": 1e3, "quality": [true, null], "format": {"a": -0.5}}'
    yield b'parsed\nX-QUALITY: 90\n\n{"data": "UA", "format": " WebP", "size": NaN, "size": "+64"}'
    yield b'text\ncontent-type: application/x-www-form-urlencoded\n\n  [1, -Infinity, "\\ud800"]'
    yield (
        b"form\ncontent-type: multipart/form-data; boundary=x\ncontent-length: 9999\n"
        b"accept: application/json;q=1.000;level=1\n\ndata=GIF89a\n--\ntop_k= 7\n--\nsize=\xff\xfe"
    )
    yield b"form\n\nformat=jpeg\n--\ndata=P\n--\nother=\xff\xd8\xff\n--\nquality=0095"


def check(data: bytes) -> None:
    head, _, rest = data.partition(b"\n\n")
    kind, *lines = head.decode("latin-1").split("\n")
    named = (line.partition(":") for line in lines)
    headers = {name.strip(): value.strip() for name, _, value in named}
    with _client_errors():
        received = message(_row(kind, rest), header_values(headers))
        if not isinstance(received, Message):
            raise received
        request = read(received)
        assert isinstance(request.picture, bytes)
        assert 0 < len(request.picture) <= LIMITS.request_bytes
        is_grpc(header_values(headers))
        with _client_errors():
            assert 1 <= request.integer("top_k", Integer(5, 1, 1000)) <= 1000
        with _client_errors():
            size = request.integer("size", Integer(256, 64, 1024, 4))
            assert size in range(64, 1025, 4)
        with _client_errors():
            assert request.format(_PICTURES) in _PICTURES
        with _client_errors():
            assert request.format(_CLASSES) in _CLASSES


def _row(kind: str, rest: bytes) -> Mapping[str, Any]:
    """The row that TorchServe builds; it parses some bodies itself, by their content type."""
    if kind == "form":
        fields = (field.partition(b"=") for field in rest.split(_FIELD))
        return {name.decode("latin-1"): value for name, _, value in fields}
    if kind == "text":
        return {"body": rest.decode("utf-8", "replace")}
    if kind == "parsed":
        with contextlib.suppress(ValueError, RecursionError):
            return {"body": json.loads(rest)}
    return {"body": bytearray(rest)}


@contextlib.contextmanager
def _client_errors() -> Iterator[None]:
    """Accept errors that blame the request, in a short message."""
    try:
        yield
    except RequestError as error:
        if error.code >= 500 or len(error.to_json()) >= 500:
            raise


if __name__ == "__main__":
    from tools.fuzz import harness

    sys.exit(harness.main({"tools.fuzz.request": 1}))
