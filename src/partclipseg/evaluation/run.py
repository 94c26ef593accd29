"""One pass over the photos of a data set: each goes through the model once, whatever the protocols."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from partclipseg.data.augment import resize_photo
from partclipseg.data.loader import PartDataset
from partclipseg.data.sample import PartSample, objects_in
from partclipseg.data.source import FileDataset
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.scores import Protocol
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.vocabulary import Vocabulary

Evaluators = Mapping[Protocol, Evaluator]


class PhotoRecords(NamedTuple):
    """A photo of a data set, with the places and the keys of its records."""

    key: str
    indices: tuple[int, ...]
    record_keys: tuple[str, ...]

    def keys(self, protocol: Protocol) -> tuple[str, ...]:
        """The keys that an evaluator of `protocol` counts the photo under: see `predict`."""
        return (self.key,) if protocol == "strict" else self.record_keys


class RecordLabels(NamedTuple):
    """The labels of one record, int32 `[H, W]` each, as in `PartSample`."""

    key: str
    part_labels: np.ndarray
    object_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class LabelledPhoto:
    """A photo, resized as the model takes it or of its own size, and its records."""

    key: str
    image: np.ndarray
    """uint8 `[h, w, 3]`, RGB."""
    records: tuple[RecordLabels, ...]

    def whole(self) -> RecordLabels:
        """The labels of all records in one: what is labelled in any of them, and `OUTSIDE` only if it is in all."""
        parts = np.maximum.reduce([record.part_labels for record in self.records])
        return RecordLabels(self.key, parts, np.maximum.reduce([record.object_labels for record in self.records]))


class Prediction(NamedTuple):
    """What one protocol compares."""

    protocol: Protocol
    label_map: torch.Tensor
    """int64 `[H, W]`: class index or -1, on the device of the model."""
    labels: RecordLabels


def group_records(dataset: FileDataset) -> list[PhotoRecords]:
    """The photos of a data set, in its order; the records of each follow each other."""
    photos = []
    for key, items in groupby(enumerate(dataset.records), lambda item: (item[1].source.split, item[1].photo.key)):
        indices, records = zip(*items, strict=True)
        photos.append(PhotoRecords("/".join(key), indices, tuple(record.key for record in records)))
    return photos


def predict(
    segmenter: PartSegmenter,
    vocabulary: Vocabulary,
    photos: Sequence[LabelledPhoto],
    protocols: Iterable[Protocol],
    zoom: bool = False,
) -> Iterator[Prediction]:
    """Every prediction of a batch of photos, from pruned decoding, once for all protocols without given objects.

    `oracle_obj` and `pred_all` yield one prediction for each record. `strict` yields one for each photo, with the
    labels of all its records: background that belongs to several records must not count several times. With `zoom`
    the photos, of their own size, are looked at a second time.
    """
    protocols = set(protocols)
    images = [photo.image for photo in photos]
    inputs = segmenter.prepare(images)
    if protocols - {"oracle_obj"}:
        sizes = [photo.records[0].part_labels.shape for photo in photos]
        maps = segmenter.label_maps(inputs, vocabulary, sizes)
        if zoom:
            maps = segmenter.look_again(images, maps, vocabulary)
        for photo, found in zip(photos, maps, strict=True):
            if "strict" in protocols:
                yield Prediction("strict", found.label_map, photo.whole())
            if "pred_all" in protocols:
                yield from (Prediction("pred_all", found.label_map, record) for record in photo.records)
    if "oracle_obj" in protocols:
        rows, records = zip(*((row, r) for row, photo in enumerate(photos) for r in photo.records), strict=True)
        present = [objects_in(record.object_labels) for record in records]
        sizes = [record.part_labels.shape for record in records]
        chosen = {name: value[list(rows)] for name, value in inputs.items()}
        maps = segmenter.label_maps(chosen, vocabulary, sizes, present)
        if zoom:
            maps = segmenter.look_again([images[row] for row in rows], maps, vocabulary, present)
        for record, found in zip(records, maps, strict=True):
            yield Prediction("oracle_obj", found.label_map, record)


def score(
    segmenter: PartSegmenter,
    vocabulary: Vocabulary,
    photos: Sequence[LabelledPhoto],
    evaluators: Evaluators,
    zoom: bool = False,
) -> None:
    """Count a batch of photos in the evaluators, `zoom` as in `predict`."""
    with torch.inference_mode():
        for protocol, label_map, (key, parts, objects) in predict(segmenter, vocabulary, photos, evaluators, zoom):
            evaluators[protocol].update(label_map, parts, objects, key=key)


def is_scored(photo: PhotoRecords, evaluators: Evaluators) -> bool:
    """Whether every evaluator has counted the photo."""
    return all(key in evaluator for protocol, evaluator in evaluators.items() for key in photo.keys(protocol))


def read_batches(
    dataset: PartDataset,
    photos: Sequence[PhotoRecords],
    image_shape: tuple[int, int] | None,
    batch_size: int,
    workers: int,
) -> Iterator[list[LabelledPhoto]]:
    """Read photos in worker processes, in order, and resize them to `image_shape`, height and width.

    With None they keep their size, as a second look needs them.
    Raises `UsageError` for a batch size below 1, and `PartCLIPSegError` in the reader's words for a file that
    cannot be read.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    reader: Dataset[Any] = _Reader(dataset, photos, image_shape)
    loader = DataLoader(
        reader, batch_size=batch_size, num_workers=workers, collate_fn=list, worker_init_fn=_leave_interrupts
    )
    for batch in loader:
        for item in batch:
            if isinstance(item, PartCLIPSegError):
                raise item
        yield batch


class _Reader(Dataset):
    def __init__(
        self, dataset: PartDataset, photos: Sequence[PhotoRecords], image_shape: tuple[int, int] | None
    ) -> None:
        self._dataset = dataset
        self._photos = photos
        self._size = image_shape

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, place: int) -> LabelledPhoto | PartCLIPSegError:
        photo = self._photos[place]
        try:
            samples = _samples(self._dataset, photo.indices)
        except PartCLIPSegError as error:
            # Raised in a worker, it would reach the user as a page of traceback.
            return error
        records = tuple(RecordLabels(s.key, s.part_labels, s.object_labels) for s in samples)
        sizes = () if self._size is None else (self._size,)
        return LabelledPhoto(photo.key, resize_photo(samples[0].image, *sizes), records)


def _samples(dataset: PartDataset, indices: Sequence[int]) -> list[PartSample]:
    """The records of one photo, from one reading of its file."""
    return dataset.samples(indices) if isinstance(dataset, FileDataset) else [dataset[index] for index in indices]


def _leave_interrupts(_: int) -> None:
    """Ctrl-C reaches a worker too: the main process saves what was scored and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
