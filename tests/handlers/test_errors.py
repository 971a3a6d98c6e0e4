from __future__ import annotations

import json

import pytest

from handlers import errors
from handlers.errors import RequestError
from handlers.pictures import process
from handlers.pictures.limits import LIMITS
from tests.specs import CYCLEGAN

CODES = {
    "BadRequest": 400,
    "EmptyBody": 400,
    "BadImage": 400,
    "NotFound": 404,
    "NotAcceptable": 406,
    "TooLarge": 413,
    "UnsupportedFormat": 415,
    "InvalidOption": 422,
    "InternalError": 500,
    "Overloaded": 503,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_the_body_has_code_type_and_message(name: str, code: int) -> None:
    error: RequestError = getattr(errors, name)("schön\r\n\x00")
    assert json.loads(error.to_json()) == {"code": code, "type": name, "message": "schön\r\n\x00"}


def test_every_error_is_listed_here() -> None:
    assert {kind.__name__ for kind in RequestError.__subclasses__()} == set(CODES)


def test_the_log_of_a_bug_in_a_decoder_does_not_quote_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(picture: bytes, *_: object, **__: object) -> None:
        raise RuntimeError(picture.decode())

    monkeypatch.setattr(process, "decode", fail)
    kind, _, text = process._answer(CYCLEGAN, LIMITS, bytearray(b"a picture"), 0)
    assert (kind, text.splitlines()[-1]) == (process.FAILED, b"RuntimeError")
    assert b"a picture" not in text
