"""Read the photos of a data set to score them: each file once, whatever the number of its records, by workers ahead."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from partclipseg.data.loader import PartDataset
from partclipseg.data.resize import resize_photo
from partclipseg.data.source import FileDataset
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.choices import Protocol

RECORD_PROTOCOLS: tuple[Protocol, ...] = ("oracle_obj", "pred_all", "predicted_objects")
"""Protocols that count each record of a photo; all others, and metrics of instances, count the photo once."""


class PhotoRecords(NamedTuple):
    """A photo of a data set, with the indices and keys of its records."""

    key: str
    indices: tuple[int, ...]
    record_keys: tuple[str, ...]

    def keys(self, protocol: str) -> tuple[str, ...]:
        """Return the keys under which an evaluator of `protocol` counts the photo: see `run.predict`."""
        return self.record_keys if protocol in RECORD_PROTOCOLS else (self.key,)


class RecordLabels(NamedTuple):
    """The labels of one record, int32 `[H, W]` each, as in `PartSample`."""

    key: str
    part_labels: np.ndarray
    object_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class EvaluationPhoto:
    """A photo, at its own size or resized for the model, and its records."""

    key: str
    image: np.ndarray
    """uint8 `[h, w, 3]`, RGB."""
    records: tuple[RecordLabels, ...]

    def whole(self) -> RecordLabels:
        """Return the labels of all records in one: labelled if any record is, `OUTSIDE` only if all records are."""
        parts = np.maximum.reduce([record.part_labels for record in self.records])
        return RecordLabels(self.key, parts, np.maximum.reduce([record.object_labels for record in self.records]))


def group_records(dataset: PartDataset) -> list[PhotoRecords]:
    """Return the photos of a data set, in its order; records of one photo must be adjacent.

    A data set that is not on disk has a photo for each record, named by ``dataset.keys()`` or else by its index.
    """
    if not isinstance(dataset, FileDataset):
        named: Any = getattr(dataset, "keys", None)
        keys = map(str, range(len(dataset))) if named is None else named()
        return [PhotoRecords(key, (index,), (key,)) for index, key in enumerate(keys)]
    photos = []
    for key, items in groupby(enumerate(dataset.records), lambda item: (item[1].source.split, item[1].photo.key)):
        indices, records = zip(*items, strict=True)
        photos.append(PhotoRecords("/".join(key), indices, tuple(record.key for record in records)))
    return photos


def read_batches(
    dataset: PartDataset,
    photos: Sequence[PhotoRecords],
    image_shape: tuple[int, int] | None,
    batch_size: int,
    workers: int,
) -> Iterator[list[EvaluationPhoto]]:
    """Read photos in worker processes, in order, and resize them to `image_shape`, height and width.

    With None they keep their size, which zoom needs.
    Raises `UsageError` for a batch size below 1, and `PartCLIPSegError` in the reader's words for a file that
    cannot be read.
    """
    return load_in_order(photos, partial(_read_photo, dataset, image_shape), batch_size, workers)


def load_in_order(
    photos: Sequence[PhotoRecords], read: Callable[[PhotoRecords], Any], batch_size: int, workers: int
) -> Iterator[list[Any]]:
    """Yield what `read` returns for each photo, in batches and in order; worker processes call it ahead.

    Raises `UsageError` for a batch size below 1, and the `PartCLIPSegError` of the first photo for which `read` raised
    one.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    loader = DataLoader(
        _PhotoReader(photos, read),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_leave_interrupts,
        generator=torch.Generator(),  # else the loader draws from the global generator
    )
    for batch in loader:
        for item in batch:
            if isinstance(item, PartCLIPSegError):
                raise item
        yield batch


class _PhotoReader(Dataset):
    def __init__(self, photos: Sequence[PhotoRecords], read: Callable[[PhotoRecords], Any]) -> None:
        self._photos = photos
        self._read = read

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, place: int) -> Any:
        try:
            return self._read(self._photos[place])
        except PartCLIPSegError as error:
            # An error raised in a worker would reach the user as a page of traceback.
            return error


def _read_photo(dataset: PartDataset, image_shape: tuple[int, int] | None, photo: PhotoRecords) -> EvaluationPhoto:
    """Read the records of one photo, whose file is read once."""
    indices = photo.indices
    samples = dataset.samples(indices) if isinstance(dataset, FileDataset) else [dataset[index] for index in indices]
    records = tuple(
        RecordLabels(key, sample.part_labels, sample.object_labels)
        for key, sample in zip(photo.record_keys, samples, strict=True)
    )
    sizes = () if image_shape is None else (image_shape,)
    return EvaluationPhoto(photo.key, resize_photo(samples[0].image, *sizes), records)


def _leave_interrupts(_: int) -> None:
    """Ignore Ctrl-C in a worker: the main process saves the scores and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
