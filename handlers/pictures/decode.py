"""An encoded picture -> an upright RGB image, within limits."""

from __future__ import annotations

import ctypes
import errno
import io
import warnings
from importlib import import_module

from PIL import AvifImagePlugin, Image, ImageCms

from handlers.errors import BadImage, EmptyBody, TooLarge
from handlers.formats import format_of
from handlers.pictures import png
from handlers.pictures.color import to_rgb
from handlers.pictures.header import check_header, check_pixels
from handlers.pictures.limits import LIMITS, Limits

# EXIF 2.32, tag 0x0112: the transpose that undoes each orientation; orientation 1 needs none.
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


# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if its shorter side is then still at least this
# many times the required size: twice as fast for photographs of 12 megapixels. The result differs
# by 0.25/255 on average (docs/performance.md).
_SHRINK_MARGIN = 2

_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP")
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# The address of this thread's errno; glibc and musl use this name.
_errno_location = getattr(ctypes.CDLL(None), "__errno_location", None)
if _errno_location is not None:
    _errno_location.restype = ctypes.POINTER(ctypes.c_int)


def decode(data: bytes, limits: Limits = LIMITS, *, resize: int | None = None) -> Image.Image:
    """An encoded picture -> its first frame, upright, mode RGB, alpha on white.

    ``resize`` is the shorter side in pixels that the caller will resize to. A much larger JPEG is
    then decoded at a fraction of its size; if ``resize`` is None, every picture keeps its size.

    Raises EmptyBody, TooLarge, UnsupportedFormat or BadImage, and nothing else, for any bytes.
    """
    if not data:
        raise EmptyBody("the picture has no bytes")
    name = format_of(data)
    check_header(data, name, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about clients' files would fill the log
            image = _load(data, name, limits, resize)
            turn = _turn(image)
            pixels = _on_white(image, to_rgb(image))
        del image  # free the original before transpose() makes another copy
        return pixels if turn is None else pixels.transpose(turn)
    except MemoryError as error:
        raise too_much_memory(limits) from error


def too_much_memory(limits: Limits) -> TooLarge:
    """The error for a MemoryError during or after decoding."""
    limit = f"the limit of {limits.decode_bytes} bytes"
    return TooLarge(f"decoding the picture takes more memory than {limit}")


def own_process() -> None:
    """Configure Pillow for a process that only decodes, and use every decoder once.

    What they import or read from the system at their first use cannot be had later, when no file
    can be opened or no memory is left.
    """
    for plugin in _PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    Image.preinit()
    Image.MAX_IMAGE_PIXELS = None  # limits.pixels applies instead
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # pictures are decoded in parallel instead
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in _FORMATS:
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, name, icc_profile=profile)
        decode(file.getvalue())


def _load(data: bytes, name: str, limits: Limits, resize: int | None) -> Image.Image:
    """The first frame in its own mode and orientation, smaller if ``resize`` allows that."""
    _set_errno(0)
    try:
        profile = None
        if name == "PNG":
            data, profile = png.essential(data)
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            check_pixels(image.size, limits)
            if resize is not None:
                # Affects JPEG only; libjpeg computes fewer coefficients (``scale_denom``).
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
        # Pillow's plugins raise any exception on damaged files: OSError, SyntaxError, struct.error,
        # KeyError, ... Most decoders report a failed malloc in the same way.
        if _get_errno() == errno.ENOMEM:
            raise MemoryError from error
        raise BadImage(
            f"the {name} cannot be decoded: it is damaged, truncated or of an unsupported kind"
        ) from error


def _set_errno(value: int) -> None:
    if _errno_location is not None:
        _errno_location().contents.value = value


def _get_errno() -> int:
    """The errno of this thread, which the last failed C function set; 0 if it is unknown."""
    return _errno_location().contents.value if _errno_location is not None else 0


def _refuse_misread(image: Image.Image) -> None:
    """Raise ValueError for kinds of TIFF that Pillow misreads (tags: TIFF 6.0, section 8)."""
    tags = getattr(image, "tag_v2", {})
    bits, planes, signed = tags.get(258, (1,))[0], tags.get(284) == 2, tags.get(339, (1,))[0] == 2
    if bits == 16 and planes and tags.get(259) == 1:
        raise ValueError("16-bit samples in planes are read as 8-bit ones")
    if image.mode == "I" and not signed and image.getextrema()[0] < 0:  # type: ignore[operator]
        raise ValueError("unsigned 32-bit samples are read as signed ones")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transpose that turns ``image`` upright by its EXIF orientation; ignores broken EXIF."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - Pillow parses EXIF in Python and fails in many ways
        return None


def _on_white(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """Make the area around a GIF's first frame white; browsers ignore its background colour too."""
    frame = getattr(image, "dispose_extent", (0, 0, *image.size))
    if frame == (0, 0, *image.size):
        return pixels
    canvas = Image.new("RGB", pixels.size, "white")
    canvas.paste(pixels.crop(frame), frame)
    return canvas
