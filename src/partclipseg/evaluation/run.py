"""Score a model on a data set in one pass: each photo goes through the model once, for all protocols.

    scores = evaluate(segmenter, open_dataset("pascal-part-116", "data/PascalPart116"), ["pred_all"])
    scores["pred_all"].harmonic.iou

`evaluate` does all of it. `score_photos` is its loop, for callers that save, stop or show the present scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from partclipseg.data.loader import PartDataset
from partclipseg.data.sample import UNLABELLED, objects_in
from partclipseg.errors import UsageError
from partclipseg.evaluation.choices import ALL_PROTOCOLS, PROTOCOLS, BoundaryKind, Protocol, Rule
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.photos import EvaluationPhoto, PhotoRecords, RecordLabels, group_records, read_batches
from partclipseg.evaluation.resized_labels import label_size
from partclipseg.evaluation.scores import Scores
from partclipseg.evaluation.state import Counts, merge_processes
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.vocabulary import Vocabulary

Evaluators = Mapping[Protocol, Evaluator]


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
