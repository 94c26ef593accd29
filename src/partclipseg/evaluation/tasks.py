"""OV-PARTS' three tasks: zero-shot, few-shot and cross-dataset, with the published figures of Oracle-Obj.

Which task a model can be scored in follows from the words that it was trained on: a benchmark's seen classes
(zero-shot), all its classes (few-shot where its few photos are listed, else supervised), or other words
(cross-dataset). A model without words of its own was not trained on any of them and stands under zero-shot, as OV-PARTS
lists CLIPSeg.

Source: Wei et al., "OV-PARTS: Towards Open-Vocabulary Part Segmentation" (NeurIPS 2023).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

from partclipseg.data.datasets.registry import dataset_spec
from partclipseg.data.datasets.roots import has_split
from partclipseg.data.loader import PartDataset
from partclipseg.data.source import FileDataset
from partclipseg.evaluation.choices import TASKS, Task
from partclipseg.evaluation.scores import without_nan
from partclipseg.evaluation.state import text_digest
from partclipseg.evaluation.tables import Table, figure
from partclipseg.vocabulary import Catalog, ObjectPart, Vocabulary

DATASETS = ("pascal-part-116", "ade20k-part-234")
"""Benchmarks of the tasks that lie in files."""

RENDERED = ("partshapes", "partshapes-coarse")
"""Benchmarks that need no files, of the same scenes in two sets of words; they join for models of the first."""


class Origin(NamedTuple):
    """Benchmark whose words a model was trained on."""

    dataset: str
    words: Literal["seen", "all"]


class TaskScoring(NamedTuple):
    """Scoring of one model on one benchmark."""

    task: Task
    dataset: str


@dataclass(frozen=True)
class TaskResult:
    """mIoU in percent of one model in one task; NaN where it has none."""

    task: Task
    dataset: str
    method: str
    seen: float
    unseen: float
    harmonic: float
    all: float
    trained_on: str = ""
    """Benchmark that the model was trained on, or "other words": cross-dataset only."""
    source: float = math.nan
    """mIoU over all classes of the benchmark that the model was trained on: cross-dataset only."""
    shared: str = ""
    """Sentence about the words that the training and the benchmark share: cross-dataset only."""
    remark: str = ""
    """Why the score is not that of the published task; empty if it is."""
    family: str = ""
    """Family of the model, as in `registry.FAMILIES`."""
    training: str = ""
    """Task of the model's training, such as "zero-shot" or "16 shots"; empty where its words do not tell it."""
    words: str = ""
    """Words of the model's training: a benchmark with "seen" or "all", or a digest of others; empty without any."""

    @property
    def kind(self) -> tuple[str, str, str]:
        """Return the three fields in which models must agree for their scores to be averaged."""
        return self.family, self.training, self.words

    @property
    def row_name(self) -> str:
        """Return the model's name in a table, with its training unless that is zero-shot or the task tells it."""
        usual = self.training in ("", "zero-shot", self.task)
        return self.method if usual else f"{self.method} ({self.training})"

    @classmethod
    def from_dict(cls, values: Any) -> TaskResult | None:
        """Read what `to_dict` gave; None for anything else."""
        if not isinstance(values, dict):
            return None
        known: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
        try:
            read = cls(**known)
        except TypeError:
            return None
        words = (read.task, read.dataset, read.method, read.trained_on, read.shared, read.remark, *read.kind)
        figures = (read.seen, read.unseen, read.harmonic, read.all, read.source)
        sound = all(isinstance(word, str) for word in words) and all(isinstance(one, int | float) for one in figures)
        return read if sound else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; None in place of NaN."""
        return without_nan(asdict(self))


def find_roots(folder: Path) -> dict[str, Path]:
    """Return the root of each benchmark in a folder, which may be one of them or hold them."""
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else []
    roots: dict[str, Path] = {}
    for name in DATASETS:
        spec = dataset_spec(name)
        found = (root for root in candidates if any(has_split(root, spec, split) for split in spec.test_splits))
        if (root := next(found, None)) is not None:
            roots[name] = root
    return roots


def origin_of(training: Vocabulary | None) -> Origin | None:
    """Return the benchmark whose seen classes, or all of whose classes, are the training words; None for others."""
    if training is None:
        return None
    trained = _pairs(training)
    for name in (*DATASETS, *RENDERED):
        for words, vocabulary in _word_sets(name).items():
            if trained == _pairs(vocabulary):
                return Origin(name, words)
    return None


def zero_shot_words(words: Vocabulary) -> Vocabulary:
    """Return the words that a zero-shot model was trained on: where it came with all of a benchmark, the seen ones."""
    origin = origin_of(words)
    return words if origin is None else _word_sets(origin.dataset).get("seen", words)


def task_of_training(training: Vocabulary | None, task: Task | None = None, few: bool = False) -> Task | None:
    """Return the task that a model was trained for, arguments as in `jobs_of`; None if nothing tells it."""
    origin = origin_of(training)
    if training is None or (origin is None and not few):
        return None
    of_words: Task = "zero-shot" if origin is not None and origin.words == "seen" else "supervised"
    return task or ("few-shot" if few else of_words)


def words_of_training(training: Vocabulary | None) -> str:
    """Return text that is the same for the same training words, in whatever order; see `TaskResult.words`."""
    if training is None:
        return ""
    if (origin := origin_of(training)) is not None:
        return f"{origin.dataset}, {origin.words}"
    return text_digest(sorted(pair.name for pair in _pairs(training)))


def jobs_of(
    training: Vocabulary | None, available: Sequence[str], task: Task | None = None, few: bool = False
) -> list[TaskScoring]:
    """List what a model can be scored in, of the benchmarks that are available, in the order of `TASKS`.

    Args:
        training: the words that the model was trained on.
        available: names of the benchmarks whose files are there.
        task: the model's task on the benchmark of its words, where the words do not tell it.
        few: whether the model was trained on a few-shot split.
    """
    origin = origin_of(training)
    own_task = task_of_training(training, task, few)
    jobs = []
    for name in (*DATASETS, *RENDERED):
        if name not in available and (name not in RENDERED or origin is None or origin.dataset not in RENDERED):
            continue
        if training is None:
            jobs.append(TaskScoring("zero-shot", name))
        elif own_task is None or origin is None or origin.dataset != name:
            jobs.append(TaskScoring("cross-dataset", name))
        else:
            jobs.append(TaskScoring(own_task, name))
    return sorted(jobs, key=lambda job: TASKS.index(job.task))


def without_listed(dataset: PartDataset, files: frozenset[str]) -> PartDataset:
    """Leave out the test records whose photos a few-shot model was trained on: those of ADE20K's training files."""
    if not files or not isinstance(dataset, FileDataset):
        return dataset
    kept = [record for record in dataset.records if record.photo.key not in files]
    return FileDataset(dataset.name, dataset.split, dataset.vocabulary, kept, dataset.seen)


def published_rows() -> list[dict[str, Any]]:
    """Return the published rows: task, data set, method and its figures."""
    content = files("partclipseg").joinpath("evaluation", "published_ov_parts.json").read_text("utf-8")
    return json.loads(content)["rows"]


def task_tables(results: Iterable[TaskResult]) -> list[Table]:
    """Return a table for each task and benchmark: published rows first, then ours.

    Models that were trained alike stand together, with their mean below them.
    """
    tables = []
    results = list(results)
    for task in TASKS:
        for group in dict.fromkeys((one.dataset, one.trained_on) for one in results if one.task == task):
            ours = [one for one in results if (one.task, one.dataset, one.trained_on) == (task, *group)]
            tables.append(_table(task, *group, ours))
    return tables


def _table(task: Task, dataset: str, trained_on: str, ours: Sequence[TaskResult]) -> Table:
    # OV-PARTS reports one mean where seen and unseen say nothing: few-shot on ADE20K, and across data sets.
    columns = ("all",) if task == "few-shot" and dataset == "ade20k-part-234" else ("all", "seen", "unseen", "harmonic")
    columns = ("source", "all") if task == "cross-dataset" else columns
    wanted = (task, dataset, trained_on)
    theirs = [row for row in published_rows() if (row["task"], row["dataset"], row.get("trained_on", "")) == wanted]
    rows = [(f"OV-PARTS: {row['method']}", *(figure(row.get(name)) for name in columns)) for row in theirs]
    groups = [[one for one in ours if one.kind == kind] for kind in dict.fromkeys(one.kind for one in ours)]
    for group in groups:
        rows += [(one.row_name, *(figure(getattr(one, name)) for name in columns)) for one in group]
        if len(group) > 1:
            spreads = (_spread([getattr(one, name) for one in group]) for name in columns)
            rows.append((f"mean of {len(group)}", *spreads))
    notes = [
        "Oracle-Obj. Rule of the mean: ov-parts, on labels that were resized to the size of the method's photos (a "
        "shortest edge of 800 pixels, or that of a model that resizes photos by itself) and back, as in the evaluator "
        "that gave the published figures."
    ]
    if any(len(group) > 1 for group in groups):
        notes.append(
            "A mean is over the models above it that were trained alike (the same method, task and words), ± their "
            "standard deviation."
        )
    if not theirs:
        notes.append("No published figure is at hand for this task.")
    notes += list(dict.fromkeys(result.remark for result in ours if result.remark))
    notes += [f"{result.method}: {result.shared}." for result in ours if result.shared]
    title = f"{task}: {trained_on} → {dataset}" if trained_on else f"{task}: {dataset}"
    return Table(title, ("mIoU", *columns), tuple(rows), " ".join(notes))


def _spread(values: Sequence[float]) -> str:
    if any(math.isnan(value) for value in values):
        return figure(math.nan)
    return f"{figure(mean(values))} ± {figure(stdev(values))}"


def _pairs(vocabulary: Vocabulary) -> set[ObjectPart]:
    return {pair.folded for pair in vocabulary.object_parts}


def _word_sets(name: str) -> dict[Literal["seen", "all"], Vocabulary]:
    if name in RENDERED:
        rendering = dataset_spec(name).rendering
        assert rendering is not None
        scenes = rendering.load()
        sets: tuple[Literal["seen", "all"], ...] = ("seen", "all") if dataset_spec(name).trains else ("all",)
        return {words: scenes("test", 1, vocabulary=words).vocabulary for words in sets}
    catalog = Catalog.load(name)
    return {"seen": Vocabulary.from_catalog(name, "seen"), "all": catalog.vocabulary}
