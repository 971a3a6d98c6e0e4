"""What one request may cost: the limits, their defaults, and how a YAML changes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Each is checked before the work it bounds, and named by the 413 of what exceeds it.

    ``request_bytes``     encoded picture, after base64
    ``pixels``            width x height of the picture, or of its animation's canvas, by its header
    ``webp_pixels``       the same of a WebP, whose decoder takes 16 bytes a pixel
    ``jpeg_scans``        a progressive JPEG is worked over once per scan; most have 10 (CMYK: 18)
    ``jpeg_scan_pixels``  scans x pixels: 20 scans of the largest picture, 100 of 10 million pixels
    ``network_pixels``    the network's input, after resizing and cropping
    ``decode_seconds``    CPU time that a decode process may spend on one picture
    ``decode_bytes``      memory of a decode process: its private data, not the code it shares
    """

    request_bytes: int = 16 * 2**20
    pixels: int = 50_000_000
    webp_pixels: int = 25_000_000
    jpeg_scans: int = 100
    jpeg_scan_pixels: int = 1_000_000_000
    network_pixels: int = 2_000_000
    # 4.5 times what the slowest sound picture of 50 million pixels takes (2.2 s of an AMD EPYC's
    # core: python -m benchmarks.slowest), for processors that are slower or shared.
    decode_seconds: float = 10.0
    decode_bytes: int = 512 * 2**20

    @classmethod
    def from_map(cls, section: object) -> Limits:
        """The limits that a map of names to numbers gives; what it does not name has its default.

        Raises ValueError that says what is wrong with it.
        """
        if not isinstance(section, Mapping):
            raise ValueError("limits must be a map of names to numbers")
        names = [field.name for field in dataclasses.fields(cls)]
        for name, value in section.items():
            if name not in names:
                raise ValueError(f"no limit is called {name}: there are {', '.join(names)}")
            number = (int, float) if name == "decode_seconds" else int
            # bool is an int to Python.
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

# A larger ICC profile is ignored. Those with tables for print have some megabytes.
PROFILE_BYTES = 4 * 2**20

# A decode process holds 30 MB before its first picture.
_LEAST_DECODE_BYTES = 64 * 2**20
