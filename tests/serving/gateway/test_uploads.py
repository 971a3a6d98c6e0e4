"""The bytes of large uploads are bounded, for each client and for all."""

from __future__ import annotations

import contextlib

import pytest

from serving.gateway.uploads import Uploads
from serving.refusals import Refused


def refusal(uploads: Uploads, client: str, size: int) -> int | None:
    """The status of the refusal, None if the upload is let in."""
    try:
        with uploads.counted(client, size):
            return None
    except Refused as error:
        return error.code if error.retry_after > 0 else -1


def test_a_client_has_half_of_the_bytes() -> None:
    uploads = Uploads(100)
    with uploads.counted("a", 30), uploads.counted("a", 20):
        assert refusal(uploads, "a", 1) == 429
        assert refusal(uploads, "b", 50) is None
        with uploads.counted("b", 40):
            assert refusal(uploads, "c", 11) == 503
            assert refusal(uploads, "c", 10) is None
    assert refusal(uploads, "a", 50) is None


def test_an_upload_that_fails_is_no_longer_counted() -> None:
    uploads = Uploads(100)
    with contextlib.suppress(ValueError), uploads.counted("a", 50):
        raise ValueError
    assert refusal(uploads, "a", 50) is None
    with pytest.raises(Refused), uploads.counted("a", 51):
        pass
