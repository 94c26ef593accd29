"""Whatever a photo comes as, uint8 RGB out; whatever is wrong with it, an error that names the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from functools import cache
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from partclipseg.errors import PartCLIPSegError, UsageError

MAX_PIXELS = 80_000_000
"""Default limit of `read_photo`, in pixels (width times height). Pillow starts to warn just above it."""

PHOTO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "jp2", "png", "webp", "avif", "bmp", "gif", "tif", "tiff", "tga"),
        *("ppm", "pgm", "pbm", "pnm"),
    )
)
"""What `find_photos` takes for a photo in a folder, in lower case."""


@cache
def photo_formats() -> tuple[str, ...]:
    """Pillow's names of the formats behind `PHOTO_SUFFIXES` that it can read here.

    No other format is ever tried: a file's name says nothing of what is in it, and Pillow has readers that decode
    before any limit can be checked, or that start another program.
    """
    known = Image.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in PHOTO_SUFFIXES if suffix in known}))


class PhotoError(PartCLIPSegError):
    """One photo cannot be read; the message names it, the reason and the remedy."""


def read_photo(source: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read one photo as uint8 `[H, W, 3]`, RGB, upright.

    The EXIF orientation is applied. Transparency is composited on white. Grey, palette and CMYK are converted;
    16-bit values are divided by 257, 32-bit ones count as 16-bit where they fit and are otherwise stretched
    from their least to their greatest value; floats are taken as 0..1 or 0..255 where they fit, and otherwise
    stretched likewise. Of an animation the first frame is read.

    Args:
        source: path, encoded bytes, binary file object, PIL image, or uint8 array `[H, W]`, `[H, W, 1]`,
            `[H, W, 3]` (RGB) or `[H, W, 4]` (RGBA). Files and bytes in the formats of `photo_formats` alone.
        max_pixels: refuse larger photos. The size is read from the header, before anything is decoded.
            Pillow's own limit, twice `PIL.Image.MAX_IMAGE_PIXELS`, stays in force.

    Raises:
        PhotoError: missing, empty, truncated, too large, or not a photo.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        name = _printable(getattr(source, "filename", "") or "the given image")
        return _decode(source, name, max_pixels)
    content, name = _open(source)
    try:
        image = Image.open(content, formats=photo_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(f"{name}: too many pixels ({error}): make the photo smaller") from error
    except UnidentifiedImageError as error:
        known = ", ".join(photo_formats())
        raise PhotoError(f"{name}: not a photo in a known format ({known}): convert it to JPEG or PNG") from error
    except PermissionError as error:
        raise PhotoError(f"{name}: may not be read: change the permissions of the file") from error
    except Exception as error:  # damaged headers make the format readers raise almost anything
        raise PhotoError(f"{name}: truncated or damaged ({error}): replace the file") from error
    with image:
        return _decode(image, name, max_pixels)


def find_photos(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The photos that files, folders and patterns (``*``, ``?``, ``[]``, ``**``) stand for, without repeats.

    A named file is taken whatever its suffix. A folder gives the photos directly inside it, sorted, by
    `PHOTO_SUFFIXES`; a pattern likewise, over the files that match. Hidden files (``._*`` of archives made on
    macOS among them) are skipped.

    Raises:
        UsageError: nothing at all is found for one of `paths`, which is named.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_matches(os.fspath(path))))
    return list(found)


def _matches(path: str) -> list[Path]:
    name = _printable(path)
    if Path(path).is_dir():
        if photos := _only_photos(Path(path).iterdir()):
            return photos
        raise UsageError(f"{name}: no photos in this folder; for those of its subfolders write '{name}/**/*.jpg'")
    if Path(path).exists():
        return [Path(path)]
    if has_magic(path):
        # Path.glob takes no absolute patterns.
        if photos := _only_photos(map(Path, glob(path, recursive=True))):  # noqa: PTH207
            return photos
        raise UsageError(f"{name}: no photo matches this pattern")
    raise UsageError(f"{name}: no such file or folder")


def _only_photos(candidates: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in candidates
        if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _open(source: Any) -> tuple[Any, str]:
    """What Pillow can open, and how to call it in messages."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        name = _printable(os.fspath(path))
        if path.is_dir():
            raise PhotoError(f"{name}: a folder, not a photo: name the photos inside it")
        if not path.exists():
            raise PhotoError(f"{name}: no such file: check the path")
        if not path.is_file():
            raise PhotoError(f"{name}: not a regular file: copy the photo into one")
        if path.stat().st_size == 0:
            raise PhotoError(f"{name}: the file is empty: replace it")
        return path, name
    if hasattr(source, "read"):
        name = _printable(str(getattr(source, "name", "the given file object")))
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


def _decode(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    width, height = image.size
    if width * height == 0:
        raise PhotoError(f"{name}: the photo has no pixels ({width}x{height}): replace it")
    if width * height > max_pixels:
        raise PhotoError(
            f"{name}: {width}x{height} is {width * height:,} pixels, more than the limit of {max_pixels:,}: "
            "make the photo smaller or raise the limit"
        )
    try:
        image.load()
        # Turned after loading: TIFF turns itself then and drops the tag.
        return _to_rgb(_upright(image), name)
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # decoders raise almost anything on damaged data
        raise PhotoError(f"{name}: truncated or damaged ({error}): replace the file") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image  # which would copy an upright one
    except Exception:  # a photo with unreadable EXIF data is still a photo, taken as it lies
        return image


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return _grey((np.asarray(image).astype(np.uint32) + 128) // 257)
    if image.mode in {"I", "F"}:
        return _grey(_stretch(np.asarray(image).astype(np.float64), image.mode, name))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _stretch(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    """Wide values `[H, W]` to 0..255; the ranges that files use are kept, others are stretched."""
    if not np.isfinite(values).all():
        raise PhotoError(f"{name}: some pixels are not numbers (NaN or infinite): save it as 8 bit")
    low, high = values.min(), values.max()
    for usual in (1.0, 255.0) if mode == "F" else (65535.0,):
        if low >= 0 and high <= usual:
            return np.rint(values * (255 / usual))
    return np.rint((values - low) * (255 / max(high - low, 1e-12)))


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
        return _to_rgb(Image.fromarray(array), "the given array")
    return _grey(array.reshape(array.shape[:2]))


def _printable(name: str | bytes) -> str:
    """File names may hold bytes that are not UTF-8, which no terminal or JSON file can show."""
    return os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
