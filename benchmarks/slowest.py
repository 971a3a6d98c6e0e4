"""What decoding the slowest sound pictures costs: ``python -m benchmarks.slowest``.

For each format, a picture of as many pixels as the limits allow, with as much detail as fits into
``request_bytes``, goes through a DecodePool as a request's does. Printed are the CPU time and the
peak memory of its process; ``limits.decode_seconds``, ``decode_bytes`` and ``webp_pixels`` were
chosen by this table. Making the files takes some minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import skimage.data
from PIL import Image

from benchmarks.machine import facts, summary
from benchmarks.pictures import SIZES, photograph
from handlers.pictures.limits import LIMITS
from handlers.pictures.pool import DecodePool
from tests.specs import CYCLEGAN

SIDE = int(LIMITS.pixels**0.5)
# The largest that CycleGAN allows: JPEGs are then decoded at their full size or a half.
RESIZE = 1024
# Nothing is refused here: what is measured decides what the limits are.
OPEN = dataclasses.replace(
    LIMITS, decode_seconds=600, decode_bytes=2**32, webp_pixels=LIMITS.pixels
)
WAIT_S = 600
# Of a sample, the most first: lossless files fit into a request with a few of them.
BITS = (6, 5, 4, 3, 2)

Pixels = npt.NDArray[np.uint8]


def scene() -> Image.Image:
    """A photograph, enlarged to ``SIDE`` pixels square: smooth, so that lossless files fit."""
    return Image.fromarray(skimage.data.astronaut()).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def coarse(image: Image.Image, bits: int) -> Image.Image:
    """``image`` with so many bits a sample."""
    return image.point(lambda value: value & (0xFF << (8 - bits)))


def translucent(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def saved(image: Image.Image, format: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **how)
    return buffer.getvalue()


def fitting(attempts: Iterator[bytes]) -> bytes:
    """The first that a request may hold; the most detailed comes first."""
    return next(data for data in attempts if len(data) <= LIMITS.request_bytes)


def lossless(format: str, change: Callable[[Image.Image], Image.Image], **how: Any) -> bytes:
    """``scene`` in as many bits a sample as fit."""
    image = scene()
    return fitting(saved(change(coarse(image, bits)), format, **how) for bits in BITS)


def lossy(format: str, image: Image.Image, **how: Any) -> bytes:
    qualities = (95, 90, 80, 70, 60, 50, 40, 30)
    return fitting(saved(image, format, quality=quality, **how) for quality in qualities)


def png_16_bits() -> bytes:
    """16-bit RGB, each row less its left neighbours (filter 1), which Pillow does not write."""

    def attempt(bits: int) -> bytes:
        samples = np.asarray(coarse(image, bits)).astype(">u2") * 257
        rows = samples.astype(">u2").view(np.uint8).reshape(SIDE, -1)
        filtered = rows.copy()
        filtered[:, 6:] -= rows[:, :-6]
        packer = zlib.compressobj(6)
        parts = [packer.compress(b"\1" + row.tobytes()) for row in filtered]
        header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
        body = b"".join([*parts, packer.flush()])
        chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )

    image = scene()
    return fitting(attempt(bits) for bits in BITS)


def bmp_runs() -> bytes:
    """8 bits with run lengths (BI_RLE8), as few colours as make the runs fit."""

    def attempt(colours: int) -> bytes:
        indices: Pixels = np.asarray(image.quantize(colours, dither=Image.Dither.NONE))
        rows = b"".join(_runs(row) + b"\0\0" for row in indices[::-1]) + b"\0\1"
        palette = bytes(value for i in range(256) for value in (i, i, i, 0))
        start = 14 + 40 + len(palette)
        header = struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start)
        header += struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, len(rows), 0, 0, 256, 0)
        return header + palette + rows

    image = scene()
    return fitting(attempt(colours) for colours in (256, 128, 64, 32, 16, 8))


def _runs(row: Pixels) -> bytes:
    """(length, index) pairs of at most 255 pixels."""
    edges = np.flatnonzero(np.diff(row)) + 1
    edges = np.union1d(edges, np.arange(0, len(row), 255))
    lengths = np.diff(np.append(edges, len(row)))
    return np.stack([lengths.astype(np.uint8), row[edges]], 1).tobytes()


def gray_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def files() -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each picture."""
    noisy = Image.open(io.BytesIO(photograph((SIDE, SIDE))))
    ink = noisy.convert("CMYK")
    yield "JPEG", lossy("JPEG", noisy, subsampling=0)
    yield "JPEG, progressive", lossy("JPEG", noisy, progressive=True, subsampling=0)
    yield "JPEG, CMYK progressive", lossy("JPEG", ink, progressive=True)
    del ink
    yield "PNG", lossless("PNG", lambda image: image)
    yield "PNG, alpha", lossless("PNG", translucent)
    yield "PNG, 16 bits", png_16_bits()
    yield "PNG, gray 16 bits", lossless("PNG", gray_16_bits)
    # libwebp has room for 512 KiB of modes: noise of this size does not fit.
    yield "WebP", lossy("WEBP", scene(), method=2)
    yield "WebP, alpha", lossy("WEBP", translucent(scene()), method=2)
    fast = {"lossless": True, "method": 0, "quality": 0}
    yield "WebP, lossless", lossless("WEBP", lambda image: image, **fast)
    yield "WebP, lossless alpha", lossless("WEBP", translucent, **fast)
    yield "AVIF", lossy("AVIF", noisy, speed=10, subsampling="4:2:0")
    yield "AVIF, 4:4:4", lossy("AVIF", noisy, speed=10, subsampling="4:4:4")
    yield "AVIF, 4:4:4 alpha", lossy("AVIF", translucent(noisy), speed=10, subsampling="4:4:4")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma"):
        name = f"TIFF, {compression.removeprefix('tiff_')}"
        yield name, lossless("TIFF", lambda image: image, compression=compression)
    yield "TIFF, alpha", lossless("TIFF", translucent, compression="tiff_lzw")
    yield "TIFF, CMYK", lossless("TIFF", lambda i: i.convert("CMYK"), compression="tiff_lzw")
    gray = {"compression": "tiff_adobe_deflate"}
    yield "TIFF, gray 16 bits", lossless("TIFF", gray_16_bits, **gray)
    yield "TIFF, float", lossless("TIFF", lambda i: i.convert("L").convert("F"), **gray)
    yield "GIF", lossless("GIF", lambda i: i.quantize(256, Image.Quantize.FASTOCTREE))
    yield "BMP, run lengths", bmp_runs()


def measured(data: bytes) -> tuple[float, int]:
    """CPU seconds and peak memory in bytes, as ``decode_bytes`` counts it, of decoding ``data``."""
    pool = DecodePool(CYCLEGAN, OPEN, 1, resting_bytes=2**40)  # not replaced while it is measured
    try:
        pool.decode(photograph(SIZES["320x240"]), None, time.monotonic() + WAIT_S)
        process = psutil.Process().children()[-1]
        size, kept = _status(process.pid, "VmSize"), _status(process.pid, "VmData")
        begun = sum(process.cpu_times()[:2])
        pool.decode(data, RESIZE, time.monotonic() + WAIT_S)
        spent = sum(process.cpu_times()[:2]) - begun
        return spent, _status(process.pid, "VmPeak") - size + kept
    finally:
        pool.close()


def _status(pid: int, key: str) -> int:
    """A line of /proc/PID/status, in bytes."""
    found = re.search(rf"^{key}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(summary(facts("cpu")))
    print(f"pictures of {SIDE}x{SIDE} pixels, for a network's input of {RESIZE}x{RESIZE}")
    print(f"{'picture':<24} {'file MB':>8} {'CPU s':>6} {'memory MiB':>11}")
    slowest = 0.0
    for name, data in files():
        spent, peak = measured(data)
        slowest = max(slowest, spent)
        print(f"{name:<24} {len(data) / 1e6:>8.1f} {spent:>6.2f} {peak >> 20:>11}", flush=True)
    times = LIMITS.decode_seconds / slowest
    print(f"slowest: {slowest:.2f} s; decode_seconds is {times:.1f} times that")


if __name__ == "__main__":
    main()
