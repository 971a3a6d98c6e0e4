"""Bytes -> upright RGB image, within limits; image -> bytes."""

from __future__ import annotations

import ctypes
import errno
import io
import warnings
from importlib import import_module

from PIL import AvifImagePlugin, Image

from handlers.errors import BadImage, EmptyBody, TooLarge
from handlers.pictures import png
from handlers.pictures.color import to_rgb
from handlers.pictures.formats import check_header, check_pixels, format_of
from handlers.pictures.limits import LIMITS, Limits

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


# A JPEG is decoded at a half, a quarter or an eighth of its size where its shorter side stays at
# least so many times what the network needs: up to five times as fast for photographs of 12
# megapixels, and after resizing an 8-bit step off here and there (docs/performance.md).
_SHRINK_MARGIN = 2


# A quarter of the time of zlib's default of 6, for a tenth more bytes.
_PNG_LEVEL = 1

_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP")

# Where the C library keeps this thread's errno, by glibc's and musl's name for it.
_errno_location = getattr(ctypes.CDLL(None), "__errno_location", None)
if _errno_location is not None:
    _errno_location.restype = ctypes.POINTER(ctypes.c_int)


def decode(data: bytes, limits: Limits = LIMITS, *, resize: int | None = None) -> Image.Image:
    """An encoded picture -> its first frame, upright, mode RGB, alpha on white.

    ``resize`` is what its shorter side will become, in pixels: a much larger JPEG is decoded at a
    fraction of its size. Without it every picture keeps its size.

    Raises EmptyBody, TooLarge, UnsupportedFormat or BadImage; nothing else for any bytes.
    """
    if not data:
        raise EmptyBody("the picture has no bytes")
    name = format_of(data)
    check_header(data, name, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stranger's file may not fill our log
            image = _load(data, name, limits, resize)
            turn = _turn(image)
            pixels = _on_white(image, to_rgb(image))
        del image  # what is turned is held twice: not three times
        return pixels if turn is None else pixels.transpose(turn)
    except MemoryError as error:
        raise too_much_memory(limits) from error


def encode(image: Image.Image, format: str, quality: int) -> bytes:
    """``image`` as PNG, JPEG or WebP bytes; ``quality`` (1 to 95) is heeded by the last two."""
    buffer = io.BytesIO()
    if format == "PNG":
        image.save(buffer, format, compress_level=_PNG_LEVEL)
    else:
        image.save(buffer, format, quality=quality)
    return buffer.getvalue()


def too_much_memory(limits: Limits) -> TooLarge:
    """What a MemoryError means to a client, while decoding and after."""
    limit = f"the limit of {limits.decode_bytes} bytes"
    return TooLarge(f"decoding the picture takes more memory than {limit}")


def own_process() -> None:
    """Settings of Pillow for a process that does nothing but decode.

    Every decoder is loaded now: one that finds no memory to load later stays missing.
    """
    for plugin in _PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    Image.MAX_IMAGE_PIXELS = None  # our own limit holds
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # pictures share the cores, not their rows


def _load(data: bytes, name: str, limits: Limits, resize: int | None) -> Image.Image:
    """The first frame, as the file stores it, or smaller."""
    _set_errno(0)
    try:
        profile = None
        if name == "PNG":
            data, profile = png.essential(data)
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            check_pixels(image.size, limits)
            if resize is not None:
                # Heeded by JPEG alone; libjpeg computes fewer coefficients (``scale_denom``).
                image.draft(None, (_SHRINK_MARGIN * resize, _SHRINK_MARGIN * resize))
            image.load()
        if name == "TIFF":
            _refuse_misread(image)
        if profile is not None:
            image.info["icc_profile"] = profile
        return image
    except (TooLarge, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the picture has more than {limits.pixels} pixels") from error
    except Exception as error:
        # All in here is Pillow's work on a stranger's bytes. Its plugins raise what their parsing
        # happens to stumble over: OSError, SyntaxError, struct.error, KeyError, ... Most decoders
        # report a failed malloc as they do damage.
        if _get_errno() == errno.ENOMEM:
            raise MemoryError from error
        raise BadImage(
            f"the {name} cannot be decoded: it is damaged or cut short, or of a rare kind"
        ) from error


def _set_errno(value: int) -> None:
    if _errno_location is not None:
        _errno_location().contents.value = value


def _get_errno() -> int:
    """What the last C function that failed in this thread left; 0 where that is not known."""
    return _errno_location().contents.value if _errno_location is not None else 0


def _refuse_misread(image: Image.Image) -> None:
    """ValueError for the kinds of TIFF that Pillow reads, but wrongly: TIFF 6.0, section 8."""
    tags = getattr(image, "tag_v2", {})
    bits, planes, signed = tags.get(258, (1,))[0], tags.get(284) == 2, tags.get(339, (1,))[0] == 2
    if bits == 16 and planes and tags.get(259) == 1:
        raise ValueError("16-bit samples in planes are read as 8-bit ones")
    if image.mode == "I" and not signed and image.getextrema()[0] < 0:  # type: ignore[operator]
        raise ValueError("unsigned 32-bit samples are read as signed ones")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns ``image`` upright by its EXIF data; broken EXIF says nothing."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - Pillow parses EXIF in Python and fails in many ways
        return None


def _on_white(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """What lies around a GIF's first frame is white: browsers ignore the background colour."""
    frame = getattr(image, "dispose_extent", (0, 0, *image.size))
    if frame == (0, 0, *image.size):
        return pixels
    canvas = Image.new("RGB", pixels.size, "white")
    canvas.paste(pixels.crop(frame), frame)
    return canvas
