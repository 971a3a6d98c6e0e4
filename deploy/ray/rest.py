"""An HTTP request becomes a call, and a reply an HTTP answer, as the contract says."""

from __future__ import annotations

import asyncio
import posixpath
import re
import uuid
from collections.abc import Mapping
from io import BytesIO

from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from deploy.ray.messages import Call, Reply
from serving import refusals
from serving.refusals import Refused

_ID = re.compile(r"(?!-$)[\w.-]{1,128}", re.ASCII)
_ESCAPED_SLASH = re.compile(b"%2f|%5c", re.IGNORECASE)
# As in handlers/request.py; checked here too, because the parser takes 40 us for each field.
MOST_FIELDS = 100
# A form of 20 MB takes 0.1 s, so larger ones are parsed in a thread.
_LARGE_BYTES = 2**20
_IN_MEMORY = float("inf")


def request_id(headers: Mapping[str, str]) -> str:
    """The client's own id if it is safe to log, else a new one."""
    chosen = headers.get("x-request-id", "")
    return chosen if _ID.fullmatch(chosen) else str(uuid.uuid4())


def path_of(request: Request) -> str:
    """The path without ``//`` and ``..``. Raises Refused if it has an escaped slash."""
    if _ESCAPED_SLASH.search(request.scope.get("raw_path", b"")):
        raise Refused(400, "BadRequest", "the path has an escaped slash")
    path = re.sub("/+", "/", request.scope["path"])
    return posixpath.normpath(path) + "/" * (len(path) > 1 and path.endswith("/"))


def size_of(headers: Mapping[str, str], most_bytes: int) -> int:
    """The most bytes that the body can have; a chunked one can have as many as are allowed."""
    length = headers.get("content-length", "")
    return min(int(length), most_bytes) if length.isdecimal() else most_bytes


async def read_call(request: Request, id: str, most_bytes: int) -> Call:
    """The call of a prediction. Raises Refused if its body is too large or an invalid form."""
    headers = {**dict(request.headers), "x-request-id": id}
    body = await _body(request, most_bytes)
    kind, parameters = parse_options_header(headers.get("content-type"))
    if kind == b"application/x-www-form-urlencoded":
        # `curl --data-binary` sends this type by default.
        headers["content-type"] = "application/octet-stream"
    if kind != b"multipart/form-data":
        return Call(headers, body, {}, id)
    boundary = parameters.get(b"boundary", b"")
    if len(body) > _LARGE_BYTES:
        return Call(headers, None, await asyncio.to_thread(_form, body, boundary), id)
    return Call(headers, None, _form(body, boundary), id)


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """The seconds that the client waits, or None. Raises Refused if the header is invalid."""
    text = headers.get("x-timeout-ms")
    return refusals.timeout_of(text) if text else None


def response(reply: Reply) -> Response:
    """The HTTP answer. Ray adds ``x-request-id``."""
    headers = {
        "x-model-weights": reply.weights,
        "x-model-version": reply.version,
        "x-error-type": reply.error,
        "retry-after": str(reply.retry_after or ""),
        "www-authenticate": "Bearer" if reply.code == 401 else "",
    }
    kept = {name: value for name, value in headers.items() if value}
    return Response(reply.body, reply.code, kept, reply.content_type)


async def _body(request: Request, most_bytes: int) -> bytes:
    too_large = Refused(413, "TooLarge", f"the request has more than {most_bytes} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise too_large
    body = BytesIO()
    async for chunk in request.stream():
        if body.tell() + len(chunk) > most_bytes:
            raise too_large
        body.write(chunk)
    return body.getvalue()


def _form(body: bytes, boundary: bytes) -> dict[str, bytes]:
    """The values of a form by name; the last one of a repeated name."""
    fields: dict[str, bytes] = {}
    parts = 0
    ends: list[bool] = []

    def add(name: bytes | None, value: bytes) -> None:
        nonlocal parts
        parts += 1
        if parts > MOST_FIELDS:
            raise Refused(
                400,
                "BadRequest",
                f"more than {MOST_FIELDS} fields: a request has data and options",
            )
        fields[(name or b"").decode(errors="replace")] = value

    def on_field(field: Field) -> None:
        add(field.field_name, field.value or b"")

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        add(file.field_name, file.file_object.read())

    try:
        parser = FormParser(
            "multipart/form-data", on_field, on_file, lambda: ends.append(True), boundary or None,
            config={"MAX_MEMORY_FILE_SIZE": _IN_MEMORY},
        )  # fmt: skip
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, "BadRequest", f"the form cannot be parsed: {error}") from error
    if not ends:
        raise Refused(400, "BadRequest", "the form has no end: its last boundary is missing")
    return fields
