"""``partclipseg evaluate``: the scores of a model on a data set, with a report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from partclipseg.apps.checking import progress_bar
from partclipseg.apps.evaluation_data import SplitChoice, Subject, open_files, open_scenes, training_words
from partclipseg.apps.evaluation_output import check_folder, present_score, rich_table, write_files
from partclipseg.apps.instance_options import FindInstances, InstanceOptions, LoadedInstances
from partclipseg.apps.options import (
    Ask,
    Asking,
    BatchSize,
    Device,
    ModelArgument,
    Own,
    OwnData,
    Zoom,
    check_least,
    optional,
)
from partclipseg.data.datasets.choice import dataset_option
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.choices import (
    PROTOCOL_HELP,
    PROTOCOLS,
    TRUE_OBJECTS,
    BoundaryKind,
    Metric,
    Protocol,
    Rule,
)
from partclipseg.machine import how_to_install
from partclipseg.models.number_types import PredictionType

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from partclipseg.data.loader import PartDataset
    from partclipseg.evaluation.report import Report
    from partclipseg.evaluation.run import PhotoRecords
    from partclipseg.evaluation.state import SavedScores
    from partclipseg.inference.segmenter import PartSegmenter

    Tallies = Mapping[Any, Any]
    """Evaluator of each protocol, or counts of the metric of instances, by its name."""

_PROTOCOL_HELP = "\n".join(
    f"{name}: {text}"
    for name, text in {**PROTOCOL_HELP, "all": "the first three, from one pass over the photos."}.items()
)

_SAVE_EVERY = 30.0
"""Seconds between two saves of the state: at most this much work is lost in a crash."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model on a benchmark, beside the published figures, or on your own data.

    Started again with the same --output, an evaluation that was stopped continues.

    Examples:
      partclipseg evaluate partclipseg-pascal --dataset pascal-part-116 --data data/PascalPart116 --output reports
      partclipseg evaluate runs/cars/best --dataset coco --data data/cars --object car
      partclipseg evaluate partshapes --dataset partshapes
      partclipseg evaluate partshapes --dataset partshapes --split instances --metric partpq --instances true-boxes
      torchrun --nproc-per-node 4 -m partclipseg.apps.cli evaluate ...   (one process for each GPU)
    """

    model: ModelArgument
    dataset: Annotated[str, dataset_option(metavar="NAME")]
    root: Annotated[Path | None, optional("DIR"), tyro.conf.arg(name="data")] = None
    """The data set's folder; a rendered one needs none."""
    protocol: Annotated[Literal[Protocol, "all"], tyro.conf.arg(help=_PROTOCOL_HELP)] = "all"
    metric: Literal["iou", Metric] = "iou"
    """iou: pixels, by --protocol; objects of one kind are not told apart.
    partpq: parts with their owner, PartPQ. ap: objects and object-parts as instances, by the rules of LVIS, PACO and
    COCO. Both need data that tell objects apart, and --instances, which is components where it is left out; true-boxes
    and true-masks take the objects from the labels, and so measure the parts alone."""
    rule: Rule = "partclipseg"
    """Classes that mIoU, the mean IoU, is averaged over: those with labels (partclipseg), those with an IoU above 0
    (partcatseg), or those with labels, divided by the number of those labelled or predicted (ov-parts). The report
    shows all three. partcatseg and ov-parts count resized labels, as their evaluators do."""
    split: SplitChoice = "test"
    """Split to score; published figures are of the test split. partshapes has instances too: several of one kind."""
    boundary: Literal[BoundaryKind, "none"] = "per_class"
    """Boundary IoU of each class (per_class), or computed as in the published evaluation (reference)."""
    output: Annotated[Path | None, optional("DIR")] = None
    """Folder for the report: scores.json, report.md, pictures of bars, a page of the best and worst photos; with
    --metric ap, instead of the pictures, truth.json and detections.json for the public evaluators.
    Left out: the scores are only printed."""
    limit: Annotated[int | None, optional("N")] = None
    """Score only the first N photos. Left out: all of them; 1000 of a rendered data set."""
    vocabulary: Annotated[str | None, optional("WORDS")] = None
    """Other words than the data set's own: "seen", a file, or text such as "dog: head, torso, leg, tail"."""
    vocabulary_of_training: Annotated[str | None, optional("WORDS")] = None
    """Words that the model was trained on, where it was on another data set: "model" for those that it came with, a
    catalogue such as ade20k-part-234, a file, or text. The classes that they share with this data set count as seen."""
    zoom: Zoom = False
    device: Device = None
    dtype: PredictionType = "float32"
    """Number type of the model's arithmetic: float32 for figures that others can be compared with.
    bfloat16 is several times faster on GPUs."""
    batch_size: BatchSize = 8
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """Processes that read photos ahead."""
    verify: bool = False
    """Compare the photos with those of a stopped evaluation by their content, not by their size and time."""
    overwrite: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Replace files of the report that a person changed. Without it they are kept, and the new ones get other names."""
    find: FindInstances = field(default_factory=InstanceOptions)
    own: Own = field(default_factory=OwnData)
    ask: Ask = field(default_factory=Asking)

    def run(self) -> int:
        from rich.console import Console

        from partclipseg.processes import join_processes
        from partclipseg.writing import claimed

        self._check_options()
        self.ask.prompting()
        processes = join_processes(cpu=self.device == "cpu")
        console = Console(quiet=not processes.is_main_process, soft_wrap=True, highlight=False)
        # Check the options and the data before the model is loaded.
        subject = self._with_training(self._open_subject(processes, console))
        if self.output is None or not processes.is_main_process:
            return self._evaluate(subject, processes, console)
        with claimed(self.output):
            if not self.overwrite:
                check_folder(self.output, self._files())
            return self._evaluate(subject, processes, console)

    def _evaluate(self, subject: Subject, processes: PartialState, console: Console) -> int:
        from partclipseg.evaluation.run import is_scored
        from partclipseg.evaluation.state import merge_processes
        from partclipseg.inference.segmenter import PartSegmenter

        loaded = self._load_instances()
        evaluators = self._evaluators(subject)
        saved = self._saved_scores(subject, loaded)
        # 1. The main process holds what was saved; all of them leave those photos out.
        pending = photos = subject.photos
        if saved is not None:
            saved.load(evaluators)
            pending = [photo for photo in photos if not is_scored(photo, evaluators)]
            processes.wait_for_everyone()
            if processes.is_main_process:
                saved.save_all(evaluators)
                if len(pending) < len(photos):
                    done = len(photos) - len(pending)
                    console.print(f"continuing: {done} of {len(photos)} photos are scored already")
            else:
                evaluators = self._evaluators(subject)
            processes.wait_for_everyone()
        # 2. Every process takes its share of the others.
        device = processes.device if processes.num_processes > 1 else self.device
        segmenter = PartSegmenter.from_pretrained(self.model, device, self.dtype, prompting=self.ask.prompting())
        console.print(
            f"model: {self.model} ({segmenter.model.title}), {self.dtype}, "
            f"{processes.num_processes} x {segmenter.device.type}",
            markup=False,
        )
        share = pending[processes.process_index :: processes.num_processes]
        try:
            self._score(segmenter, subject.dataset, share, evaluators, loaded, saved, processes.process_index, console)
        except KeyboardInterrupt:
            self._say_stopped(evaluators, subject, processes)
            return 130
        # 3. The main process saves and reports the counts of all.
        merge_processes(evaluators, processes.num_processes)
        processes.destroy_process_group()
        if not processes.is_main_process:
            return 0
        if saved is not None:
            saved.save_all(evaluators)
        scores = [evaluator.compute() for evaluator in evaluators.values()]
        if not any(one.has_truth for one in scores):
            if saved is not None:
                saved.remove()  # the same photos would leave nothing to score again
            raise PartCLIPSegError(self._nothing_to_score(len(photos)))
        self._report(segmenter, subject, scores, evaluators, saved, console)
        return 0

    def _nothing_to_score(self, photos: int) -> str:
        """Return why no score of the photos means anything, and what to do."""
        lacking = {
            "iou": "a labelled part that is asked for",
            "ap": "a labelled object or part that is no crowd",
            "partpq": "an object with labelled parts that is no crowd",
        }
        remedy = "label some, or check --data"
        if self.limit is not None:
            remedy = "leave --limit out, or raise it"
        elif self.vocabulary is not None:
            remedy = "ask for words that are labelled, or leave --vocabulary out"
        elif self.metric != "iou":
            remedy = f"annotate single objects, whose iscrowd is 0, {'and their parts ' * (self.metric == 'partpq')}or "
            remedy += "check --data"
        return f"nothing to score: none of the {photos} photos has {lacking[self.metric]}: {remedy}"

    def _say_stopped(
        self, evaluators: Tallies, subject: Subject, processes: PartialState
    ) -> None:
        from rich.console import Console

        from partclipseg.evaluation.run import is_scored

        done = sum(is_scored(photo, evaluators) for photo in subject.photos)
        text = f"stopped after {done} of {len(subject.photos)} photos; nothing is saved without --output"
        if self.output is not None:
            text = f"stopped; the scores so far are saved in {self.output}, and the same command continues"
            if processes.num_processes == 1:
                text = text.replace("stopped", f"stopped after {done} of {len(subject.photos)} photos", 1)
        silent = not processes.is_main_process
        Console(stderr=True, soft_wrap=True, highlight=False, quiet=silent).print(text, markup=False)

    def _check_options(self) -> None:
        if self.metric == "iou":
            if self.find != InstanceOptions():
                raise UsageError("--instances and its options apply to --metric partpq and ap: name one of them")
        else:
            from partclipseg.formats.registry import all_formats

            usual = Evaluate("", "")
            for name in ("protocol", "rule", "boundary", "zoom", "vocabulary_of_training"):
                if getattr(self, name) != getattr(usual, name):
                    option = name.replace("_", "-")
                    raise UsageError(f"--{option} does not apply to --metric {self.metric}: leave it out")
            self._finds().check(["json"], all_formats(), zoom=False)
        check_least(batch_size=(self.batch_size, 1), limit=(self.limit, 1), workers=(self.workers, 0))

    def _finds(self) -> InstanceOptions:
        """Return what says where objects are, for the metrics that ask whose a part is."""
        return self.find if self.find.asked else replace(self.find, instances="components")

    def _load_instances(self) -> LoadedInstances:
        """Load the source of objects; raises as `InstanceOptions.load` does."""
        finds = self._finds()
        if self.metric == "iou":
            return LoadedInstances()
        if finds.instances not in TRUE_OBJECTS:
            return finds.load(self.device)
        if finds.instance_threshold is not None:
            raise UsageError("--instance-threshold is for a detector: leave it out")
        # The outliner is loaded by the same options; the objects are in the labels.
        return replace(finds, instances="components").load(self.device)._replace(instances=finds.instances)

    # -- the data set to score -- -------------------------------------------------------------------------------------

    def _open_subject(self, processes: PartialState, console: Console) -> Subject:
        from partclipseg.data.datasets.registry import dataset_spec

        which = (self.split, self.limit, self.vocabulary)
        own = self.own.given()
        if (rendering := dataset_spec(self.dataset).rendering) is not None:
            if unused := ["data"] * (self.root is not None) + list(own):
                raise UsageError(f"--{unused[0]} does not apply to {self.dataset}: leave it out")
            return open_scenes(self.dataset, rendering, *which)
        if self.root is None:
            raise UsageError(f"--data is missing: name the folder of {self.dataset}")
        kinds = self.metric != "iou", self.rule == "ov-parts"
        return open_files(self.dataset, self.root, *which, own, *kinds, processes, console)

    def _with_training(self, subject: Subject) -> Subject:
        """Add the words that the model was trained on, if they are named."""
        if self.vocabulary_of_training is None:
            return subject
        from partclipseg.evaluation.cross import SharedWords

        training = training_words(self.vocabulary_of_training, self.model)
        return replace(subject, shared=SharedWords.of(training, subject.dataset.vocabulary))

    def _evaluators(self, subject: Subject) -> Tallies:
        from partclipseg.evaluation.instances import make_counts
        from partclipseg.evaluation.run import make_evaluators

        if self.metric != "iou":
            return {self.metric: make_counts(subject.dataset, self.metric)}
        return make_evaluators(
            subject.dataset,
            PROTOCOLS if self.protocol == "all" else self.protocol,
            seen=None if subject.shared is None else subject.shared.pairs,
            rule=self.rule,
            boundary=None if self.boundary == "none" else self.boundary,
        )

    def _saved_scores(self, subject: Subject, loaded: LoadedInstances) -> SavedScores | None:
        from partclipseg.evaluation.resized_labels import LABELS
        from partclipseg.evaluation.state import SavedScores, model_digest, text_digest

        if self.output is None:
            return None
        classes = text_digest(subject.dataset.vocabulary.names)
        options = {
            "model": model_digest(self.model),
            "dataset": self.dataset,
            "split": self.split,
            "protocol": self.protocol,
            "boundary": self.boundary,
            "zoom": self.zoom,
            "dtype": self.dtype,
            "limit": self.limit,
            "vocabulary": None if self.vocabulary is None else classes,
            # Entries of options that older releases did not have, or did not save, stand only where they are given.
            **({} if self.rule == "partclipseg" else {"rule": self.rule, "labels": LABELS[self.rule]}),
            **({} if subject.shared is None else {"vocabulary_of_training": subject.shared.digest}),
            **({"prompting": str(prompting)} if (prompting := self.ask.prompting()) else {}),
            **({} if self.metric == "iou" else {"metric": self.metric, **self._finds().describe(loaded)}),
        }
        return SavedScores(self.output, options, {**subject.digests(self.verify), "class list": classes})

    # -- scoring ----------------------------------------------------------------------------------------------

    def _score(
        self,
        segmenter: PartSegmenter,
        dataset: PartDataset,
        photos: list[PhotoRecords],
        evaluators: Tallies,
        loaded: LoadedInstances,
        saved: SavedScores | None,
        process: int,
        console: Console,
    ) -> None:
        from partclipseg.evaluation.instances import score_instances
        from partclipseg.evaluation.run import score_photos

        first = next(iter(evaluators.values()))
        last_saved = time.monotonic()
        if self.metric == "iou":
            batches = score_photos(segmenter, dataset, photos, evaluators, self.zoom, self.batch_size, self.workers)
        else:
            sizes = (self.batch_size, self.workers)
            batches = score_instances(segmenter, dataset, photos, first, *loaded, *sizes)
        try:
            with progress_bar(console) as progress:
                task = progress.add_task("scoring", total=len(photos), note="")
                for number in batches:
                    note = present_score(first)
                    progress.update(task, advance=number, note=note)
                    if saved is not None and time.monotonic() - last_saved > _SAVE_EVERY:
                        saved.save(evaluators, process)
                        last_saved = time.monotonic()
        finally:
            if saved is not None:
                saved.save(evaluators, process)

    def _files(self) -> tuple[str, ...]:
        """Return the names of the files that the report replaces in its folder."""
        more = {"iou": ("photos.html",), "partpq": (), "ap": ("truth.json", "detections.json")}
        return ("report.md", "scores.json", *more[self.metric])

    # -- output -- ------------------------------------------------------------------------------

    def _report(
        self,
        segmenter: PartSegmenter,
        subject: Subject,
        scores: list[Any],
        evaluators: Tallies,
        saved: SavedScores | None,
        console: Console,
    ) -> None:
        from partclipseg.evaluation.report import Report

        settings = json.loads(json.dumps(asdict(self), default=str))
        del settings["overwrite"]  # the scores do not depend on it
        report = Report(
            model=Path(self.model).name,
            dataset=self.dataset,
            settings=settings if saved is None else {**settings, "data": saved.data},
            scores=tuple(scores),
            photos=len(subject.photos),
            compared=subject.shared is None,
            remark=self._remark(subject),
        )
        if self.output is not None:  # before anything is printed: standard output may be closed
            self._write(self.output, report, segmenter, subject, evaluators, console)
            if saved is not None:
                saved.remove()
        for table in report.tables():
            console.print(rich_table(table), "")
        if report.remark:
            console.print(report.remark, markup=False)
        if self.output is not None:
            console.print(f"report: {self.output / 'report.md'}", markup=False)

    def _remark(self, subject: Subject) -> str:
        """Return why the scores are not those of the benchmark; empty if they are."""
        reasons = [subject.remark] if subject.remark else []
        if self.limit is not None:
            reasons.append(f"only the first photos were scored (--limit {self.limit})")
        if self.vocabulary is not None:
            reasons.append("other words than the data set's own were asked for")
        if self.zoom:
            reasons.append("small objects were looked at a second time (--zoom)")
        if self.split != "test":
            reasons.append(f"the {self.split} split was scored")
        remark = f"Not comparable with published figures: {', '.join(reasons)}." if reasons else ""
        if subject.shared is None:
            return remark
        cross = f"Cross-dataset: {subject.shared.sentence()}; these object-parts stand under seen."
        return f"{cross} {remark}".strip()

    def _write(
        self,
        folder: Path,
        report: Report,
        segmenter: PartSegmenter,
        subject: Subject,
        evaluators: Tallies,
        console: Console,
    ) -> None:
        from partclipseg.evaluation.average_precision import AveragePrecision
        from partclipseg.evaluation.coco_files import detections_file, truth_file
        from partclipseg.evaluation.examples import draw_report
        from partclipseg.kept_files import KeptFiles

        files, bars, page = KeptFiles(folder, "evaluate", self.overwrite), None, None
        if self.metric == "iou":
            title = f"{report.model} on {report.dataset}"
            bars, page = draw_report(
                files, title, segmenter, subject.dataset, subject.photos, evaluators, self.zoom
            )
            if bars is None:
                console.print(f"no bars are drawn, matplotlib is missing: {how_to_install('plots')}", markup=False)
        texts = {
            "report.md": report.to_markdown(bars, page),
            "scores.json": json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n",
        }
        if isinstance(counts := evaluators.get("ap"), AveragePrecision):
            texts["truth.json"] = json.dumps(truth_file(counts), ensure_ascii=False)
            texts["detections.json"] = json.dumps(detections_file(counts))
        write_files(files, texts, console)
