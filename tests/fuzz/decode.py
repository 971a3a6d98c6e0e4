"""Any bytes give a picture within the limits, or an error that is the sender's.

The limits are the real ones; ``python -m tests.fuzz.decode --seconds 60``.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator

from handlers.errors import RequestError
from handlers.pictures.decode import decode, own_process
from handlers.pictures.limits import LIMITS
from handlers.pictures.resample import resample
from handlers.specs import CYCLEGAN, RESNET101

PNG = b"\x89PNG\r\n\x1a\n"

prepare = own_process


def seeds() -> Iterator[bytes]:
    from tests.corpus import cases  # the fuzzing process needs no NumPy

    yield from (case.data for case in cases())


def check(data: bytes) -> None:
    try:
        image = decode(data, LIMITS, resize=RESNET101.resize)  # as the decode processes do
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= LIMITS.pixels
        assert resample(RESNET101, image).size == (224, 224)
        assert min(resample(CYCLEGAN, image).size) == 256
    except RequestError as error:
        if error.code >= 500:
            raise


def mended(data: bytes) -> bytes:
    """A PNG with its chunks' checksums put right; what is no PNG as it is."""
    if not data.startswith(PNG):
        return data
    out, at = bytearray(data), len(PNG)
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


if __name__ == "__main__":
    from tests.fuzz import harness

    sys.exit(harness.main({"tests.fuzz.decode": 1}))
