"""Compute scores from confusion counts: the pixels that each protocol counts, and the classes that a mean includes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from partclipseg.evaluation.choices import RULES, WITHIN_OBJECTS, BoundaryKind, Protocol, Rule
from partclipseg.evaluation.confusion import ConfusionMatrix


@dataclass(frozen=True)
class SetScores:
    """Scores of a set of classes, in percent; NaN where undefined."""

    iou: float
    """Mean over classes of intersection over union: mIoU."""
    recall: float
    """Mean over classes of the share of labelled pixels that were found; also called mACC."""
    pixel_accuracy: float
    """Share of all pixels labelled with one of the classes that were found: pAcc."""
    boundary_iou: float
    """Mean over classes of the intersection over union of the pixels near contours."""


@dataclass(frozen=True)
class SmallPartScores:
    """Scores over small parts only, in percent.

    A *small part* is the pixels of one class in one record, if they are fewer than `area` of the record's pixels.
    For each class, true positives, labels and predictions are summed over the records where it is small; the
    means are over the classes that are small somewhere.
    """

    area: float
    """Upper limit (excluded) of a small part's area, as a share of the photo."""
    parts: int
    """Number of small parts."""
    iou: float
    recall: float


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, in percent; NaN where undefined."""

    name: str
    seen: bool
    iou: float
    recall: float
    boundary_iou: float
    pixels: int
    """Labelled pixels over all records."""


@dataclass(frozen=True)
class RuleScores:
    """mIoU by one rule of averaging, in percent; NaN where nothing defines it."""

    rule: Rule
    all: float
    seen: float
    unseen: float
    harmonic: float


@dataclass(frozen=True)
class Scores:
    """Result of an `Evaluator`, in percent; NaN where a score is undefined."""

    protocol: Protocol
    boundary: BoundaryKind | None
    records: int
    all: SetScores
    seen: SetScores
    unseen: SetScores
    harmonic: SetScores
    """Harmonic mean of `seen` and `unseen`, score by score."""
    frequency_weighted_iou: float
    """Mean of the classes' IoU, weighted by their labelled pixels: fwIoU."""
    small_parts: SmallPartScores
    classes: tuple[ClassScores, ...]
    """Scores of each class, in the order of the vocabulary."""
    rule: Rule = "partclipseg"
    """The rule by which the mIoU of the sets is averaged."""
    rules: tuple[RuleScores, ...] = ()
    """mIoU by every rule; empty for `strict`, which has no published rule but this project's."""
    left_out: float = 0.0
    """Share of the labelled pixels that count nowhere, as no object was predicted there: `predicted_objects` only."""

    @property
    def has_truth(self) -> bool:
        """Whether any pixel is labelled with a class; without one no score means anything."""
        return any(item.pixels for item in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; None in place of NaN."""
        return without_nan(asdict(self))


class ClassCounts(NamedTuple):
    """Pixels of each class: int64 `[n]` each, n = number of classes, or one more for the background."""

    correct: np.ndarray
    labelled: np.ndarray
    predicted: np.ndarray

    def iou(self) -> np.ndarray:
        """Return the IoU in percent, float64 `[n]`; NaN for a class that is neither labelled nor predicted."""
        return percent(self.correct, self.labelled + self.predicted - self.correct)

    def recall(self) -> np.ndarray:
        """Return the recall in percent, float64 `[n]`; NaN for a class that is not labelled."""
        return percent(self.correct, self.labelled)


def region_counts(matrix: np.ndarray, protocol: Protocol) -> ClassCounts:
    """Count the pixels of a confusion matrix as a protocol does.

    Args:
        matrix: int64 `[K + 1, K + 1]`, row = prediction, column = label, index K = background. Ignored pixels
            stand in element `[K, K]`.
        protocol: `oracle_obj` and `predicted_objects` drop the background's row and column; `pred_all` drops its
            column, so that predictions outside the labels cost nothing, and keeps the background as class K
            (labelled nowhere); `strict` counts everything, and scores the K classes.
    """
    background = len(matrix) - 1
    if protocol in WITHIN_OBJECTS:
        return _counts(matrix[:background, :background])
    if protocol == "pred_all":
        matrix = matrix.copy()
        matrix[:, background] = 0
        return _counts(matrix)
    return _first(_counts(matrix), background)


def boundary_counts(matrix: np.ndarray, protocol: Protocol, kind: BoundaryKind) -> ClassCounts:
    """Count the pixels of a confusion matrix of boundary maps, int64 `[K + 1, K + 1]`.

    `per_class` scores the K classes against everything; `reference` follows the published evaluation, which
    counts everything in `pred_all`, the background as a class of its own too.
    """
    background = len(matrix) - 1
    if kind == "per_class":
        return _first(_counts(matrix), background)
    return _counts(matrix[:background, :background] if protocol in WITHIN_OBJECTS else matrix)


def mean_iou(counts: ClassCounts, members: np.ndarray, rule: Rule) -> float:
    """Compute the mIoU in percent of the classes `members`, bool `[n]`, by a rule; NaN where it averages over no class.

    - `partclipseg`: over the classes with labels.
    - `partcatseg`: over the classes with an IoU above 0, as the evaluators of PartCATSeg and HOPS do. They resize the
      labels of all protocols before they are counted, see `resized_labels`.
    - `ov-parts`: the sum over the classes with labels, divided by the number of those labelled *or predicted*. The
      evaluator resizes the labels of Oracle-Obj before they are counted, see `resized_labels`.
    """
    iou, labelled = counts.iou(), counts.labelled > 0
    if rule == "partcatseg":
        return _mean(iou[members & (counts.correct > 0)])
    if rule == "ov-parts":
        known = members & (labelled | (counts.predicted > 0))
        return float(iou[members & labelled].sum() / known.sum()) if known.any() else math.nan
    return _mean(iou[members & labelled])


def compute_scores(
    regions: ConfusionMatrix,
    boundaries: ConfusionMatrix | None,
    *,
    protocol: Protocol,
    boundary: BoundaryKind | None,
    names: tuple[str, ...],
    seen: frozenset[int],
    small_part_area: float,
    rule: Rule = "partclipseg",
) -> Scores:
    """Compute all scores of the records in `regions` (of whole parts) and `boundaries` (of their boundary maps)."""
    counts = region_counts(regions.total, protocol)
    is_seen = np.isin(np.arange(len(counts.labelled)), list(seen))
    iou, recall, has_labels = counts.iou(), counts.recall(), counts.labelled > 0
    if protocol in WITHIN_OBJECTS:
        iou[~has_labels] = math.nan
    boundary_iou = np.full(len(iou), math.nan)
    if boundaries is not None and boundary is not None:
        values = boundary_counts(boundaries.total, protocol, boundary).iou()
        boundary_iou[: len(values)] = values
    # The published evaluation averages its boundary score over all classes that have one, labelled or not.
    has_boundary = ~np.isnan(boundary_iou) if boundary == "reference" else has_labels

    def over(members: np.ndarray, iou_members: np.ndarray) -> SetScores:
        return SetScores(
            iou=_mean(iou[iou_members]),
            recall=_mean(recall[members & has_labels]),
            pixel_accuracy=float(percent(counts.correct[members].sum(), counts.labelled[members].sum())),
            boundary_iou=_mean(boundary_iou[members & has_boundary]),
        )

    everything = np.ones_like(is_seen)
    # The published overall mIoU of pred_all averages predicted classes without a label too, with IoU 0.
    defined = ~np.isnan(iou) if protocol == "pred_all" else has_labels
    rules: tuple[RuleScores, ...] = ()
    seen_scores, unseen_scores = over(is_seen, is_seen & has_labels), over(~is_seen, ~is_seen & has_labels)
    all_scores = over(everything, defined)
    if protocol == "strict":
        rule = "partclipseg"
    else:
        is_class = np.arange(len(is_seen)) < len(names)  # pred_all counts the background as one more
        rules = _scores_by_rule(counts, is_class, is_seen, all_scores.iou)
        chosen = next(one for one in rules if one.rule == rule)
        all_scores = replace(all_scores, iou=chosen.all)
        seen_scores, unseen_scores = replace(seen_scores, iou=chosen.seen), replace(unseen_scores, iou=chosen.unseen)
    small, number_of_small_parts = _small_part_counts(regions, protocol, small_part_area, len(iou))
    return Scores(
        protocol=protocol,
        boundary=boundary,
        records=len(regions),
        all=all_scores,
        seen=seen_scores,
        unseen=unseen_scores,
        harmonic=_harmonic(seen_scores, unseen_scores),
        frequency_weighted_iou=_weighted_mean(iou[has_labels], counts.labelled[has_labels]),
        small_parts=SmallPartScores(
            area=small_part_area,
            parts=number_of_small_parts,
            iou=_mean(small.iou()[small.labelled > 0]),
            recall=_mean(small.recall()[small.labelled > 0]),
        ),
        classes=tuple(
            ClassScores(
                name=name,
                seen=index in seen,
                iou=float(iou[index]),
                recall=float(recall[index]),
                boundary_iou=float(boundary_iou[index]),
                pixels=int(counts.labelled[index]),
            )
            for index, name in enumerate(names)
        ),
        rule=rule,
        rules=rules,
        left_out=_left_out(regions.total) if protocol == "predicted_objects" else 0.0,
    )


def _scores_by_rule(
    counts: ClassCounts, is_class: np.ndarray, is_seen: np.ndarray, overall: float
) -> tuple[RuleScores, ...]:
    """Compute the mean IoUs by every rule; `overall` is that of all classes by the rule of PartCLIPSeg."""
    scores = []
    for rule in RULES:
        seen, unseen = (mean_iou(counts, group & is_class, rule) for group in (is_seen, ~is_seen))
        everything = overall if rule == "partclipseg" else mean_iou(counts, is_class, rule)
        scores.append(RuleScores(rule, everything, seen, unseen, harmonic_mean(seen, unseen)))
    return tuple(scores)


def percent(part: np.ndarray | np.integer, whole: np.ndarray | np.integer) -> np.ndarray:
    """Return 100 × `part` / `whole` as float64; NaN where `whole` is 0."""
    whole = np.asarray(whole)
    return 100.0 * np.divide(part, whole, out=np.full(whole.shape, math.nan), where=whole > 0)


def _left_out(matrix: np.ndarray) -> float:
    """Return the share in percent of the labelled pixels that are predicted as background; 0 without labels."""
    labelled = int(matrix[:, :-1].sum())
    return 100.0 * int(matrix[-1, :-1].sum()) / labelled if labelled else 0.0


def _counts(matrix: np.ndarray) -> ClassCounts:
    return ClassCounts(correct=matrix.diagonal(), labelled=matrix.sum(axis=0), predicted=matrix.sum(axis=1))


def _first(counts: ClassCounts, number: int) -> ClassCounts:
    return ClassCounts(*(values[:number] for values in counts))


def _small_part_counts(
    regions: ConfusionMatrix, protocol: Protocol, area: float, number: int
) -> tuple[ClassCounts, int]:
    total = np.zeros((3, number), dtype=np.int64)
    parts = 0
    for key in regions:
        matrix = regions.record(key)
        counts = region_counts(matrix, protocol)
        small = (counts.labelled > 0) & (counts.labelled < area * matrix.sum())
        total += np.stack(counts) * small
        parts += int(small.sum())
    return ClassCounts(*total), parts


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(values @ weights / weights.sum()) if len(values) else math.nan


def harmonic_mean(first: float, second: float) -> float:
    """Return `2 · first · second / (first + second)`; 0 where both are 0."""
    return 2 * first * second / (first + second) if first + second != 0 else 0.0


def _harmonic(seen: SetScores, unseen: SetScores) -> SetScores:
    return SetScores(**{name: harmonic_mean(value, asdict(unseen)[name]) for name, value in asdict(seen).items()})


def without_nan(value: Any) -> Any:
    """Replace NaN by None in nested dictionaries and lists, for JSON."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
