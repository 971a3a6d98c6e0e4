"""Fuzz target: any bytes decode to a picture within the limits or raise a client error (4xx).

The limits are those of production; ``python -m tools.fuzz.decode --seconds 60``.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator

from handlers.errors import RequestError
from handlers.metadata import Spec
from handlers.pictures.decode import decode, own_process
from handlers.pictures.limits import LIMITS
from handlers.pictures.resample import resample

PNG = b"\x89PNG\r\n\x1a\n"
# One network of a fixed input size and one of any; the registry would import PyTorch.
_ZERO, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
NETWORKS = (
    Spec("cropped", "classify", "", "classes", 256, 224, 1, _ZERO, _ONE),
    Spec("whole", "translate", "", "picture", 256, None, 4, _ZERO, _ONE),
)
RESIZE = min(spec.resize for spec in NETWORKS)

prepare = own_process


def seeds() -> Iterator[bytes]:
    from tests.corpus import cases  # here, to keep NumPy out of the fuzzing process

    yield from (case.data for case in cases())


def check(data: bytes) -> None:
    try:
        image = decode(data, LIMITS, resize=RESIZE)  # as the decode processes do
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= LIMITS.pixels
        for spec in NETWORKS:
            size = resample(spec, image).size
            if spec.crop:
                assert size == (spec.crop, spec.crop)
            else:
                assert min(size) == spec.resize
    except RequestError as error:
        if error.code >= 500:
            raise


def with_valid_checksums(data: bytes) -> bytes:
    """``data`` with the checksums of its chunks corrected if it is a PNG, else unchanged."""
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
    from tools.fuzz import harness

    sys.exit(harness.main({"tools.fuzz.decode": 1}))
