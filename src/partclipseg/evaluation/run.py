"""Score a model on a data set in one pass: each photo goes through the model once, for all protocols.

    scores = evaluate(segmenter, open_dataset("pascal-part-116", "data/PascalPart116"), ["pred_all"])
    scores["pred_all"].harmonic.iou

`evaluate` does all of it. `score_photos` is its loop, for callers that save, stop or show the present scores.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from partclipseg.data.augment import resize_photo
from partclipseg.data.loader import PartDataset
from partclipseg.data.sample import UNLABELLED, objects_in
from partclipseg.data.source import FileDataset
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.choices import ALL_PROTOCOLS, PROTOCOLS, BoundaryKind, Protocol, Rule
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.resized_labels import label_size
from partclipseg.evaluation.scores import Scores
from partclipseg.evaluation.state import Counts, merge_processes
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.vocabulary import Vocabulary

Evaluators = Mapping[Protocol, Evaluator]

RECORD_PROTOCOLS: tuple[Protocol, ...] = ("oracle_obj", "pred_all", "predicted_objects")
"""Protocols that count each record of a photo; all others, and metrics of instances, count the photo once."""


class PhotoRecords(NamedTuple):
    """A photo of a data set, with the indices and keys of its records."""

    key: str
    indices: tuple[int, ...]
    record_keys: tuple[str, ...]

    def keys(self, protocol: str) -> tuple[str, ...]:
        """Return the keys under which an evaluator of `protocol` counts the photo: see `predict`."""
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


class Prediction(NamedTuple):
    """Prediction and labels that one protocol compares."""

    protocol: Protocol
    label_map: torch.Tensor
    """int64 `[H, W]`: class index or -1, on the device of the model."""
    labels: RecordLabels


def evaluate(
    segmenter: PartSegmenter,
    dataset: PartDataset,
    protocols: Iterable[Protocol] | Protocol = PROTOCOLS,
    *,
    seen: Iterable[int | str] | None = None,
    boundary: BoundaryKind | None = "per_class",
    limit: int | None = None,
    zoom: bool = False,
    batch_size: int = 8,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[Protocol, Scores]:
    """Score a model on a data set, in one pass over the photos.

        scores = partclipseg.evaluate(segmenter, partclipseg.open_dataset("coco", "data/cars"), ["pred_all"])
        scores["pred_all"].all.iou

    The model is asked for the data set's vocabulary, not the segmenter's own. Photos are scored at their own size.

    Args:
        segmenter: the model with its tokenizer.
        dataset: what `open_dataset` gives, a `PartShapesDataset`, or anything else with a vocabulary, a length and
            `PartSample`s.
        protocols: one or several of `oracle_obj`, `pred_all`, `strict` and `predicted_objects`; see `Evaluator`.
        seen: the classes that the model was trained on, by index or name. None takes those that the data set names
            (``dataset.seen``), or all of them.
        boundary: `per_class`, `reference` or None (no Boundary IoU); see `boundary_maps`.
        limit: score the first photos only, this many. None scores all.
        zoom: look at small objects a second time; see `inference.zoom`.
        batch_size: number of photos that go through the model together.
        workers: number of processes that read photos ahead; 0 reads them in this one.
        rank, world_size: place of this process among those that share the photos, which have a
            `torch.distributed` process group; every process returns the scores of all photos.
        on_progress: called after each batch with the number of photos done and to do in this process.

    Returns:
        The scores of each protocol, in percent.

    Raises:
        UsageError: an unknown protocol, boundary or seen class, or a number out of range.
        PartCLIPSegError: a file of the data set cannot be read.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1, not {limit}")
    evaluators = make_evaluators(dataset, protocols, seen, boundary)
    share = group_records(dataset)[:limit][rank::world_size]
    done = 0
    for number in score_photos(segmenter, dataset, share, evaluators, zoom, batch_size, workers):
        done += number
        if on_progress is not None:
            on_progress(done, len(share))
    merge_processes(evaluators, world_size)
    return {protocol: evaluator.compute() for protocol, evaluator in evaluators.items()}


def make_evaluators(
    dataset: PartDataset,
    protocols: Iterable[Protocol] | Protocol = PROTOCOLS,
    seen: Iterable[int | str] | None = None,
    boundary: BoundaryKind | None = "per_class",
    rule: Rule = "partclipseg",
) -> dict[Protocol, Evaluator]:
    """Create an evaluator for each protocol; arguments and errors as in `evaluate`."""
    names: list[Protocol] = [protocols] if isinstance(protocols, str) else list(protocols)  # pyright: ignore
    if not names:
        raise UsageError(f"no protocol is named: choose from {', '.join(ALL_PROTOCOLS)}")
    seen = getattr(dataset, "seen", None) if seen is None else list(seen)
    return {name: Evaluator(dataset.vocabulary, seen, name, boundary, rule=rule) for name in names}


def score_photos(
    segmenter: PartSegmenter,
    dataset: PartDataset,
    photos: Sequence[PhotoRecords],
    evaluators: Evaluators,
    zoom: bool = False,
    batch_size: int = 8,
    workers: int = 0,
) -> Iterator[int]:
    """Count photos of a data set in the evaluators; yield the number of photos of each batch after counting it.

    The caller may stop between batches, or save the evaluators. Arguments and errors as in `evaluate`.
    """
    shape = None if zoom else segmenter.model.ahead_shape
    for batch in read_batches(dataset, photos, shape, batch_size, workers):
        score(segmenter, dataset.vocabulary, batch, evaluators, zoom)
        yield len(batch)


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


def predict(
    segmenter: PartSegmenter,
    vocabulary: Vocabulary,
    photos: Sequence[EvaluationPhoto],
    protocols: Iterable[Protocol],
    zoom: bool = False,
) -> Iterator[Prediction]:
    """Yield every prediction of a batch of photos, from pruned decoding, once for all protocols without given objects.

    `strict` yields one prediction for each photo, with the labels of all its records: background that belongs to
    several records must not count several times. All other protocols yield one for each record. With `zoom` the photos,
    of their own size, are looked at a second time.
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
        if "predicted_objects" in protocols:
            for row, (photo, found) in enumerate(zip(photos, maps, strict=True)):
                single = {name: value[row : row + 1] for name, value in inputs.items()}
                label_map = parts_of_objects(segmenter, vocabulary, single, found.object_map)
                yield from (Prediction("predicted_objects", label_map, record) for record in photo.records)
    if "oracle_obj" in protocols:
        rows, records = zip(*((row, r) for row, photo in enumerate(photos) for r in photo.records), strict=True)
        present = [objects_in(record.object_labels) for record in records]
        sizes = [record.part_labels.shape for record in records]
        chosen = {name: value[list(rows)] for name, value in inputs.items()}
        if segmenter.model.takes_object_masks:
            inside = (torch.from_numpy(record.object_labels >= 0) for record in records)
            chosen = segmenter.model.with_object_masks(chosen, list(inside))
        maps = segmenter.label_maps(chosen, vocabulary, sizes, present)
        if zoom:
            maps = segmenter.look_again([images[row] for row in rows], maps, vocabulary, present)
        for record, found in zip(records, maps, strict=True):
            yield Prediction("oracle_obj", found.label_map, record)


def parts_of_objects(
    segmenter: PartSegmenter, vocabulary: Vocabulary, inputs: Mapping[str, torch.Tensor], object_map: torch.Tensor
) -> torch.Tensor:
    """Let the parts of the object at each pixel compete, without background.

    Args:
        segmenter, vocabulary: the model and its words.
        inputs: one prepared photo.
        object_map: int64 `[H, W]`: index of the object, -1 where there is none.

    Returns:
        int64 `[H, W]`: index of the object-part, -1 where there is no object.
    """
    label_map = torch.full_like(object_map, UNLABELLED)
    size = (object_map.shape[0], object_map.shape[1])
    for index in object_map.unique().tolist():
        if index >= 0:
            if segmenter.model.takes_object_masks:
                inputs = segmenter.model.with_object_masks(inputs, [object_map == index])
            (parts,) = segmenter.label_maps(inputs, vocabulary, [size], [[index]])
            label_map = torch.where(object_map == index, parts.label_map, label_map)
    return label_map


def score(
    segmenter: PartSegmenter,
    vocabulary: Vocabulary,
    photos: Sequence[EvaluationPhoto],
    evaluators: Evaluators,
    zoom: bool = False,
) -> None:
    """Count a batch of photos in the evaluators, `zoom` as in `predict`."""
    with torch.inference_mode():
        for protocol, label_map, (key, parts, objects) in predict(segmenter, vocabulary, photos, evaluators, zoom):
            evaluators[protocol].update(label_map, parts, objects, key, label_size(segmenter.model, parts.shape))


def is_scored(photo: PhotoRecords, evaluators: Mapping[Any, Counts]) -> bool:
    """Whether every evaluator has counted the photo."""
    return all(key in evaluator for protocol, evaluator in evaluators.items() for key in photo.keys(protocol))


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
