"""Score parts with their owners: PartPQ and average precision of a model on a data set that tells objects apart.

    scores = evaluate_instances(segmenter, open_dataset("coco", "data/dogs"), "partpq", instances="components")
    scores.all.pq

`evaluate_instances` does all of it. `score_instances` is its loop, for callers that save, stop or show progress.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from partclipseg.data.coco_masks import decode_mask, encode_mask, rle
from partclipseg.data.loader import PartDataset
from partclipseg.data.regions import FoundRegion, PhotoRegions, regions_of_maps
from partclipseg.data.sample import UNLABELLED, PartSample
from partclipseg.data.source import FileDataset
from partclipseg.errors import UsageError
from partclipseg.evaluation.average_precision import ApScores, AveragePrecision, categories_of
from partclipseg.evaluation.choices import METRICS, TRUE_OBJECTS, Metric
from partclipseg.evaluation.partpq import (
    BACKGROUND,
    NOTHING,
    UNKNOWN_PART,
    PanopticClass,
    PanopticMaps,
    PartPQ,
    PartPQScores,
)
from partclipseg.evaluation.photos import PhotoRecords, group_records, load_in_order
from partclipseg.evaluation.state import merge_processes
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.found import FoundObject
from partclipseg.instances.given import GivenObjects
from partclipseg.instances.sources import as_source
from partclipseg.vocabulary import Vocabulary

InstanceCounts = PartPQ | AveragePrecision


@dataclass(frozen=True, eq=False)
class TruePhoto:
    """A photo with its instances."""

    key: str
    path: str
    """Path of the photo's file; its key where it has none."""
    sample: PartSample
    regions: PhotoRegions


def evaluate_instances(
    segmenter: PartSegmenter,
    dataset: PartDataset,
    metric: Metric = "partpq",
    *,
    instances: Any = "components",
    outlines: Any = None,
    rest: bool = False,
    limit: int | None = None,
    batch_size: int = 8,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> PartPQScores | ApScores:
    """Score whose parts a model finds on a data set, in one pass over the photos.

    Args:
        segmenter: the model with its tokenizer.
        dataset: what `open_dataset` gives for data with instances, or a `PartShapesDataset`.
        metric: `partpq` or `ap`.
        instances: what says where objects are, as in a call of the segmenter, or one of `TRUE_OBJECTS`.
        outlines, rest: as in a call of the segmenter.
        limit: score the first photos only, this many. None scores all.
        batch_size, workers, rank, world_size, on_progress: as in `run.evaluate`.

    Returns:
        The scores in percent: `PartPQScores` or `ApScores`.

    Raises:
        UsageError: an unknown metric or source, a number out of range, or labels that tell no objects apart.
        PartCLIPSegError: a file of the data set cannot be read.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1, not {limit}")
    dataset = with_instances(dataset)
    counts = make_counts(dataset, metric)
    share = group_records(dataset)[:limit][rank::world_size]
    done = 0
    for number in score_instances(segmenter, dataset, share, counts, instances, outlines, rest, batch_size, workers):
        done += number
        if on_progress is not None:
            on_progress(done, len(share))
    merge_processes({metric: counts}, world_size)
    return counts.compute()


def with_instances(dataset: PartDataset) -> PartDataset:
    """Return the data set with a record for each photo and with instance maps; raises `UsageError` if it has none."""
    return dataset.with_instances() if isinstance(dataset, FileDataset) else dataset


def make_counts(dataset: PartDataset, metric: Metric) -> InstanceCounts:
    """Create what a data set `with_instances` is counted in. Raises `UsageError` for an unknown metric."""
    if metric not in METRICS:
        raise UsageError(f"unknown metric {metric!r}: choose one of {', '.join(METRICS)}")
    vocabulary = dataset.vocabulary
    if metric == "partpq":
        return PartPQ(panoptic_classes(vocabulary, is_exhaustive(dataset)))
    categories = categories_of(vocabulary)
    seen_parts = set(getattr(dataset, "seen", range(len(vocabulary))))
    seen_objects = {categories[part].object for part in seen_parts}
    seen = [index for index in range(len(categories)) if index in seen_parts or index in seen_objects]
    return AveragePrecision(categories, seen)


def is_exhaustive(dataset: PartDataset) -> bool:
    """Whether all that is not labelled as an object is background: see `Source.exhaustive`."""
    return not isinstance(dataset, FileDataset) or dataset.exhaustive


def score_instances(
    segmenter: PartSegmenter,
    dataset: PartDataset,
    photos: Sequence[PhotoRecords],
    counts: InstanceCounts,
    instances: Any = "components",
    outlines: Any = None,
    rest: bool = False,
    batch_size: int = 8,
    workers: int = 0,
) -> Iterator[int]:
    """Count photos of a data set `with_instances`; yield the number of photos of each batch after counting it.

    The caller may stop between batches, or save the counts. Arguments and errors as in `evaluate_instances`.
    """
    source = instances if isinstance(instances, str) and instances in TRUE_OBJECTS else as_source(instances)
    background = is_exhaustive(dataset)
    for batch in load_in_order(photos, partial(_read_true_photo, dataset), batch_size, workers):
        with torch.inference_mode(), _without_remarks():
            results = segmenter(
                [photo.sample.image for photo in batch],
                dataset.vocabulary,
                instances=_objects(source, batch, dataset.vocabulary),
                outlines=outlines,
                rest=rest,
                min_part_probability=0.0,
                batch_size=batch_size,
            )
        for photo, result in zip(batch, results, strict=True):
            if isinstance(counts, PartPQ):
                truth = true_maps(photo.sample, dataset.vocabulary, background)
                counts.update(truth, predicted_maps(result, background), photo.key)
            else:
                counts.update(photo.regions, found_regions(result), photo.key)
        yield len(batch)


# -- truth and prediction -- ------------------------------------------------------------------------------------------


def panoptic_classes(vocabulary: Vocabulary, background: bool) -> list[PanopticClass]:
    """Return the classes of PartPQ: the objects, with parts where they have more than one, and perhaps the background.

    The public evaluator too takes an object with a single part for one without parts.
    """
    words = vocabulary.to_dict()
    classes = [PanopticClass(word, parts=len(words[word]) > 1) for word in vocabulary.objects]
    return [*classes, PanopticClass(BACKGROUND, thing=False)] if background else classes


def true_maps(sample: PartSample, vocabulary: Vocabulary, background: bool) -> PanopticMaps:
    """Return the truth of a sample with an instance map, for `panoptic_classes`.

    Objects outside the vocabulary are void, and so is all that is no object, unless the background is a class.
    """
    assert sample.instances is not None
    outside = len(vocabulary.objects) if background else NOTHING
    objects = sample.object_labels
    classes = np.where(objects >= 0, objects, np.where(objects == UNLABELLED, outside, NOTHING))
    instances = np.where(objects >= 0, sample.instances, NOTHING)
    return PanopticMaps(classes, instances, _part_places(vocabulary, NOTHING)[sample.part_labels])


def predicted_maps(result: PartResult, background: bool) -> PanopticMaps:
    """Return the maps of a result with instances, for `panoptic_classes`; what has no owner is background."""
    assert result.instance_map is not None
    owned = result.instance_map >= 0
    outside = len(result.vocabulary.objects) if background else NOTHING
    parts = _part_places(result.vocabulary, UNKNOWN_PART)[result.label_map]
    return PanopticMaps(
        np.where(owned, result.object_map, outside),
        np.where(owned, result.instance_map, 0 if background else NOTHING),
        np.where(owned, parts, NOTHING),
    )


def found_regions(result: PartResult) -> list[FoundRegion]:
    """Return the objects of a result and their parts; the score of a part is its own times that of its object."""
    assert result.instance_map is not None
    assert result.instance_scores is not None
    classes = len(result.vocabulary)
    regions = []
    for index, instance in enumerate(result.instances):
        inside = result.instance_map == index
        if not inside.any():
            continue
        regions.append(FoundRegion(classes + instance.index, encode_mask(inside), float(instance.score)))
        labels = result.label_map[inside]
        for part in np.unique(labels[labels >= 0]).tolist():
            score = float(instance.score) * float(result.instance_scores[index, part])
            regions.append(FoundRegion(part, encode_mask(inside & (result.label_map == part)), score))
    return regions


def true_objects(photo: TruePhoto, vocabulary: Vocabulary, masks: bool) -> list[FoundObject]:
    """Return the objects of the labels that are no crowd, with their masks or with their boxes alone."""
    found = []
    size = photo.sample.image.shape[0], photo.sample.image.shape[1]
    for region in photo.regions.regions:
        if region.label < len(vocabulary) or region.crowd or not isinstance(region.region, dict):
            continue
        word = vocabulary.objects[region.label - len(vocabulary)]
        if masks:
            found.append(FoundObject.from_mask(word, decode_mask(region.region, size)))
        else:
            x, y, width, height = map(float, rle.toBbox(region.region))
            found.append(FoundObject(word, (x, y, width, height)))
    return found


def _objects(source: Any, photos: Sequence[TruePhoto], vocabulary: Vocabulary) -> Any:
    """Return the argument `instances` of the segmenter for a batch of photos."""
    if isinstance(source, str) and source in TRUE_OBJECTS:
        return [true_objects(photo, vocabulary, source == "true-masks") for photo in photos]
    if isinstance(source, GivenObjects):
        sizes = ((photo.sample.image.shape[0], photo.sample.image.shape[1]) for photo in photos)
        return [source.of(photo.path, size, vocabulary) for photo, size in zip(photos, sizes, strict=True)]
    return source


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Leave out remarks about objects in which no pixel was found: they are missed, which the scores tell."""
    remarks = logging.getLogger("partclipseg.instances.owners")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        yield
    finally:
        remarks.setLevel(level)


def _part_places(vocabulary: Vocabulary, none: int) -> np.ndarray:
    """Return the place of each class among the parts of its object, int32 `[N_c + 1]`; the last, for -1, is `none`."""
    return np.append(vocabulary.class_to_place, none).astype(np.int32)


def _read_true_photo(dataset: PartDataset, photo: PhotoRecords) -> TruePhoto:
    [index] = photo.indices
    sample = dataset[index]
    if sample.instances is None:
        raise UsageError(
            "the samples have no instance map, so there is nothing to tell objects apart by: open the data by "
            "with_instances()"
        )
    if isinstance(dataset, FileDataset):
        path = str(dataset.records[index].photo.path)
        return TruePhoto(photo.key, path, sample, dataset.regions(index, sample))
    maps = (sample.part_labels, sample.object_labels, sample.instances)
    return TruePhoto(photo.key, photo.key, sample, regions_of_maps(*maps, len(dataset.vocabulary)))
