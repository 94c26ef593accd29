"""Results from the manifest's records: as the model made them, or with a person's label map in their place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from partclipseg.apps.label.job import BulkJob, ManifestRecord
from partclipseg.data.coco_masks import paint_masks
from partclipseg.data.sample import label_areas
from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.segment import Instance, counted
from partclipseg.inference.result import PartResult


def label_map(record: ManifestRecord) -> np.ndarray:
    """Decode a done record as int32 `[H, W]`: class index, background -1. Raises `PartCLIPSegError` if damaged."""
    segments = record["segments"]
    return _painted(record, [segment["index"] for segment in segments], [segment["rle"] for segment in segments])


def _painted(record: ManifestRecord, labels: list[int], masks: list[Any]) -> np.ndarray:
    try:
        return paint_masks(labels, masks, (record["height"], record["width"]))
    except PartCLIPSegError:
        raise PartCLIPSegError(
            f"the masks of {record['photo']} in the manifest are damaged: delete its line, and the photo is labelled "
            "again"
        ) from None


def recorded_result(job: BulkJob, record: ManifestRecord) -> PartResult:
    """Return the result that a done record was made from; its drafts are identical to the byte."""
    labels = label_map(record)
    scores = np.zeros(len(job.vocabulary), np.float32)
    for segment in record["segments"]:
        scores[segment["index"]] = segment["score"]
    made = result_of_map(job, record["photo"], labels, scores)
    if "instances" not in record:
        return made
    instances, owner = recorded_instances(record)
    owned = np.zeros((len(instances) + 1, len(job.vocabulary)), np.float32)
    for segment in record["segments"]:
        row = -1 if segment["instance"] is None else segment["instance"] - 1
        owned[row, segment["index"]] = segment["score"]
    return with_owners(made, owner, instances, owned)


def corrected_result(job: BulkJob, record: ManifestRecord, labels: np.ndarray) -> PartResult:
    """Make a result from a person's label map int32 `[H, W]`, background -1; each class found has the score 1.

    `record` is that of the draft, whose instances keep their pixels as far as they are still of the same object. Pixels
    that the person added belong to the instance of their object in whose box they lie most centrally.
    """
    scores = label_areas(labels, len(job.vocabulary)) > 0
    made = result_of_map(job, record["photo"], labels, scores.astype(np.float32))
    if "instances" not in record:
        return made
    instances, before = recorded_instances(record)
    objects = np.append(np.array([instance.index for instance in instances], np.int32), -1)  # index -1 reads the last
    kept = np.where(labels < 0, label_map(record) < 0, made.object_map == objects[before])
    owner = np.where(kept, before, np.int32(-1)).astype(np.int32)
    free = (owner < 0) & (made.object_map >= 0)
    nearest = np.full(labels.shape, np.inf, np.float32)
    for place, instance in enumerate(instances):
        distance = _distance(instance.found, labels.shape)
        taken = free & (made.object_map == instance.index) & (distance < nearest)
        owner[taken], nearest[taken] = place, distance[taken]
    return with_owners(made, owner, instances, np.ones((len(instances) + 1, len(job.vocabulary)), np.float32))


_IN_BOX = 0.6
"""Maximum distance of a pixel from the middle of an instance's box, as a share of each side: with some margin."""


def _distance(box: tuple[float, float, float, float], size: tuple[int, ...]) -> np.ndarray:
    """Return the distance of each pixel from the middle of a box, as a share of its sides, float32 `[H, W]`.

    It is infinite for pixels outside of the box.
    """
    x, y, width, height = box
    down = np.abs(np.arange(size[0]) + 0.5 - y - height / 2) / max(height, 1e-6)
    across = np.abs(np.arange(size[1]) + 0.5 - x - width / 2) / max(width, 1e-6)
    distance = np.hypot(down[:, None], across[None])
    distance[(down > _IN_BOX)[:, None] | (across > _IN_BOX)[None]] = np.inf
    return distance.astype(np.float32)


def recorded_instances(record: ManifestRecord) -> tuple[list[Instance], np.ndarray]:
    """Decode the instances of a done record, and the index of the owner of each pixel, int32 `[H, W]`, -1 none."""
    entries = record["instances"]
    instances = [
        Instance(
            *(entry[name] for name in ("number", "object", "index", "score", "area")),
            box=tuple(entry["box"]),
            found=tuple(entry["found"]),
            source=entry["source"],
        )
        for entry in entries
    ]
    owner = _painted(record, list(range(len(entries))), [entry["rle"] for entry in entries])
    return instances, owner


def with_owners(
    result: PartResult, owner: np.ndarray, instances: Iterable[Instance], scores: np.ndarray
) -> PartResult:
    """Return the result with instances; pixels of an owner without a part are pixels of its object.

    `owner` is the index of each pixel's owner, int32 `[H, W]`; `scores` are float32 `[n + 1, N_c]`.
    """
    found = counted(instances, owner)
    objects = np.append(np.array([instance.index for instance in found], np.int32), -1)[owner]
    object_map = np.where(owner >= 0, objects, result.object_map).astype(np.int32)
    return replace(result, object_map=object_map, instance_map=owner, instances=found, instance_scores=scores)


def result_of_map(job: BulkJob, name: str, labels: np.ndarray, scores: np.ndarray) -> PartResult:
    """Make a result from a label map int32 `[H, W]`, background -1, and a score for each class, float32 `[N_c]`."""
    vocabulary = job.vocabulary
    owners = np.full(len(vocabulary) + 1, -1, np.int32)  # label -1 reads the last entry
    owners[: len(vocabulary.object_parts)] = vocabulary.class_to_object
    return PartResult(labels, owners[labels], scores, vocabulary, None, name)
