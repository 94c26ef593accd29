"""InstructPart's questions as a benchmark: one part of each photo, asked by its name and by an instruction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from partclipseg.apps.evaluate.output import write_and_print
from partclipseg.apps.options import Device, ModelArgument, check_least, optional
from partclipseg.apps.terminal import count_bar, plain_console
from partclipseg.data.datasets.spec import Split
from partclipseg.errors import UsageError
from partclipseg.evaluation.choices import QUESTION_FORMS, QuestionForm
from partclipseg.models.number_types import PredictionType

if TYPE_CHECKING:
    from partclipseg.evaluation.referring import ReferringScores
    from partclipseg.evaluation.tables import Table


@dataclass(frozen=True)
class InstructPartQuestions:
    """Ask a model for the one part of each photo of InstructPart, by its name and by an instruction: gIoU and cIoU."""

    model: ModelArgument
    data: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """InstructPart's folder."""
    task: Literal[QuestionForm, "both"] = "both"
    """referring: the part and its object are named.
    instruction: a sentence is given, which only models that take words without an object can read."""
    phrasing: Annotated[int, tyro.conf.arg(metavar="0..5")] = 0
    """Sentence of the instruction: 0 written by a person, 1 written by a language model, 2 with part and object,
    3 with the affordance (what the part is for), 4 the bare names, 5 names and affordance."""
    split: Split = "test"
    """Split to score."""
    output: Annotated[Path | None, optional("FILE.json")] = None
    """File for the scores. Left out: they are only printed."""
    limit: Annotated[int | None, optional("N")] = None
    """Ask only of the first N photos. Left out: all of them."""
    device: Device = None
    dtype: PredictionType = "float32"
    """Number type of the model's arithmetic."""

    def run(self) -> int:
        from partclipseg.data.check import check_dataset, raise_if_broken
        from partclipseg.data.datasets.instructpart import NAME, PHRASINGS
        from partclipseg.data.datasets.registry import open_dataset
        from partclipseg.evaluation.referring import score_questions
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.writing import check_new_file

        if not 0 <= self.phrasing < len(PHRASINGS):
            raise UsageError(f"--phrasing is one of 0 to {len(PHRASINGS) - 1}, not {self.phrasing}")
        check_least(limit=(self.limit, 1))
        if self.output is not None:
            check_new_file(self.output)
        console = plain_console()
        with count_bar(console, "checking files") as show:
            raise_if_broken(check_dataset(NAME, self.data, self.split, on_progress=show))
        dataset = open_dataset(NAME, self.data, self.split)
        segmenter = PartSegmenter.from_pretrained(self.model, self.device, self.dtype)
        askings: tuple[QuestionForm, ...] = tuple(QUESTION_FORMS) if self.task == "both" else (self.task,)
        scores: list[ReferringScores] = []
        skipped: list[str] = []
        for asking in askings:
            try:
                with count_bar(console, asking) as show:
                    scores.append(score_questions(segmenter, dataset, asking, self.phrasing, self.limit, show))
            except UsageError as error:
                if self.task != "both" or asking != "instruction":
                    raise
                skipped.append(f"{QUESTION_FORMS[asking].split(':')[0]} was left out: {error}")
        write_and_print(console, [_question_table(scores)], skipped, lambda: self._write(scores, skipped))
        return 0

    def _write(self, scores: list[ReferringScores], skipped: list[str]) -> None:
        from partclipseg.files import write_text
        from partclipseg.writing import writing

        if self.output is not None:
            content = {"model": self.model, "phrasing": self.phrasing, "limit": self.limit, "left out": skipped}
            content["scores"] = [one.to_dict() for one in scores]
            with writing(self.output):
                write_text(self.output, json.dumps(content, indent=1) + "\n")


def _question_table(scores: list[ReferringScores]) -> Table:
    from partclipseg.evaluation.tables import Table, figure

    rows = tuple(
        (
            QUESTION_FORMS[one.asking].split(":")[0],
            *map(figure, (one.giou, one.ciou, one.precision_50)),
            str(one.questions),
        )
        for one in scores
    )
    note = "gIoU: mean IoU of the questions. cIoU: IoU of all pixels together. P@50: share of IoUs of 50 % or more."
    if too_long := sum(one.too_long for one in scores):
        note += f" Questions that the model cannot read, since they are too long, count as 0: {too_long}."
    return Table("InstructPart", ("", "gIoU", "cIoU", "P@50", "questions"), rows, note)
