"""The evaluator: compares label maps with labels and computes the scores of one protocol.

    evaluator = Evaluator(vocabulary, seen=[0, 1, 4], protocol="pred_all")
    for sample in samples:
        evaluator.update(prediction, sample.part_labels, sample.object_labels, key=sample.key)
    scores = evaluator.compute()

Protocols (`region_counts` says what each one counts):

- `oracle_obj`: the objects of the photo are known to the model; only labelled pixels count.
- `pred_all`: nothing is known to the model; only labelled pixels count, as in the published figures.
- `strict`: nothing is known to the model and the whole photo counts: a part predicted on the background is an
  error. Pixels of an object that no part label covers stay ignored, since their part is unknown.
- `predicted_objects`: parts of predicted objects. The model finds the objects, and at each pixel the parts of the
  object that it found there compete without background, as in `oracle_obj`; pixels where it found none are left out.
  It is not OV-PARTS' Pred-Obj, whose object masks and cost of a missed object are not published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from partclipseg.counts import count_of
from partclipseg.data.sample import UNLABELLED
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.boundary import boundary_maps
from partclipseg.evaluation.choices import (
    ALL_PROTOCOLS,
    BOUNDARY_KINDS,
    RULES,
    WITHIN_OBJECTS,
    BoundaryKind,
    Protocol,
    Rule,
)
from partclipseg.evaluation.confusion import ConfusionMatrix, count_pixels
from partclipseg.evaluation.resized_labels import LABELS, ov_parts_size, resize_there_and_back
from partclipseg.evaluation.scores import Scores, compute_scores, region_counts
from partclipseg.vocabulary import Vocabulary

IndexMap = np.ndarray | torch.Tensor

_MAX_CLASSES = 2**15 - 2
"""Maximum number of classes: maps are stored in 16 bits, which halves the time of the boundaries."""


class Evaluator:
    """Counts pixels of predictions against labels; every record counts once, in whichever process.

    Args:
        vocabulary: the classes, in the order of the indices of the maps; anything that `Vocabulary.load` takes.
        seen: the classes that the model was trained on, by index or name; all others are unseen. None: all seen.
        protocol: `oracle_obj`, `pred_all`, `strict` or `predicted_objects`.
        boundary: `per_class`, `reference` or None (no Boundary IoU); see `boundary_maps`.
        small_part_area: a part is small below this share of the photo; see `SmallPartScores`.
        rule: the classes that the mIoU of a set is averaged over, see `scores.mean_iou`; `strict` has the first only.
            With `ov-parts` the labels of `WITHIN_OBJECTS`, with `partcatseg` those of all protocols but `strict` are
            resized as that evaluator does, before they are counted.

    Raises:
        UsageError: an unknown protocol, boundary, rule or seen class, or too many classes: 32,766, and 255 for the
            reference boundary, whose maps have 8 bits.
    """

    def __init__(
        self,
        vocabulary: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str,
        seen: Iterable[int | str] | None = None,
        protocol: Protocol = "pred_all",
        boundary: BoundaryKind | None = "per_class",
        small_part_area: float = 0.005,
        rule: Rule = "partclipseg",
    ) -> None:
        self.vocabulary = Vocabulary.load(vocabulary).with_objects("evaluation")
        if protocol not in ALL_PROTOCOLS:
            raise UsageError(f"unknown protocol {protocol!r}: choose one of {', '.join(ALL_PROTOCOLS)}")
        if boundary is not None and boundary not in BOUNDARY_KINDS:
            raise UsageError(f"unknown boundary {boundary!r}: choose one of {', '.join(BOUNDARY_KINDS)}")
        if rule not in RULES:
            raise UsageError(f"unknown rule {rule!r}: choose one of {', '.join(RULES)}")
        if len(self.vocabulary) > _MAX_CLASSES:
            raise UsageError(f"{len(self.vocabulary)} classes are too many to score: use at most {_MAX_CLASSES}")
        if boundary == "reference" and len(self.vocabulary) > 255:
            raise UsageError("the reference boundary holds at most 255 classes: choose boundary='per_class'")
        if not 0 <= small_part_area <= 1:
            raise UsageError(f"small_part_area is a share of the photo, from 0 to 1, not {small_part_area}")
        self.seen = _seen_indices(seen, self.vocabulary)
        self.protocol: Protocol = protocol
        self.boundary: BoundaryKind | None = boundary
        self.small_part_area = small_part_area
        self.rule: Rule = rule
        self.regions = ConfusionMatrix(len(self.vocabulary) + 1)
        self.boundaries = ConfusionMatrix(len(self.vocabulary) + 1)

    def __len__(self) -> int:
        """Return the number of records counted."""
        return len(self.regions)

    def __contains__(self, key: str) -> bool:
        return key in self.regions

    def update(
        self,
        prediction: IndexMap,
        labels: IndexMap,
        object_labels: IndexMap | None = None,
        key: str | None = None,
        label_size: tuple[int, int] | None = None,
    ) -> bool:
        """Count one record, on the device of `prediction`.

        Args:
            prediction: integers `[H, W]`: class index, or -1 for background.
            labels: integers `[H, W]`: class index, or -1 where no part is labelled.
            object_labels: integers `[H, W]`, as in `PartSample`; negative only where there is no object. Needed
                by `strict`.
            key: name of the record. Without one, every call counts.
            label_size: height and width to which the rules `ov-parts` and `partcatseg` resize the labels, and from
                there back: those of the photo as the model first resizes it, see `resized_labels.label_size`. None is
                `resized_labels.ov_parts_size` with `ov-parts`, and no resizing with `partcatseg`.

        Returns:
            False, and nothing is counted, if the key was counted before.

        Raises:
            PartCLIPSegError: maps of different sizes, or values that are no class.
        """
        key = uuid4().hex if key is None else key
        if key in self:
            return False
        predicted = self._index_map(prediction, "prediction")
        labelled = self._index_map(labels, "labels", like=predicted)
        if self._resizes_labels:
            usual = ov_parts_size(labelled.shape) if self.rule == "ov-parts" else (labelled.shape[0], labelled.shape[1])
            labelled = resize_there_and_back(labelled, label_size or usual)
        ignored = labelled == UNLABELLED
        if self.protocol == "strict":
            if object_labels is None:
                raise PartCLIPSegError(
                    "the strict protocol needs object_labels, to tell background from objects: pass them to update"
                )
            objects = _integers(object_labels, "object_labels", like=predicted)
            # An object outside the vocabulary may show parts of the vocabulary: their labels are unknown.
            ignored = ignored & (objects != UNLABELLED)
        background = len(self.vocabulary)
        predicted = predicted.masked_fill(ignored | (predicted == UNLABELLED), background)
        labelled = labelled.masked_fill(labelled == UNLABELLED, background)
        if self.boundary is not None:
            maps = boundary_maps(torch.stack((predicted, labelled)), self.boundary, background)
            self.boundaries.add(key, count_pixels(maps[0], maps[1], background + 1))
        return self.regions.add(key, count_pixels(predicted, labelled, background + 1))

    def merge(self, other: Evaluator) -> None:
        """Add the records of another evaluator that are not counted here yet.

        Raises `PartCLIPSegError` if its options differ or a record has other counts there.
        """
        self._check_options(other._options(), "the scores to merge")
        self.regions.merge(other.regions)
        self.boundaries.merge(other.boundaries)

    def compute(self) -> Scores:
        """Compute the scores of the records counted so far."""
        return compute_scores(
            self.regions,
            self.boundaries if self.boundary else None,
            protocol=self.protocol,
            boundary=self.boundary,
            names=self.vocabulary.names,
            seen=self.seen,
            small_part_area=self.small_part_area,
            rule=self.rule,
        )

    def running_iou(self) -> float:
        """Return the mean IoU in percent over the classes labelled so far: cheap, for a progress display."""
        return _labelled_iou(self.regions.total, self.protocol)

    def record_iou(self, key: str) -> float:
        """Return the mean IoU in percent of one record over its labelled classes; NaN without labels."""
        return _labelled_iou(self.regions.record(key), self.protocol)

    def state_dict(self) -> dict[str, Any]:
        """Return all counts, as tensors and plain values for `torch.save`."""
        return {
            "options": self._options(),
            "regions": self.regions.state_dict(),
            "boundaries": self.boundaries.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the counts by those of `state_dict`; raises `PartCLIPSegError` naming options that differ."""
        self.regions, self.boundaries = self._read_state(state)

    def merge_state_dict(self, state: Mapping[str, Any]) -> None:
        """Merge an evaluator that is given by its `state_dict`, such as that of another process."""
        regions, boundaries = self._read_state(state)
        self.regions.merge(regions)
        self.boundaries.merge(boundaries)

    def _read_state(self, state: Mapping[str, Any]) -> tuple[ConfusionMatrix, ConfusionMatrix]:
        self._check_options(state["options"], "the saved scores")
        return ConfusionMatrix.from_state_dict(state["regions"]), ConfusionMatrix.from_state_dict(state["boundaries"])

    def _options(self) -> dict[str, Any]:
        return {
            "classes": list(self.vocabulary.names),
            "seen": sorted(self.seen),
            "protocol": self.protocol,
            "boundary": self.boundary,
            "small_part_area": self.small_part_area,
            **({"labels": LABELS[self.rule]} if self._resizes_labels else {}),
        }

    @property
    def _resizes_labels(self) -> bool:
        if self.rule == "partcatseg":
            return self.protocol != "strict"
        return self.rule == "ov-parts" and self.protocol in WITHIN_OBJECTS

    def _check_options(self, options: Mapping[str, Any], what: str) -> None:
        own = self._options()
        if different := [name for name in {**own, **options} if options.get(name) != own.get(name)]:
            raise PartCLIPSegError(
                f"{what} were made with other options ({', '.join(different)}): take scores of one evaluation"
            )

    def _index_map(self, values: IndexMap, what: str, like: torch.Tensor | None = None) -> torch.Tensor:
        """Return int16 `[H, W]`; raise unless every value is a class or `UNLABELLED`."""
        index_map = _integers(values, what, like)
        lowest, highest = torch.stack(torch.aminmax(index_map)).tolist()
        if lowest < UNLABELLED or highest >= len(self.vocabulary):
            wrong = lowest if lowest < UNLABELLED else highest
            raise PartCLIPSegError(
                f"{what}: the value {wrong} is no class; the vocabulary has the classes 0 to "
                f"{len(self.vocabulary) - 1}, and -1 means none"
            )
        return index_map.to(torch.int16)


def _integers(values: IndexMap, what: str, like: torch.Tensor | None = None) -> torch.Tensor:
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values if values.flags.writeable else values.copy())
    if values.ndim != 2 or values.numel() == 0 or values.is_floating_point() or values.dtype == torch.bool:
        raise PartCLIPSegError(
            f"{what} must be a map of integers [H, W], not {values.dtype} {list(values.shape)}"
        )
    if like is not None and values.shape != like.shape:
        raise PartCLIPSegError(
            f"{what} has the size {list(values.shape)}, the prediction {list(like.shape)}: "
            "bring the prediction to the size of the photo"
        )
    return values if like is None else values.to(like.device)


def _labelled_iou(matrix: np.ndarray, protocol: Protocol) -> float:
    counts = region_counts(matrix, protocol)
    values = counts.iou()[counts.labelled > 0]
    return float(values.mean()) if len(values) else float("nan")


def _seen_indices(seen: Iterable[int | str] | None, vocabulary: Vocabulary) -> frozenset[int]:
    if seen is None:
        return frozenset(range(len(vocabulary)))
    index_of = {name: index for index, name in enumerate(vocabulary.names)}
    indices = {index_of.get(item, -1) if isinstance(item, str) else int(item): item for item in seen}
    for index, item in indices.items():
        if not 0 <= index < len(vocabulary):
            classes = count_of(len(vocabulary), "class")
            raise UsageError(f"the seen class {item!r} is not in the vocabulary of {classes}")
    return frozenset(indices)
