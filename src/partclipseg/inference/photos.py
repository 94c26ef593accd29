"""Run photos through a model in batches.

While the model works on one batch, threads read the next one and make the results of the last; no more are held.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from partclipseg.data.photo import PhotoError, read_photo, read_picture
from partclipseg.data.resize import resize_photo, resize_picture
from partclipseg.errors import UsageError
from partclipseg.instances.found import FoundObject
from partclipseg.machine import usable_cores

_THREADS = min(16, usable_cores())
"""Number of threads that decode and resize photos and make results beside each other and the model."""

FAST_SIDES = 4
"""Minimum height and width of what a JPEG becomes when it is decoded at a reduced size, in sides of the model's input.

With 2 of them some two and a half times as many labels change (docs/speed.md).
"""

Made = TypeVar("Made")
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class LoadedPhoto:
    """A photo in memory, at its own size and at the model's."""

    name: str
    """Name for results: the path that it was read from, if any."""
    size: tuple[int, int]
    """Height and width as it was read."""
    pixels: np.ndarray | None
    """uint8 `[H, W, 3]`, as it was read; None where nothing needs them."""
    resized: np.ndarray
    """uint8 `[h, w, 3]`, of the size that the model takes photos at: of its input, or as it was read."""
    objects: tuple[FoundObject, ...] = ()
    """Objects that the caller gives, within the photo."""

    @classmethod
    def read(
        cls, source: Any, image_shape: tuple[int, int] | None, max_pixels: int, keep: bool = True, fast: bool = False
    ) -> LoadedPhoto:
        """Read whatever `read_photo` takes, and resize it to `image_shape`; None leaves it. Raises `PhotoError`.

        `keep` keeps the pixels as they were read. `fast`, which needs an `image_shape` and keeps no pixels, decodes
        large JPEG files at a reduced size and resizes by PyTorch's filter.
        """
        name = _name(source)
        if image_shape is None or (isinstance(source, np.ndarray) and not fast):
            photo = read_photo(source, max_pixels)
            resized = photo if image_shape is None else resize_photo(photo, image_shape)
            return cls(name, (photo.shape[0], photo.shape[1]), photo if keep else None, resized)
        picture = read_picture(source, max_pixels, FAST_SIDES * max(image_shape) if fast else None)
        if fast:
            return cls(name, picture.size, None, _resize_fast(np.array(picture.image), image_shape))
        resized = resize_picture(picture.image, image_shape)
        return cls(name, picture.size, np.array(picture.image) if keep else None, resized)

    def with_objects(self, objects: Iterable[FoundObject]) -> LoadedPhoto:
        """Return the photo with the objects that the caller gives."""
        return replace(self, objects=tuple(objects))


SegmentBatch = Callable[[Sequence[LoadedPhoto]], Sequence[Callable[[], Made]]]
"""Runs the model on a batch; returns a function for each photo that makes its result, in any thread."""


def stream(
    sources: Iterable[Any], read: Callable[[Any], LoadedPhoto], segment: SegmentBatch[Made], batch_size: int
) -> Iterator[tuple[Any, Made | PhotoError]]:
    """Yield each of `sources` in order with its result, or with the error that prevented it.

    Raises `UsageError` at the call itself for a batch size below 1.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    return _stream(batched(iter(sources), batch_size), read, segment)


def _stream(
    chunks: Iterator[list[Any]], read: Callable[[Any], LoadedPhoto], segment: SegmentBatch[Made]
) -> Iterator[tuple[Any, Made | PhotoError]]:
    def attempt(source: Any) -> LoadedPhoto | PhotoError:
        try:
            return read(source)
        except PhotoError as error:
            return error

    def segmented(pool: ThreadPoolExecutor) -> Iterator[list[tuple[Any, Any]]]:
        for chunk in ahead(([(source, pool.submit(attempt, source)) for source in chunk] for chunk in chunks), 1):
            answers = [(source, future.result()) for source, future in chunk]
            good = [answer for _, answer in answers if isinstance(answer, LoadedPhoto)]
            results = map(pool.submit, segment(good) if good else [])
            yield [(source, next(results) if isinstance(answer, LoadedPhoto) else answer) for source, answer in answers]

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="photos") as pool:
        try:
            for chunk in ahead(segmented(pool), 1):
                for source, answer in chunk:
                    yield source, answer.result() if isinstance(answer, Future) else answer
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Yield the items, fetching `count` items ahead."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last may be shorter."""
    while chunk := list(islice(items, size)):
        yield chunk


def to_host(tensors: Sequence[tuple[Tensor, ...]]) -> list[tuple[np.ndarray, ...]]:
    """Copy all tensors to arrays, waiting for their device once."""
    if not tensors[0][0].is_cuda:
        return [tuple(tensor.cpu().numpy() for tensor in group) for group in tensors]
    copies = [
        tuple(torch.empty_like(t, device="cpu", pin_memory=True).copy_(t, non_blocking=True) for t in group)
        for group in tensors
    ]
    torch.cuda.current_stream(tensors[0][0].device).synchronize()
    return [tuple(tensor.numpy() for tensor in group) for group in copies]


def _resize_fast(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as `resize_photo` does, with less exact weights: one value in some hundreds differs, by 1."""
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(values, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _name(photo: Any) -> str:
    if isinstance(photo, str | os.PathLike):
        return os.fsdecode(photo)
    return str(getattr(photo, "filename", "") or getattr(photo, "name", "") or "photo")
