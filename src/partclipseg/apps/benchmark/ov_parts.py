"""OV-PARTS' three tasks as one benchmark: every model in every task that its words and the data allow, in one table."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args

import tyro

from partclipseg.apps.evaluate.output import write_and_print, write_files
from partclipseg.apps.options import BatchSize, Device, check_least, optional
from partclipseg.apps.terminal import count_bar, plain_console, progress_bar
from partclipseg.errors import UsageError
from partclipseg.evaluation.choices import StatedTask
from partclipseg.models.number_types import PredictionType

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.data.few_shot import FewShotSplit
    from partclipseg.data.loader import PartDataset
    from partclipseg.evaluation.tables import Table
    from partclipseg.evaluation.tasks import TaskResult, TaskScoring
    from partclipseg.inference.segmenter import PartSegmenter
    from partclipseg.journal import Journal
    from partclipseg.vocabulary import Vocabulary

ROWS = "results.jsonl"
"""File of the results so far, in the folder of the report."""


class _Model(NamedTuple):
    """A model, the words that it was trained on, and what it is scored in."""

    name: str
    training: Vocabulary | None
    split: FewShotSplit | None
    """Split of a few-shot training, where its list is in the model's folder or beside it."""
    kind: dict[str, str]
    """Fields of a `TaskResult` that tell which models were trained alike: family, training and words."""
    jobs: list[TaskScoring]


@dataclass(frozen=True)
class OVParts:
    """Score models in OV-PARTS' three tasks, beside the published figures, with whatever data are there.

    The words that a model was trained on tell its task: a benchmark's seen classes are zero-shot, all its classes
    few-shot (where the run's few-shot.json is in the model's folder or beside it) or supervised, and on another
    benchmark it is cross-dataset. Several models of one method, task and words give a mean and a spread.
    """

    models: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL...", help_behavior_hint="")
    ] = ()
    """Names that `partclipseg models` lists, directories of models, or their names on the hub."""
    few_shot: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN...", help_behavior_hint="")] = ()
    """Folders of few-shot training runs, such as those of three seeds; their models are taken."""
    data: Annotated[Path | None, optional("DIR")] = None
    """Folder of Pascal-Part-116, of ADE20K-Part-234, or one that holds them.
    A model of PartShapes needs none."""
    task: Annotated[StatedTask | None, optional("|".join(get_args(StatedTask)))] = None
    """Task of the models on the benchmark whose words they have, where their words do not tell it: a converted
    zero-shot model that came with all words of its benchmark. Left out: as their words tell."""
    output: Annotated[Path | None, optional("DIR")] = None
    """Folder for benchmark.md, benchmark.json and the results so far: the same command does not compute them again."""
    limit: Annotated[int | None, optional("N")] = None
    """Score only the first N photos of each benchmark. Left out: all of them; 1000 scenes of PartShapes."""
    device: Device = None
    dtype: PredictionType = "float32"
    """Number type of the model's arithmetic: float32 for figures that others can be compared with."""
    batch_size: BatchSize = 8
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """Processes that read photos ahead."""
    overwrite: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Replace files of the report that a person changed. Without it they are kept, and the new ones get other names."""

    def run(self) -> int:
        from partclipseg.files import require_folder
        from partclipseg.journal import Journal
        from partclipseg.writing import claimed

        if self.output is not None:
            require_folder(self.output)
        check_least(batch_size=(self.batch_size, 1), limit=(self.limit, 1), workers=(self.workers, 0))
        console = plain_console()
        models, datasets = self._plan(console)
        if self.output is None:
            return self._benchmark(models, datasets, None, console)
        with claimed(self.output):
            journal = Journal(self.output / ROWS)
            if not journal.begins_with("of"):
                raise UsageError(
                    f"{self.output} holds {ROWS}, which no benchmark wrote: name another folder with --output, or move "
                    "it away"
                )
            return self._benchmark(models, datasets, journal, console)

    def _benchmark(
        self, models: list[_Model], datasets: dict[str, PartDataset], journal: Journal | None, console: Console
    ) -> int:
        from partclipseg.evaluation.tasks import task_tables

        # Results of an earlier call with the same data and model are taken over.
        results = [result for one in models for result in self._score_model(one, datasets, journal, console)]
        tables, remarks = task_tables(results), [self._remark()] if self._remark() else []
        write_and_print(console, tables, remarks, lambda: self._write(results, tables, console))
        return 0

    def _plan(self, console: Console) -> tuple[list[_Model], dict[str, PartDataset]]:
        """Return what is to be done and the data of each benchmark, before the first model is loaded."""
        from partclipseg.counts import count_of
        from partclipseg.data.few_shot import SPLIT_FILE, split_of_model
        from partclipseg.evaluation.tasks import (
            find_roots,
            jobs_of,
            task_of_training,
            words_of_training,
            zero_shot_words,
        )
        from partclipseg.models.directory import load_vocabulary, read_config
        from partclipseg.models.fetch import find_model
        from partclipseg.models.registry import is_built_in

        models = [*self.models, *(str(run / "model") for run in self.few_shot)]
        if not models:
            raise UsageError("no model is named: give one or several")
        if missing := [run for run in self.few_shot if not (run / "model").is_dir()]:
            raise UsageError(f"{missing[0]} holds no finished training run: there is no folder model in it")
        places = [os.path.realpath(name) for name in models]
        if twice := next((name for name, place in zip(models, places, strict=True) if places.count(place) > 1), None):
            raise UsageError(f"{twice} is named twice: name each model once, since several give a mean and a spread")
        splits = {name: split_of_model(name) for name in models}
        if wrong := [run for run in self.few_shot if splits[str(run / "model")] is None]:
            raise UsageError(
                f"{wrong[0]} holds no {SPLIT_FILE}, the list of the photos of a few-shot run: put it there, or name "
                f"{wrong[0] / 'model'} without --few-shot"
            )
        if self.data is not None and not self.data.is_dir():
            raise UsageError(f"{self.data}: no such folder: check --data")
        roots = {} if self.data is None else find_roots(self.data)
        if self.data is not None and not roots:
            raise UsageError(
                f"{self.data} holds neither Pascal-Part-116 nor ADE20K-Part-234: check --data, or leave it out"
            )
        plan: list[_Model] = []
        for name in models:
            training = load_vocabulary(find_model(name))
            training = None if training is None else training.paired
            task = self.task or ("zero-shot" if is_built_in(name) else None)
            if training is not None and task == "zero-shot":
                training = zero_shot_words(training)  # it may have come with all words
            split = splits[name]
            jobs = jobs_of(training, list(roots), task, few=split is not None)
            if not jobs:
                where = f"--data {self.data}" if self.data else "--data"
                raise UsageError(
                    f"there is nothing to score {name} on: name the folder of Pascal-Part-116 or ADE20K-Part-234 "
                    f"with {where}"
                )
            trained = task_of_training(training, task, few=split is not None) or ""
            if trained == "few-shot" and split is not None and split.shots:
                trained = count_of(split.shots, "shot")
            family = read_config(find_model(name)).get("model_type")
            kind = {"family": str(family), "training": trained, "words": words_of_training(training)}
            plan.append(_Model(name, training, split, kind, jobs))
        datasets = {
            name: self._open(name, roots.get(name), console)
            for name in dict.fromkeys(job.dataset for one in plan for job in one.jobs)
        }
        for one in plan:
            for job in one.jobs:
                tested_on(one, job, datasets[job.dataset])
        return plan, datasets

    def _open(self, name: str, root: Path | None, console: Console) -> PartDataset:
        from partclipseg.data.check import check_dataset, raise_if_broken
        from partclipseg.data.datasets.registry import dataset_spec, open_dataset

        if root is None:
            rendering = dataset_spec(name).rendering
            assert rendering is not None
            scenes, size = rendering.splits["test"]
            return rendering.load()("test", self.limit or scenes, size, "all")
        with count_bar(console, "checking files") as show:
            raise_if_broken(check_dataset(name, root, "test", on_progress=show))
        return open_dataset(name, root).by_object_masks()

    def _score_model(
        self, model: _Model, datasets: dict[str, PartDataset], journal: Journal | None, console: Console
    ) -> list[TaskResult]:
        from partclipseg.evaluation.resized_labels import LABELS
        from partclipseg.evaluation.state import model_digest, text_digest
        from partclipseg.evaluation.tasks import TaskResult
        from partclipseg.inference.segmenter import PartSegmenter

        name, segmenter = model.name, None
        results: list[TaskResult] = []
        for job in model.jobs:
            dataset = tested_on(model, job, datasets[job.dataset])
            digest = {**job._asdict(), "model": model_digest(name), "dtype": self.dtype, "labels": LABELS["ov-parts"]}
            digest |= self._digest(dataset)
            if job.task == "cross-dataset" and model.training is not None:
                digest["training"] = text_digest(model.training.names)
            # Names and remarks are made anew for the results of an earlier call.
            told = {"method": method_name(name), "remark": remark_on(model, job, datasets[job.dataset]), **model.kind}
            entries = [] if journal is None else journal.read(damaged="skip")
            found = (TaskResult.from_dict(entry.get("result")) for entry in entries if entry.get("of") == digest)
            if (done := next(filter(None, found), None)) is not None:
                results.append(replace(done, **told))
                continue
            segmenter = segmenter or PartSegmenter.from_pretrained(name, self.device, self.dtype)
            result = replace(self._score(model, job, segmenter, dataset, console), **told)
            if journal is not None:
                journal.append([{"of": digest, "result": result.to_dict()}])
            results.append(result)
        return with_source(results)

    def _digest(self, dataset: PartDataset) -> dict[str, str]:
        from partclipseg.data.fingerprint import fingerprint
        from partclipseg.evaluation.photos import group_records
        from partclipseg.evaluation.state import text_digest

        keys = [key for photo in group_records(dataset)[: self.limit] for key in photo.record_keys]
        return {**fingerprint(dataset), **getattr(dataset, "digest", {}), "records": text_digest(keys)}

    def _score(
        self, model: _Model, job: TaskScoring, segmenter: PartSegmenter, dataset: PartDataset, console: Console
    ) -> TaskResult:
        from partclipseg.evaluation.cross import SharedWords
        from partclipseg.evaluation.photos import group_records
        from partclipseg.evaluation.run import make_evaluators, score_photos
        from partclipseg.evaluation.tasks import TaskResult, origin_of

        method, training = method_name(model.name), model.training
        evaluators = make_evaluators(dataset, "oracle_obj", boundary=None, rule="ov-parts")
        photos = group_records(dataset)[: self.limit]
        with progress_bar(console, f"{job.task}, {job.dataset}", len(photos), method) as update:
            for number in score_photos(
                segmenter, dataset, photos, evaluators, batch_size=self.batch_size, workers=self.workers
            ):
                update(advance=number)
        scores = evaluators["oracle_obj"].compute()
        trained_on = shared = ""
        sets = (scores.seen.iou, scores.unseen.iou, scores.harmonic.iou)
        if job.task == "cross-dataset" and training is not None:
            sets = (math.nan, math.nan, math.nan)  # the benchmark's own split means nothing to this model
            origin = origin_of(training)
            trained_on = "other words" if origin is None else origin.dataset
            shared = SharedWords.of(training, dataset.vocabulary).sentence()
        return TaskResult(job.task, job.dataset, method, *sets, scores.all.iou, trained_on, shared=shared)

    def _remark(self) -> str:
        if self.limit is None:
            return ""
        return f"Not comparable with published figures: only the first photos were scored (--limit {self.limit})."

    def _write(self, results: list[TaskResult], tables: list[Table], console: Console) -> Path | None:
        """Write the report, and return where it lies; None if no folder is named for it."""
        from partclipseg.evaluation.tables import markdown_rows
        from partclipseg.evaluation.tasks import published_rows
        from partclipseg.kept_files import KeptFiles

        if self.output is None:
            return None
        lines = ["# OV-PARTS", ""] + ([f"> {self._remark()}", ""] if self._remark() else [])
        for table in tables:
            lines += [f"## {table.title}", "", *markdown_rows(table), ""]
        content = {"results": [result.to_dict() for result in results], "published": published_rows()}
        texts = {
            "benchmark.md": "\n".join(lines),
            "benchmark.json": json.dumps({"remark": self._remark(), **content}, indent=1) + "\n",
        }
        files = KeptFiles(self.output, "benchmark", self.overwrite)
        write_files(files, texts, console)
        return files.path_of("benchmark.md")


def method_name(model: str) -> str:
    """Return a short name of a model for a table: its folder, or the run's for ``RUN/model`` and ``RUN/best``."""
    path = Path(model)
    return path.parent.name if path.name in ("model", "best") and path.parent.name else path.name


def tested_on(model: _Model, job: TaskScoring, dataset: PartDataset) -> PartDataset:
    """Return the test records of a task: of a few-shot model those whose photos it was not trained on.

    Raises `UsageError` if there are none.
    """
    from partclipseg.evaluation.tasks import without_listed

    if job.task != "few-shot" or model.split is None:
        return dataset
    kept = without_listed(dataset, frozenset(model.split.files))
    if not len(kept):
        raise UsageError(
            f"the few-shot list of {model.name} names all photos that {job.dataset} tests on, so nothing is left to "
            "score: check the list, add the test photos that are not in it to the data, or leave this model out"
        )
    return kept


def remark_on(model: _Model, job: TaskScoring, dataset: PartDataset) -> str:
    """Return why the score of a model is not that of the published task; empty if it is."""
    from partclipseg.data.datasets.registry import dataset_spec
    from partclipseg.data.few_shot import SPLIT_FILE
    from partclipseg.data.source import FileDataset

    if not isinstance(dataset, FileDataset):
        return ""
    spec, remarks = dataset_spec(dataset.name), []
    if reason := spec.remark(dataset):
        remarks.append(f"Not comparable with published figures: {reason}.")
    if (
        job.task in ("few-shot", "supervised")
        and any(record.source.split == spec.folder("train") for record in dataset.records)
        and model.split is None
    ):
        remarks.append(
            f"{method_name(model.name)}: no {SPLIT_FILE} in the model's folder or beside it names the photos that it "
            f"was trained on, so they may be among the scored ones, which {dataset.name} draws from its training "
            "photos too: put the list of its training there, if there is one."
        )
    return " ".join(remarks)


def with_source(results: list[TaskResult]) -> list[TaskResult]:
    """Add to cross-dataset results the score on the benchmark that the model was trained on, where it is there."""
    source = next((one.all for one in results if one.task != "cross-dataset"), math.nan)
    return [replace(one, source=source) if one.task == "cross-dataset" else one for one in results]
