"""The limits on the cost of one request, with their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """A request that exceeds a limit is answered 413, if possible before the work is done.

    ``request_bytes``     size of the encoded picture, after base64 decoding
    ``pixels``            width x height in the header, of the whole canvas for an animation
    ``webp_pixels``       the same for WebP, whose decoder takes 16 bytes per pixel
    ``jpeg_scans``        scans of a progressive JPEG; most have 10 (CMYK: 18)
    ``jpeg_scan_pixels``  scans x pixels: 20 scans of the largest picture, 100 of 10 million pixels
    ``network_pixels``    of the network's input, after resizing and cropping, and of its output
    ``decode_seconds``    CPU time of a decode process for one picture
    ``decode_bytes``      memory of a decode process: its private data, without shared code
    """

    request_bytes: int = 16 * 2**20
    pixels: int = 50_000_000
    webp_pixels: int = 25_000_000
    jpeg_scans: int = 100
    jpeg_scan_pixels: int = 1_000_000_000
    network_pixels: int = 2_000_000
    # The slowest valid picture of 50 million pixels takes 2.2 s on an AMD EPYC core
    # (docs/performance.md); 4.5 times that, for slower or shared processors.
    decode_seconds: float = 10.0
    decode_bytes: int = 512 * 2**20

    @classmethod
    def from_map(cls, section: object) -> Limits:
        """The limits in ``section``, a map of names to numbers; missing names have their defaults.

        Raises ValueError with an explanation if ``section`` is not such a map.
        """
        if not isinstance(section, Mapping):
            raise ValueError("limits must be a map of names to numbers")
        names = [field.name for field in dataclasses.fields(cls)]
        for name, value in section.items():
            if name not in names:
                raise ValueError(f"no limit is called {name}: there are {', '.join(names)}")
            number = (int, float) if name == "decode_seconds" else int
            # bool is a subclass of int.
            if isinstance(value, bool) or not isinstance(value, number) or value <= 0:
                kind = "number" if name == "decode_seconds" else "whole number"
                raise ValueError(f"the limit {name} must be a {kind} above 0, not {value!r}")
        limits = cls(**section)
        if limits.decode_bytes < _LEAST_DECODE_BYTES:
            raise ValueError(
                f"the limit decode_bytes must be at least {_LEAST_DECODE_BYTES}: "
                "the interpreter and the libraries of a decode process need as much"
            )
        return limits


LIMITS = Limits()

# Larger ICC profiles are ignored. Profiles for printing have some megabytes of tables.
PROFILE_BYTES = 4 * 2**20

# A decode process takes 30 MB before its first picture.
_LEAST_DECODE_BYTES = 64 * 2**20
