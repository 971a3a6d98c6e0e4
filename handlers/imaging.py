"""Bytes -> upright RGB image, within limits; image -> bytes.

The decoder is chosen by the first bytes and from an allow-list, never by a name or a content type,
so that nothing a stranger uploads reaches a decoder we did not mean to offer (EPS would start
Ghostscript).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache

from PIL import Image, ImageCms

from handlers.errors import BadImage, EmptyBody, TooLarge, UnsupportedFormat


@dataclass(frozen=True)
class Limits:
    """What one request may cost, each checked before the work it bounds."""

    request_bytes: int = 16 * 2**20
    pixels: int = 50_000_000
    jpeg_scans: int = 100
    network_pixels: int = 2_000_000


LIMITS = Limits()

# (offset, first bytes, Pillow's name). JPEG covers MPO: naming MPO here makes Pillow fail.
_ALLOWED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
)

# Formats people do send and we do not take, for a message that helps.
_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
)

# ISO 14496-12: a file of the family names its formats in its first box, the major one first.
_BRANDS = {
    "AVIF": {b"avif", b"avis"},
    "HEIC": {
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"hevm",
        b"hevs",
        b"mif1",
        b"msf1",
    },
}
_HEIC_FIX = "; export it as JPEG (on iPhones: Settings, Camera, Formats, Most Compatible)"

SUPPORTED = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"

# EXIF 2.32, tag 0x0112: what undoes each orientation. Orientation 1 needs nothing.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow raises on files that are broken, by its own tests and ours.
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    MemoryError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
)


def decode(data: bytes, limits: Limits = LIMITS) -> Image.Image:
    """An encoded picture -> its first frame, upright, mode RGB, alpha on white.

    Raises EmptyBody, TooLarge, UnsupportedFormat or BadImage; nothing else for any bytes.
    """
    if not data:
        raise EmptyBody("the picture has no bytes")
    if len(data) > limits.request_bytes:
        raise TooLarge(f"the picture has {len(data)} bytes; the limit is {limits.request_bytes}")
    name = _format_of(data)
    # 0xFF inside entropy-coded data is always followed by 0: each match is a scan or in metadata.
    if name == "JPEG" and data.count(b"\xff\xda") > limits.jpeg_scans:
        raise TooLarge(f"the JPEG has more than {limits.jpeg_scans} scans")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stranger's file may not fill our log
            with Image.open(io.BytesIO(data), formats=[name]) as image:
                width, height = image.size
                if width * height > limits.pixels:
                    raise _too_many_pixels(width, height, limits)
                image.load()
                return _upright(image, _to_rgb(image))
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the picture has more than {limits.pixels} pixels") from error
    except _DECODE_ERRORS as error:
        raise BadImage(f"the {name} cannot be decoded: it is damaged or cut short") from error


def encode(image: Image.Image, format: str, quality: int) -> bytes:
    """``image`` as PNG, JPEG or WebP bytes; ``quality`` (1 to 95) is heeded by the last two."""
    buffer = io.BytesIO()
    if format == "PNG":
        image.save(buffer, format)
    else:
        image.save(buffer, format, quality=quality)
    return buffer.getvalue()


def _format_of(data: bytes) -> str:
    for offset, magic, name in _ALLOWED:
        if data.startswith(magic, offset) and (name != "WEBP" or data.startswith(b"RIFF")):
            return name
    brands = _brands(data)
    if brands & _BRANDS["AVIF"]:
        return "AVIF"
    if brands & _BRANDS["HEIC"]:
        raise UnsupportedFormat(f"HEIC is not supported: send {SUPPORTED}{_HEIC_FIX}")
    for offset, magic, name in _REFUSED:
        if data.startswith(magic, offset):
            raise UnsupportedFormat(f"{name} is not supported: send {SUPPORTED}")
    raise BadImage(f"the bytes are no picture: send {SUPPORTED}")


def _brands(data: bytes) -> set[bytes]:
    """The brands that an ISO media file claims; none for other bytes."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[i : i + 4] for i in (8, *range(16, end, 4))}


def _too_many_pixels(width: int, height: int, limits: Limits) -> TooLarge:
    return TooLarge(
        f"the picture has {width}x{height} = {width * height} pixels; the limit is {limits.pixels}"
    )


def _upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """``pixels`` turned as the EXIF data of ``image`` says; broken EXIF says nothing."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - Pillow parses EXIF in Python and fails in many ways
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    alpha = None
    if image.mode.startswith("I;16") and "transparency" in image.info:
        clear = image.info["transparency"]
        alpha = image.convert("I").point([0 if i == clear else 255 for i in range(65536)], "L")
    elif image.has_transparency_data:
        opaque = "L" if image.mode == "LA" else "RGB"  # a gray profile wants gray
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert(opaque)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    image = _to_srgb(image, profile)
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        image = white
    return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float samples -> L, scaled by their range instead of clipped.

    16-bit samples span 0 to 65535 and floats 0 to 1; what lies outside spans its own extremes.
    """
    low, high = 0.0, 65535.0
    if not image.mode.startswith("I;16"):
        extremes = image.getextrema()
        span = 1.0 if image.mode == "F" else 65535.0
        first, last = float(extremes[0]), float(extremes[1])  # type: ignore[arg-type]
        low, high = (0.0, span) if first >= 0 and last <= span else (first, last)
    scale = 255.0 / (high - low) if high > low else 0.0
    # convert() truncates: half a step makes it round.
    return image.convert("F").point(lambda v: v * scale + (0.5 - low * scale)).convert("L")


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Any 8-bit mode -> RGB in sRGB, through the embedded profile where there is a sound one."""
    if image.mode in ("P", "1", "PA", "RGBX", "YCbCr", "HSV"):
        image = image.convert("RGB")
    if image.mode == "LAB":
        return _through(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if isinstance(profile, bytes):
        try:
            # sRGB to sRGB is most photographs, and every pixel for nothing.
            if image.mode != "RGB" or not _is_srgb(profile):
                return _through(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile, or one for other channels, is as good as none
    return image.convert("RGB")


def _through(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
    if converted is None:  # only with inPlace=True
        raise RuntimeError("profileToProfile returned no image")
    return converted


@lru_cache(maxsize=32)
def _is_srgb(profile: bytes) -> bool:
    """By what it does to 64 colours, not by its name: "sRGB-elle-V2-g10" is linear."""
    steps = (0, 85, 170, 255)
    colours = bytes(c for r in steps for g in steps for b in steps for c in (r, g, b))
    probe = Image.frombytes("RGB", (64, 1), colours)
    found = _through(probe, ImageCms.ImageCmsProfile(io.BytesIO(profile))).tobytes()
    return all(abs(a - b) <= 1 for a, b in zip(found, colours, strict=True))


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
