"""Read photos of many kinds as uint8 RGB; errors name the file, the reason and the remedy.

`partclipseg export` copies this module into its script, so it needs NumPy and Pillow alone.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import struct
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from partclipseg.errors import PartCLIPSegError

MAX_PIXELS = 80_000_000
"""Default limit of `read_photo`, in pixels (width times height). Pillow starts to warn just above it."""

PHOTO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "jp2", "png", "webp", "avif", "bmp", "gif", "tif", "tiff", "tga"),
        *("ppm", "pgm", "pbm", "pnm"),
    )
)
"""Suffixes of photos that every installation reads, in lower case."""

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Suffixes of photos that the package pillow-heif reads, in lower case."""

_READ_RANGES = {"I;16": (65535.0,), "I": (65535.0,), "F": (1.0, 255.0)}
"""Usual maxima of the values of one-channel files, by Pillow's mode."""

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_BITS_PER_SAMPLE, _TIFF_LIMITS = 258, (50717, 281, 341)  # WhiteLevel, MaxSampleValue, SMaxSampleValue


class PhotoError(PartCLIPSegError):
    """One photo cannot be read; the message names it, the reason and the remedy."""


@cache
def has_heif() -> bool:
    """Whether HEIC photos can be read; Pillow then knows their format."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def photo_suffixes() -> frozenset[str]:
    """Return the suffixes of the photos that this installation reads, in lower case."""
    return PHOTO_SUFFIXES | HEIF_SUFFIXES if has_heif() else PHOTO_SUFFIXES


@cache
def photo_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats behind `photo_suffixes` that it can read here.

    No other format is ever tried: a file's suffix may be wrong, and Pillow has readers that decode before any limit can
    be checked, or that start another program.
    """
    suffixes, known = photo_suffixes(), Image.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in suffixes if suffix in known}))


def read_photo(source: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read one photo as uint8 `[H, W, 3]`, RGB, upright.

    The EXIF orientation is applied. Transparency is composited on white. Grey, palette and CMYK are converted. Of an
    animation the first frame is read.

    Grey values of more than 8 bits are divided by the greatest value of their range. The file may say it: TIFF by
    BitsPerSample, WhiteLevel, MaxSampleValue or SMaxSampleValue, PNG by sBIT. Otherwise 16- and 32-bit integers count
    as 0..65535 and floats as 0..1 or 0..255, the first range that they fit; what fits none is stretched from its least
    to its greatest value. A warning names a photo whose values all lie below a sixteenth of the range, and one that is
    transparent everywhere.

    Args:
        source: path, encoded bytes, binary file object, PIL image, or uint8 array `[H, W]`, `[H, W, 1]`,
            `[H, W, 3]` (RGB) or `[H, W, 4]` (RGBA). Files and bytes in the formats of `photo_formats` alone.
        max_pixels: refuse larger photos. The size is read from the header, before anything is decoded.
            Pillow's own limit, twice `PIL.Image.MAX_IMAGE_PIXELS`, stays in force.

    Raises:
        PhotoError: missing, empty, truncated, too large, or not a photo.
    """
    return _from_array(source) if isinstance(source, np.ndarray) else np.array(read_picture(source, max_pixels).image)


class Picture(NamedTuple):
    """A photo that was read, upright."""

    image: Image.Image
    """Pixels, of mode RGB."""
    size: tuple[int, int]
    """Height and width of the photo; those of `image` are less if it was decoded at a reduced size."""


def read_picture(source: Any, max_pixels: int = MAX_PIXELS, least_side: int | None = None) -> Picture:
    """Read one photo as `read_photo` does, but leave it a PIL image.

    With a `least_side`, in pixels, a JPEG file of at least twice that height and width is decoded at 1/2, 1/4 or 1/8 of
    its size, whose sides are not below it.
    """
    if isinstance(source, np.ndarray):
        return _whole(Image.fromarray(_from_array(source)))
    if isinstance(source, Image.Image):
        name = printable_name(getattr(source, "filename", "") or "the given image")
        return _decode(source, name, max_pixels)
    content, name = _open(source)
    try:
        image = Image.open(content, formats=photo_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(f"{name}: too many pixels ({error}): make the photo smaller") from error
    except UnidentifiedImageError as error:
        known = ", ".join(photo_formats())
        remedy = "convert it to JPEG or PNG"
        if not has_heif() and _is_heif(content):
            raise PhotoError(f"{name}: a HEIC photo: pip install pillow-heif, or {remedy}") from error
        raise PhotoError(f"{name}: not a photo in a known format ({known}): {remedy}") from error
    except PermissionError as error:
        raise PhotoError(f"{name}: may not be read: change the permissions of the file") from error
    except Exception as error:  # damaged headers make the format readers raise almost anything
        raise PhotoError(f"{name}: truncated or damaged ({error}): replace the file") from error
    with image:
        return _decode(image, name, max_pixels, least_side)


def _whole(image: Image.Image) -> Picture:
    return Picture(image, (image.height, image.width))


def _open(source: Any) -> tuple[Any, str]:
    """Return an object that Pillow can open, and a name for messages."""
    if isinstance(source, str | os.PathLike):
        name = printable_name(os.fspath(source))
        try:
            found = os.stat(source)  # noqa: PTH116
        except PermissionError as error:
            raise PhotoError(f"{name}: may not be read: change the permissions of the file and its folder") from error
        except (OSError, ValueError) as error:  # no such file, or text that no path can be
            if isinstance(error, OSError) and os.path.islink(source):  # noqa: PTH114
                raise PhotoError(f"{name}: a link that leads nowhere: restore the photo that it points to") from error
            raise PhotoError(f"{name}: no such file: check the path") from error
        if stat.S_ISDIR(found.st_mode):
            raise PhotoError(f"{name}: a folder, not a photo: name the photos inside it")
        if not stat.S_ISREG(found.st_mode):
            raise PhotoError(f"{name}: not a regular file: copy the photo into one")
        if found.st_size == 0:
            raise PhotoError(f"{name}: the file is empty: replace it")
        return source, name
    if hasattr(source, "read"):
        name = printable_name(str(getattr(source, "name", "the given file object")))
        source = source.read()
        if isinstance(source, str):
            raise PhotoError(f"{name}: opened as text: open it in binary mode, 'rb'")
    elif isinstance(source, bytes | bytearray | memoryview):
        name = "the given bytes"
    else:
        raise PhotoError(
            f"a photo cannot be read from a {type(source).__name__}: give a path, bytes, a file opened in binary "
            "mode, a PIL image or a uint8 array"
        )
    if len(source) == 0:
        raise PhotoError(f"{name}: empty: there is no photo in it")
    return io.BytesIO(source), name


def _decode(image: Image.Image, name: str, max_pixels: int, least_side: int | None = None) -> Picture:
    width, height = image.size
    if width * height == 0:
        raise PhotoError(f"{name}: the photo has no pixels ({width}x{height}): replace it")
    if width * height > max_pixels:
        raise PhotoError(
            f"{name}: {width}x{height} is {width * height:,} pixels, more than the limit of {max_pixels:,}: "
            "make the photo smaller or raise the limit"
        )
    try:
        wide, limit = _is_wide(image), _stated_limit(image)
        # Pillow turns such values around where they have 8 bits, and hands on wider ones as they are.
        negative = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        is_reduced = image.size != (width, height)
        image.load()
        # Turned after loading: TIFF turns itself then and drops the tag.
        image, on_its_side = _upright(image)
        if image.mode in _READ_RANGES or image.mode.startswith("I;16"):
            values = np.asarray(image)
            grey = _scaled(values, image.mode[:4], limit, name)
            grey = 255 - grey if negative else grey
            clear = image.info.get("transparency")
            grey = np.where(values == clear, 255, grey) if isinstance(clear, int) else grey
            return _whole(Image.fromarray(_grey(grey)))
        photo = _to_rgb(image, name)
        if wide:
            _warn_of_dark(name, int(np.asarray(photo).max()), 255)
        if is_reduced:
            return Picture(photo, (width, height) if on_its_side else (height, width))
        return _whole(photo)
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # decoders raise almost anything on damaged data
        raise PhotoError(f"{name}: truncated or damaged ({error}): replace the file") from error


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image turned as EXIF says, and whether its height and width were exchanged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation == 1:  # exif_transpose would copy an upright image
            return image, False
        return ImageOps.exif_transpose(image), orientation in range(5, 9)
    except Exception:  # a photo with unreadable EXIF data is still a photo, taken as it lies
        return image, False


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() == (0, 0):
            logging.getLogger(__name__).warning(
                "%s: it is transparent everywhere, so it is read as white: save it without transparency", name
            )
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


# -- values of more than 8 bits -------------------------------------------------------------------------------


def _scaled(values: np.ndarray, mode: str, limit: tuple[float, bool] | None, name: str) -> np.ndarray:
    """Scale wide values `[H, W]` to 0..255, by the range that the file states or the usual ones of its mode."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise PhotoError(f"{name}: some pixels are not numbers (NaN or infinite): save it as 8 bit")
    low, high = float(values.min()), float(values.max())
    ranges = _READ_RANGES[mode]
    if limit is not None:
        stated, certain = limit
        # Many writers state the greatest value of the type, whatever is in the file.
        if certain or high * 16 >= stated:
            ranges = (stated, *ranges)
    for greatest in ranges:
        if low >= 0 and high <= greatest:
            _warn_of_dark(name, high, greatest)
            return np.rint(values * (255 / greatest))
    return np.rint((values - low) * (255 / max(high - low, 1e-12)))


def _warn_of_dark(name: str, high: float, greatest: float) -> None:
    if 0 < high * 16 < greatest:
        logging.getLogger(__name__).warning(
            "%s: its values end at %s, below a sixteenth of the range 0 to %s, so it is nearly black: scale them to "
            "the whole range and save it anew",
            name,
            f"{high:,g}" if high >= 1e6 or high != int(high) else f"{int(high):,}",
            f"{int(greatest):,}",
        )


def _is_wide(image: Image.Image) -> bool:
    """Whether a file of several channels has 16 bits each, of which Pillow keeps the upper 8."""
    return image.mode not in _READ_RANGES and any(";16" in str(tile[3]) for tile in getattr(image, "tile", None) or ())


def _stated_limit(image: Image.Image) -> tuple[float, bool] | None:
    """Return the stated maximum of the file's samples, and whether it is certain; None if none is stated."""
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        bits = _first(tags.get(_BITS_PER_SAMPLE))
        if image.mode.startswith("I;16") and bits is not None and 8 < bits < 16:
            return 2.0**bits - 1, True
        limits = (_first(tags.get(tag)) for tag in _TIFF_LIMITS)
        stated = next((limit for limit in limits if limit is not None and limit > 1), None)
        return None if stated is None else (stated, False)
    if image.format == "PNG" and image.mode.startswith("I;16"):
        bits = _significant_bits(getattr(image, "fp", None))
        if bits is not None and 8 < bits < 16:
            # The standard scales values to 16 bits, so small values have zero bits at the lower end.
            values = np.asarray(image)
            if values.max() < 2**bits and (values & (2 ** (16 - bits) - 1)).any():
                return 2.0**bits - 1, True
    return None


def _first(value: Any) -> float | None:
    value = value[0] if isinstance(value, tuple) and value else value
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if np.isfinite(number) else None


def _significant_bits(file: Any) -> int | None:
    """Return the first channel's bits in the chunk sBIT of a PNG file, which Pillow skips."""
    if file is None:
        return None
    place = file.tell()
    try:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"sBIT":
                return int(file.read(1)[0])
            if kind == b"IDAT":
                return None
            file.seek(length + 4, os.SEEK_CUR)
        return None
    finally:
        file.seek(place)


def _is_heif(content: Any) -> bool:
    """Whether a file or its bytes begin as HEIC files do."""
    try:
        if isinstance(content, io.BytesIO):
            head = content.getvalue()[:12]
        else:
            with open(content, "rb") as file:
                head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def _from_array(array: np.ndarray) -> np.ndarray:
    known = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {1, 3, 4})
    if not known or array.size == 0:
        raise PhotoError(
            f"an array of shape {list(array.shape)} is not a photo: expected [H, W, 3], [H, W, 4] or [H, W], with "
            "the channels last"
        )
    if array.dtype != np.uint8:
        raise PhotoError(f"an array of {array.dtype} is not a photo: scale its values to 0..255 and make it uint8")
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array)
    if array.ndim == 3 and array.shape[2] == 4:
        return np.array(_to_rgb(Image.fromarray(array), "the given array"))
    return _grey(array.reshape(array.shape[:2]))


def printable_name(name: str | bytes) -> str:
    """Return the name in valid Unicode: file names may hold bytes that are not UTF-8, which JSON cannot encode."""
    return os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
