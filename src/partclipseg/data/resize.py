"""Resize photos, bilinear with antialiasing, and their labels, by the nearest pixel."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_photo(image: np.ndarray, *sizes: tuple[int, int]) -> np.ndarray:
    """Resize a photo, uint8 `[H, W, 3]`, to each (height, width) of `sizes` in turn, bilinear with antialiasing."""
    if all(image.shape[:2] == size for size in sizes):
        return image
    return resize_picture(Image.fromarray(np.ascontiguousarray(image)), *sizes)


def resize_picture(picture: Image.Image, *sizes: tuple[int, int]) -> np.ndarray:
    """Resize a PIL image of mode RGB as `resize_photo` does, to uint8 `[h, w, 3]`."""
    for height, width in sizes:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels `[H, W]` to `size`: take the label under the centre of each new pixel of `resize_photo`."""
    if labels.shape == size:
        return labels
    rows, columns = (nearest_pixels(old, new) for old, new in zip(labels.shape, size, strict=True))
    return labels[rows][:, columns]  # in two steps, each of which copies runs of memory


def nearest_pixels(old: int, new: int) -> np.ndarray:
    """Return int64 `[new]`: index of the one of `old` pixels under the centre of each new pixel."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def first_pixels(old: int, new: int) -> np.ndarray:
    """Return int64 `[new]`: index of the one of `old` pixels at the start of each new pixel, as torch's "nearest"."""
    return np.arange(new) * old // new
