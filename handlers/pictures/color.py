"""Any of Pillow's modes -> RGB in sRGB on white; large pictures are converted in strips."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import cache

from PIL import Image, ImageCms

from handlers.pictures.limits import PROFILE_BYTES

# Pixels per strip. Strips keep the intermediate images of a conversion small.
_STRIP_PIXELS = 2**20

# Whether a profile is sRGB, by its SHA-256. The test takes 2 ms, and most photographs use the same
# few profiles.
_is_srgb_by_digest: dict[bytes, bool] = {}
_DIGESTS = 256

# TIFF 6.0
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert ``image`` to RGB; returns ``image`` itself if it is RGB in sRGB already."""
    convert = _conversion(image)
    if convert is None:
        return image
    rows = max(_STRIP_PIXELS // image.width, 1)
    if rows >= image.height:
        return convert(image)
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(convert(strip), (0, top))
    return result


def _conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """A function that converts ``image``, or any part of it, to RGB; None if it is RGB already."""
    profile = _profile(image)
    if image.mode == "RGB" and not image.has_transparency_data and _is_redundant(profile):
        return None
    levels = _levels(image)
    to_srgb = _srgb_conversion(profile)

    def convert(part: Image.Image) -> Image.Image:
        part, alpha = _split_alpha(part)
        if levels is not None:
            part = _to_8_bits(part, *levels)
        part = to_srgb(part)
        if alpha is None:
            return part
        white = Image.new("RGB", part.size, "white")
        white.paste(part, mask=alpha)
        return white

    return convert


def _profile(image: Image.Image) -> bytes | None:
    """The ICC profile of ``image``; None if it has none or a too large one."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and len(profile) <= PROFILE_BYTES else None


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours, and the alpha channel (mode L; None if every pixel is opaque)."""
    if image.mode.startswith("I;16") and "transparency" in image.info:
        clear = image.info["transparency"]
        return image, image.convert("I").point(
            [0 if i == clear else 255 for i in range(65536)], "L"
        )
    if not image.has_transparency_data and image.mode != "La":
        return image, None
    if image.mode == "La":
        image = image.convert("LA")
    opaque = "L" if image.mode == "LA" else "RGB"  # gray profiles apply to gray pixels only
    rgba = image.convert("RGBA")
    return rgba.convert(opaque), rgba.getchannel("A")


def _levels(image: Image.Image) -> tuple[float, float] | None:
    """The sample values of black and white, for modes with more than 8 bits; None for the others.

    16-bit samples (12-bit: to 4095) and 32-bit integers span 0 to 65535, floats 0 to 1. If 32-bit
    samples lie outside, the picture's minimum and maximum apply.
    """
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    if image.mode.startswith("I;16"):
        low, high = 0.0, 2.0 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    elif image.mode in ("I", "F"):
        span = 1.0 if image.mode == "F" else 65535.0
        extremes = image.getextrema()
        low, high = float(extremes[0]), float(extremes[1])  # type: ignore[arg-type]
        if low >= 0 and high <= span:
            low, high = 0.0, span
    else:
        return None
    # Pillow inverts 8-bit samples only.
    return (high, low) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (low, high)


def _to_8_bits(image: Image.Image, low: float, high: float) -> Image.Image:
    """16-bit, 32-bit and float samples -> L: ``low`` becomes 0 and ``high`` becomes 255."""
    scale = 255.0 / (high - low) if high != low else 0.0
    # Add 0.5, because convert() truncates.
    return image.convert("F").point(lambda v: v * scale + (0.5 - low * scale)).convert("L")


def _srgb_conversion(profile: bytes | None) -> Callable[[Image.Image], Image.Image]:
    """Any 8-bit mode -> RGB in sRGB, through the embedded profile if it is valid."""

    @cache
    def transform(mode: str) -> ImageCms.ImageCmsTransform | None:
        if mode == "LAB":
            lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
            return ImageCms.buildTransform(lab, _srgb(), mode, "RGB")
        if profile is None or (mode == "RGB" and _is_redundant(profile)):
            return None
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.buildTransform(source, _srgb(), mode, "RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            return None  # ignore broken profiles and those for other channels

    def convert(image: Image.Image) -> Image.Image:
        if image.mode in ("P", "1", "PA", "RGBX", "YCbCr", "HSV"):
            image = image.convert("RGB")
        profile_transform = transform(image.mode)
        if profile_transform is not None:
            converted = ImageCms.applyTransform(image, profile_transform)
            assert converted is not None  # only with inPlace=True
            return converted
        return image if image.mode == "RGB" else image.convert("RGB")

    return convert


def _is_redundant(profile: bytes | None) -> bool:
    """Whether RGB samples with ``profile`` are sRGB already; True if it is None or broken."""
    if profile is None:
        return True
    digest = hashlib.sha256(profile).digest()
    if digest not in _is_srgb_by_digest:
        try:
            is_srgb = _is_srgb(profile)
        except (ImageCms.PyCMSError, OSError, ValueError):
            return True  # ignore broken profiles and those for other channels
        if len(_is_srgb_by_digest) >= _DIGESTS:
            _is_srgb_by_digest.clear()
        _is_srgb_by_digest[digest] = is_srgb
    return _is_srgb_by_digest[digest]


def _is_srgb(profile: bytes) -> bool:
    """Test ``profile`` on 64 colours. Names mislead: "sRGB-elle-V2-g10" is linear."""
    steps = (0, 85, 170, 255)
    colours = bytes(c for r in steps for g in steps for b in steps for c in (r, g, b))
    probe = Image.frombytes("RGB", (64, 1), colours)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(probe, source, _srgb(), outputMode="RGB")
    assert converted is not None  # only with inPlace=True
    return all(abs(a - b) <= 1 for a, b in zip(converted.tobytes(), colours, strict=True))


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
