"""Tables of scores: plain rows for the terminal, Markdown and JSON, beside published figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

from partclipseg.counts import count_of, noun
from partclipseg.evaluation.average_precision import ApScores
from partclipseg.evaluation.choices import PROTOCOL_TITLES, RULE_TITLES, WITHIN_OBJECTS, Protocol, Rule
from partclipseg.evaluation.instance_tables import ap_class_table, ap_tables, partpq_class_table, partpq_table
from partclipseg.evaluation.partpq import PartPQScores
from partclipseg.evaluation.scores import Scores, SetScores
from partclipseg.evaluation.tables import Table, escaped, figure, markdown_rows

_ROWS = (("mIoU", "iou"), ("Boundary IoU", "boundary_iou"), ("Recall", "recall"), ("Pixel accuracy", "pixel_accuracy"))


class Published(NamedTuple):
    """mIoU of a published method, in percent; None where it was not reported."""

    method: str
    seen: float | None
    unseen: float | None
    harmonic: float | None
    confirmed: bool
    """Whether the figure was checked against the paper."""
    rule: Rule | None = None
    """The rule of averaging of the evaluator that gave it; None where that is not known."""


@dataclass(frozen=True)
class Report:
    """Scores of one evaluation, and its settings."""

    model: str
    dataset: str
    settings: dict[str, Any]
    """Resolved options, needed to repeat the evaluation."""
    scores: tuple[Scores | PartPQScores | ApScores, ...]
    photos: int
    remark: str = ""
    """Reason why these figures are not comparable, such as a limit on the photos; empty if they are."""
    compared: bool = True
    """Whether published figures stand beside the scores; not for a model that was trained on another data set."""

    def tables(self) -> list[Table]:
        """Return the scores of every protocol, each followed by the published figures where there are any."""
        tables = []
        for scores in self.scores:
            if isinstance(scores, PartPQScores):
                tables.append(partpq_table(scores))
                continue
            if isinstance(scores, ApScores):
                tables += ap_tables(scores)
                continue
            tables.append(score_table(scores))
            if scores.rules:
                tables.append(rule_table(scores))
            if rows := self._published(scores):
                tables.append(published_table(self.model, scores, rows))
        return tables

    def _published(self, scores: Scores) -> tuple[Published, ...]:
        return published(self.dataset, scores.protocol) if self.compared else ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "photos": self.photos,
            "remark": self.remark,
            "settings": self.settings,
            "scores": {_name(scores): scores.to_dict() for scores in self.scores},
            "published": {
                scores.protocol: [row._asdict() for row in self._published(scores)]
                for scores in self.scores
                if isinstance(scores, Scores)
            },
        }

    def to_markdown(self, bars: dict[Protocol, str] | None = None, photos_page: str | None = None) -> str:
        """Return the report as Markdown; `bars` are paths of pictures, `photos_page` that of the page of photos."""
        photos = count_of(self.photos, "photo")
        lines = [f"# {escaped(self.model)} on {self.dataset}", "", f"{photos}. All scores in percent."]
        if self.remark:
            lines += ["", f"> {escaped(self.remark)}"]
        for table in self.tables():
            lines += ["", f"## {table.title}", "", *markdown_rows(table)]
        if photos_page:
            lines += ["", "## Photos", "", f"[The best and the worst]({photos_page}): photo, labels, prediction."]
        for scores in self.scores:
            table = _class_table(scores)
            lines += ["", f"## {table.title}", ""]
            if bars and isinstance(scores, Scores) and scores.protocol in bars:
                lines += [f"![IoU of each class]({bars[scores.protocol]})", ""]
            lines += markdown_rows(table)
        settings = json.dumps(self.settings, indent=2, ensure_ascii=False)
        lines += ["", "## Settings", "", "```json", settings, "```", ""]
        return "\n".join(lines)


def _name(scores: Scores | PartPQScores | ApScores) -> str:
    """Return the protocol or the metric of scores."""
    if isinstance(scores, Scores):
        return scores.protocol
    return "partpq" if isinstance(scores, PartPQScores) else "ap"


def _class_table(scores: Scores | PartPQScores | ApScores) -> Table:
    if isinstance(scores, Scores):
        return class_table(scores)
    return partpq_class_table(scores) if isinstance(scores, PartPQScores) else ap_class_table(scores)


def published(dataset: str, protocol: Protocol) -> tuple[Published, ...]:
    """Return the published figures of a benchmark, by harmonic mean; empty for other data and for `strict`."""
    content = json.loads(files("partclipseg").joinpath("evaluation", "published.json").read_text("utf-8"))
    rows = [Published(method, **figures) for method, figures in content.get(dataset, {}).get(protocol, {}).items()]
    return tuple(sorted(rows, key=lambda row: row.harmonic or 0.0))


def score_table(scores: Scores) -> Table:
    """Return every score of one protocol, by set of classes."""
    sets: dict[str, SetScores] = {"all": scores.all}
    if not all(item.seen for item in scores.classes):
        sets |= {"seen": scores.seen, "unseen": scores.unseen, "harmonic": scores.harmonic}
    rows = [
        (label, *(figure(getattr(members, name)) for members in sets.values()))
        for label, name in _ROWS
        if name != "boundary_iou" or scores.boundary is not None
    ]
    blank = ("",) * (len(sets) - 1)
    small = scores.small_parts
    rows.append(("fwIoU", figure(scores.frequency_weighted_iou), *blank))
    rows.append(("mIoU of small parts", figure(small.iou), *blank))
    rows.append(("Recall of small parts", figure(small.recall), *blank))
    labelled = sum(item.pixels > 0 for item in scores.classes)
    records = count_of(scores.records, "photo" if scores.protocol == "strict" else "record")
    note = (
        f"{records} with {labelled:,} of {count_of(len(scores.classes), 'class')}. Small parts, below "
        f"{100 * small.area:g} % of the photo: {small.parts}."
    )
    if scores.protocol == "pred_all" and scores.rule != "partcatseg":
        note += " As published, mIoU of all counts a predicted class without any label as 0."
    if scores.protocol == "predicted_objects":
        note += (
            f" Where no object was found nothing is counted: {figure(scores.left_out)} % of the labelled pixels. This "
            "is not OV-PARTS' Pred-Obj, whose object masks are not published."
        )
    if scores.boundary == "reference":
        note += " Boundary IoU in the form of the published evaluation."
    return Table(PROTOCOL_TITLES[scores.protocol], ("", *sets), tuple(rows), note)


def rule_table(scores: Scores) -> Table:
    """Tabulate the mIoU of one protocol by every rule of averaging, the chosen one marked."""
    sets = ("all",) if all(item.seen for item in scores.classes) else ("all", "seen", "unseen", "harmonic")
    rows = tuple(
        (
            f"{RULE_TITLES[one.rule]}{' (chosen)' if one.rule == scores.rule else ''}",
            *(figure(getattr(one, name)) for name in sets),
        )
        for one in scores.rules
    )
    note = (
        "The rules differ in the classes that a mean is taken over: one that leaves out the classes of which nothing "
        "was found gives the higher figure, so compare figures of one rule only."
    )
    title = f"mIoU by the rule of averaging, {PROTOCOL_TITLES[scores.protocol].split(':')[0]}"
    if scores.protocol == "pred_all":
        note += (
            " By partclipseg the mean of all also counts classes without labels that were predicted, background among "
            "them, as published."
        )
    return Table(title, ("", *sets), rows, note + _note_on_labels(scores))


def _note_on_labels(scores: Scores) -> str:
    """Say whether the labels were resized, and by which other rules they are."""
    resizing: list[Rule] = ["ov-parts", "partcatseg"] if scores.protocol in WITHIN_OBJECTS else ["partcatseg"]
    note = ""
    if scores.rule in resizing:
        evaluator, size = "PartCATSeg's", "the size that the model first resizes photos to, if it does"
        if scores.rule == "ov-parts":
            evaluator = "OV-PARTS'"
            size = "a shortest edge of 800 pixels, or that of a model that resizes photos by itself"
        note = f" Labels were resized and back, as {evaluator} evaluator does: to {size}."
    if others := [rule for rule in resizing if rule != scores.rule]:
        note += f" With --rule {' or '.join(others)} labels are resized as that evaluator does."
    return note


def published_table(model: str, scores: Scores, rows: tuple[Published, ...]) -> Table:
    """Return our mIoU below the published ones; figures not checked against their paper are marked."""
    texts = [
        (
            f"{row.method}{'' if row.confirmed else ' †'}{_other_rule(row, scores)}",
            *map(figure, (row.seen, row.unseen, row.harmonic)),
        )
        for row in rows
    ]
    texts.append((f"this: {model}", *(figure(s.iou) for s in (scores.seen, scores.unseen, scores.harmonic))))
    notes = [] if all(row.confirmed for row in rows) else ["† not checked against the paper."]
    if any(_other_rule(row, scores) for row in rows):
        notes.append("‡ averaged by another rule, or by one that is not known: not comparable with ours.")
    note = " ".join(notes)
    title = f"mIoU beside published figures, {PROTOCOL_TITLES[scores.protocol].split(':')[0]}"
    return Table(title, ("", "seen", "unseen", "harmonic"), tuple(texts), note)


def _other_rule(row: Published, scores: Scores) -> str:
    return "" if row.rule == scores.rule else " ‡"


def class_table(scores: Scores) -> Table:
    """Return a row for each labelled class, in the order of the vocabulary."""
    with_boundary = scores.boundary is not None
    with_sets = not all(item.seen for item in scores.classes)
    rows = [
        (
            item.name,
            *(("seen" if item.seen else "unseen",) if with_sets else ()),
            figure(item.iou),
            *((figure(item.boundary_iou),) if with_boundary else ()),
            figure(item.recall),
            f"{item.pixels:,}",
        )
        for item in scores.classes
        if item.pixels
    ]
    missing = len(scores.classes) - len(rows)
    classes = count_of(len(scores.classes), "class")
    note = f"{missing:,} of {classes} {noun(missing, 'has', 'have')} no label in these photos." if missing else ""
    sets, boundary = ("set",) if with_sets else (), ("Boundary IoU",) if with_boundary else ()
    columns = ("class", *sets, "IoU", *boundary, "Recall", "Pixels")
    return Table(f"Classes, {PROTOCOL_TITLES[scores.protocol].split(':')[0]}", columns, tuple(rows), note)
