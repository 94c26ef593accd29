"""Score answers to one question a photo: the mask of one part, asked by its name or by an instruction.

InstructPart (Wan et al., ACL 2025) asks in two ways. *Oracle referring part segmentation* names the part and its
object; *instruction reasoning part segmentation* gives a sentence such as "How do I lift the kettle?", which a model of
words can only take as it takes any other words. gIoU is the mean of the questions' IoU, cIoU the IoU of all their
pixels together. As in LISA (Lai et al., CVPR 2024), whose scores these are, an empty answer to a question whose part
has no pixel has an IoU of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from partclipseg.counts import count_of
from partclipseg.data.datasets.instructpart import InstructPart
from partclipseg.data.source import FileDataset, SampleRecord, read_source_photo
from partclipseg.errors import UsageError
from partclipseg.evaluation.choices import QuestionForm
from partclipseg.inference.segmenter import PartSegmenter, PromptTooLongError
from partclipseg.vocabulary import ANY, MAX_WORD, ObjectPart, Vocabulary


class PartQuestion(NamedTuple):
    """One photo with the part that is asked for."""

    key: str
    image: np.ndarray
    """uint8 `[H, W, 3]`, RGB."""
    mask: np.ndarray
    """bool `[H, W]`: the part."""
    words: Vocabulary | None
    """Vocabulary of the one part that is asked for; None where a sentence is too long for a word."""


@dataclass(frozen=True)
class ReferringScores:
    """Scores of one way of asking, in percent."""

    asking: QuestionForm
    questions: int
    """Number of questions that were answered."""
    too_long: int
    """Number of questions that the model cannot read; they count with an IoU of 0."""
    giou: float
    """Mean IoU of the questions."""
    ciou: float
    """Intersection over union of the pixels of all questions together."""
    precision_50: float
    """Share of the questions with an IoU of at least one half: P@50."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def score_questions(
    segmenter: PartSegmenter,
    dataset: FileDataset,
    asking: QuestionForm = "referring",
    phrasing: int = 0,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReferringScores:
    """Ask a model for the part of each photo of InstructPart.

    The answer is the pixels of the one word against background, by the segmenter's usual minimum probability.

    Args:
        segmenter: the model with its tokenizer.
        dataset: an opened split of InstructPart.
        asking: `referring` or `instruction`.
        phrasing: which of the photo's sentences is the instruction, from 0; see `instructpart.PHRASINGS`.
        limit: ask of the first photos only, this many.
        on_progress: called with questions asked and to ask.

    Raises:
        UsageError: another data set, a photo without that sentence, or a model that cannot be asked for words without
            an object.
        DataError: a file cannot be read.
    """
    records = dataset.records[:limit]
    areas: list[tuple[int, int, float]] = []
    too_long = 0
    for done, record in enumerate(records, start=1):
        question = _question(dataset, record, asking, phrasing)
        answered = _answer(segmenter, question)
        too_long += answered is None
        areas.append(_areas(answered, question.mask))
        if on_progress is not None:
            on_progress(done, len(records))
    return _scores(asking, areas, too_long)


def _question(dataset: FileDataset, record: SampleRecord, asking: QuestionForm, phrasing: int) -> PartQuestion:
    source, key = record.source, record.photo.key
    if not isinstance(source, InstructPart):
        raise UsageError(f"{dataset.name} has no questions: open instructpart")
    image = read_source_photo(record.photo)
    mask = source.read_labels(record.photo, image.shape[:2]).parts >= 0
    pair = source.object_parts[source.labels[key]]
    if asking == "instruction":
        sentences = source.instructions[key]
        if phrasing >= len(sentences):
            there = count_of(len(sentences), "sentence")
            raise UsageError(f"{key} has {there}, not one of number {phrasing}: choose another")
        pair = ObjectPart(ANY, as_word(sentences[phrasing]))
    return PartQuestion(key, image, mask, None if len(pair.part) > MAX_WORD else Vocabulary((pair,)))


def _answer(segmenter: PartSegmenter, question: PartQuestion) -> np.ndarray | None:
    """Return the answer, bool `[H, W]`; None if the model cannot read the question."""
    if question.words is None:
        return None
    try:
        return segmenter(question.image, question.words).label_map == 0
    except PromptTooLongError:
        return None


def as_word(sentence: str) -> str:
    """Return a sentence as one word of a vocabulary: what separates words becomes a blank."""
    return " ".join("".join(" " if mark in ",;:\n" else mark for mark in sentence).split())


def _areas(answer: np.ndarray | None, mask: np.ndarray) -> tuple[int, int, float]:
    """Return intersection and union in pixels, and IoU; None is no answer, which is wrong even of an empty mask."""
    if answer is None:
        return 0, int(mask.sum()), 0.0
    both, union = int((answer & mask).sum()), int((answer | mask).sum())
    return both, union, both / union if union else 1.0


def _scores(asking: QuestionForm, areas: Sequence[tuple[int, int, float]], too_long: int) -> ReferringScores:
    inside, union, ious = (np.array(values) for values in zip(*areas, strict=True)) if areas else np.zeros((3, 0))
    inside, union = int(inside.sum()), int(union.sum())
    return ReferringScores(
        asking=asking,
        questions=len(areas) - too_long,
        too_long=too_long,
        giou=100 * float(ious.mean()) if len(ious) else 0.0,
        ciou=100 * inside / union if union else 0.0,
        precision_50=100 * float((ious >= 0.5).mean()) if len(ious) else 0.0,
    )
