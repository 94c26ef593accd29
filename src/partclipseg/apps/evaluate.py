"""``partclipseg evaluate``: the scores of a model on a data set, with a report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from partclipseg.apps.checking import check_bar, progress_bar
from partclipseg.apps.options import Ask, Asking, BatchSize, Device, Own, OwnData, Zoom, optional
from partclipseg.data.datasets.choice import dataset_option
from partclipseg.data.datasets.spec import Split
from partclipseg.errors import UsageError
from partclipseg.machine import how_to_install
from partclipseg.models.number_types import NumberType

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from partclipseg.data.datasets.spec import Rendering
    from partclipseg.data.loader import PartDataset
    from partclipseg.evaluation.evaluator import Evaluator
    from partclipseg.evaluation.report import Report, Table
    from partclipseg.evaluation.run import PhotoRecords
    from partclipseg.evaluation.scores import Protocol
    from partclipseg.evaluation.state import SavedScores
    from partclipseg.inference.segmenter import PartSegmenter

_SAVE_EVERY = 30.0
"""Seconds between two saves of the state: at most this much work is lost in a crash."""

_EXAMPLES = 6
"""Number of best and of worst photos shown."""


@dataclass(frozen=True)
class _Subject:
    """Data set to score."""

    dataset: PartDataset
    photos: list[PhotoRecords]
    remark: str = ""
    """Reason why this is not the whole benchmark; empty if it is."""
    digest: Mapping[str, str] = field(default_factory=dict)
    """Digest of the settings of rendered scenes; empty for files, whose digest is computed."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model on a benchmark, beside the published figures, or on your own data.

    Started again with the same --output, an evaluation that was stopped continues.

    Examples:
      partclipseg evaluate models/pascal --dataset pascal-part-116 --data data/PascalPart116 --output reports/pascal
      partclipseg evaluate models/cars --dataset coco --data data/car_parts --object car
      partclipseg evaluate partshapes --dataset partshapes
      torchrun --nproc-per-node 4 -m partclipseg.apps.cli evaluate ...   (one process for each GPU)
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model's directory or hub name; partshapes is the built-in model."""
    dataset: Annotated[str, dataset_option(metavar="NAME")]
    root: Annotated[Path | None, optional("DIR"), tyro.conf.arg(name="data")] = None
    """The data set's folder; a rendered one needs none."""
    protocol: Literal["oracle_obj", "pred_all", "strict", "all"] = "all"
    """oracle_obj: the model is told which objects are in the photo.
    pred_all: it is told nothing; what it finds outside the labels is not counted.
    strict: it is told nothing, and a part found on the background is an error.
    all: these three, from one pass over the photos."""
    rule: Literal["partclipseg", "partcatseg", "ov-parts"] = "partclipseg"
    """Classes that mIoU is averaged over: those with labels (partclipseg), those with an IoU above 0 (partcatseg), or
    those with labels, divided by the number of those labelled or predicted (ov-parts). The report shows all three."""
    split: Split = "test"
    """Split to score; published figures are of the test split."""
    boundary: Literal["per_class", "reference", "none"] = "per_class"
    """Boundary IoU of each class (per_class), or computed as in the published evaluation (reference)."""
    output: Annotated[Path | None, optional("DIR")] = None
    """Folder for the report: scores.json, report.md, pictures of bars, a page of the best and worst photos.
    Left out: the scores are only printed."""
    limit: Annotated[int | None, optional("N")] = None
    """Score only the first N photos. Left out: all of them; 1000 of a rendered data set."""
    vocabulary: Annotated[str | None, optional("WORDS")] = None
    """Other words than the data set's own: "seen", a file, or text such as "dog: head, torso, leg, tail"."""
    zoom: Zoom = False
    device: Device = None
    dtype: NumberType = "float32"
    """Number type of the model's arithmetic: float32 for figures that others can be compared with.
    bfloat16 is several times faster on GPUs."""
    batch_size: BatchSize = 8
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """Processes that read photos ahead."""
    verify: bool = False
    """Compare the photos with those of a stopped evaluation by their content, not by their size and time."""
    own: Own = field(default_factory=OwnData)
    ask: Ask = field(default_factory=Asking)

    def run(self) -> int:
        from rich.console import Console

        from partclipseg.processes import join_processes
        from partclipseg.writing import claimed

        self._check_numbers()
        self.ask.prompting()
        processes = join_processes(cpu=self.device == "cpu")
        console = Console(quiet=not processes.is_main_process, soft_wrap=True, highlight=False)
        # Check the options and the data before the model is loaded.
        subject = self._open_subject(processes, console)
        if self.output is None or not processes.is_main_process:
            return self._evaluate(subject, processes, console)
        with claimed(self.output):
            _check_folder(self.output)
            return self._evaluate(subject, processes, console)

    def _evaluate(self, subject: _Subject, processes: PartialState, console: Console) -> int:
        from partclipseg.evaluation.run import is_scored
        from partclipseg.evaluation.state import merge_processes
        from partclipseg.inference.segmenter import PartSegmenter

        evaluators = self._evaluators(subject)
        saved = self._saved_scores(subject)
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
            self._score(segmenter, subject.dataset, share, evaluators, saved, processes.process_index, console)
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
        self._report(segmenter, subject, evaluators, saved, console)
        return 0

    def _say_stopped(
        self, evaluators: Mapping[Protocol, Evaluator], subject: _Subject, processes: PartialState
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

    def _check_numbers(self) -> None:
        for name, least in (("batch_size", 1), ("limit", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")

    # -- the data set to score -- -------------------------------------------------------------------------------------

    def _open_subject(self, processes: PartialState, console: Console) -> _Subject:
        from partclipseg.data.datasets.registry import dataset_spec

        if (rendering := dataset_spec(self.dataset).rendering) is not None:
            return self._open_scenes(rendering)
        if self.root is None:
            raise UsageError(f"--data is missing: name the folder of {self.dataset}")
        return self._open_files(self.root, processes, console)

    def _open_scenes(self, rendering: Rendering) -> _Subject:
        from partclipseg.evaluation.run import group_records

        if unused := ["data"] * (self.root is not None) + list(self.own.given()):
            raise UsageError(f"--{unused[0]} does not apply to {self.dataset}: leave it out")
        words = self.vocabulary or "all"
        if words not in ("all", "seen"):
            raise UsageError(f"{self.dataset} has the words 'seen' and 'all', not {words!r}: leave --vocabulary out")
        dataset = rendering.load()(self.split, self.limit or rendering.scored, vocabulary=words)
        return _Subject(dataset, group_records(dataset), digest=dataset.digest)

    def _open_files(self, root: Path, processes: PartialState, console: Console) -> _Subject:
        """Check the files and open the data set."""
        from partclipseg.data.check import check_together
        from partclipseg.data.datasets.registry import dataset_spec, open_dataset
        from partclipseg.evaluation.run import group_records

        own = self.own.given()
        with check_bar(console) as show:
            check_together(self.dataset, root, self.split, processes, show, **own)
        dataset = open_dataset(self.dataset, root, self.split, self.vocabulary, **own)
        remark = dataset_spec(self.dataset).remark(dataset)
        return _Subject(dataset, group_records(dataset)[: self.limit], remark)

    def _evaluators(self, subject: _Subject) -> dict[Protocol, Evaluator]:
        from partclipseg.evaluation.run import make_evaluators
        from partclipseg.evaluation.scores import PROTOCOLS

        return make_evaluators(
            subject.dataset,
            PROTOCOLS if self.protocol == "all" else self.protocol,
            rule=self.rule,
            boundary=None if self.boundary == "none" else self.boundary,
        )

    def _saved_scores(self, subject: _Subject) -> SavedScores | None:
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
            **({"prompting": str(prompting)} if (prompting := self.ask.prompting()) else {}),
        }
        return SavedScores(self.output, options, {**self._data_digests(subject), "class list": classes})

    def _data_digests(self, subject: _Subject) -> dict[str, str]:
        """Compute digests of the photos and their annotations."""
        from partclipseg.data.fingerprint import fingerprint
        from partclipseg.data.source import FileDataset
        from partclipseg.evaluation.state import text_digest

        keys = {"records": text_digest([key for photo in subject.photos for key in photo.record_keys])}
        if not isinstance(subject.dataset, FileDataset):
            return {**keys, **subject.digest}
        records = [subject.dataset.records[photo.indices[0]] for photo in subject.photos]
        return {**fingerprint(subject.dataset, records, self.verify), **keys}

    # -- scoring ----------------------------------------------------------------------------------------------

    def _score(
        self,
        segmenter: PartSegmenter,
        dataset: PartDataset,
        photos: list[PhotoRecords],
        evaluators: Mapping[Protocol, Evaluator],
        saved: SavedScores | None,
        process: int,
        console: Console,
    ) -> None:
        from partclipseg.evaluation.run import score_photos

        first = next(iter(evaluators.values()))
        last_saved = time.monotonic()
        batches = score_photos(segmenter, dataset, photos, evaluators, self.zoom, self.batch_size, self.workers)
        try:
            with progress_bar(console) as progress:
                task = progress.add_task("scoring", total=len(photos), note="")
                for number in batches:
                    note = f"mIoU {first.running_iou():.2f} ({first.protocol})"
                    progress.update(task, advance=number, note=note)
                    if saved is not None and time.monotonic() - last_saved > _SAVE_EVERY:
                        saved.save(evaluators, process)
                        last_saved = time.monotonic()
        finally:
            if saved is not None:
                saved.save(evaluators, process)

    # -- output -- ------------------------------------------------------------------------------

    def _report(
        self,
        segmenter: PartSegmenter,
        subject: _Subject,
        evaluators: Mapping[Protocol, Evaluator],
        saved: SavedScores | None,
        console: Console,
    ) -> None:
        from partclipseg.evaluation.report import Report

        settings = json.loads(json.dumps(asdict(self), default=str))
        report = Report(
            model=Path(self.model).name,
            dataset=self.dataset,
            settings=settings if saved is None else {**settings, "data": saved.data},
            scores=tuple(evaluator.compute() for evaluator in evaluators.values()),
            photos=len(subject.photos),
            remark=self._remark(subject),
        )
        if self.output is not None:  # before anything is printed: standard output may be closed
            self._write(self.output, report, segmenter, subject, evaluators, console)
            if saved is not None:
                saved.remove()
        for table in report.tables():
            console.print(_rich_table(table), "")
        if report.remark:
            console.print(report.remark, markup=False)
        if self.output is not None:
            console.print(f"report: {self.output / 'report.md'}", markup=False)

    def _remark(self, subject: _Subject) -> str:
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
        return f"Not comparable with published figures: {', '.join(reasons)}." if reasons else ""

    def _write(
        self,
        folder: Path,
        report: Report,
        segmenter: PartSegmenter,
        subject: _Subject,
        evaluators: Mapping[Protocol, Evaluator],
        console: Console,
    ) -> None:
        from partclipseg.evaluation.examples import best_and_worst, make_examples
        from partclipseg.evaluation.pictures import draw_class_bars, write_photo_page
        from partclipseg.files import remove_temporary, write_text
        from partclipseg.writing import writing

        # The last protocol is the strictest: it shows whole photos.
        *_, evaluator = evaluators.values()
        best, worst = best_and_worst(evaluator, _EXAMPLES)
        groups = {
            heading: make_examples(segmenter, subject.dataset, subject.photos, evaluator, keys, self.zoom)
            for heading, keys in (("Best photos", best), ("Worst photos", worst))
            if keys
        }
        title = f"{report.model} on {report.dataset}"
        bars: dict[Protocol, str] = {}
        try:
            for scores in report.scores:
                name = f"classes-{scores.protocol}.png"
                with writing(folder / name):
                    draw_class_bars(scores, folder / name, f"{title}, {scores.protocol}")
                bars[scores.protocol] = name
        except ImportError:
            console.print(f"no bars are drawn, matplotlib is missing: {how_to_install('plots')}", markup=False)
        page = folder / "photos.html"
        with writing(page):
            remove_temporary(page.with_suffix(""))
            write_photo_page(page, title, evaluator.protocol, groups, subject.dataset.vocabulary)
        for name, text in (
            ("report.md", report.to_markdown(bars, page.name)),
            ("scores.json", json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"),
        ):
            with writing(folder / name):
                write_text(folder / name, text)


def _check_folder(folder: Path) -> None:
    """Raise `UsageError` if a report would replace files in a folder that holds no evaluation."""
    found = [name for name in ("photos.html", "report.md", "scores.json") if (folder / name).is_file()]
    if not found or any(folder.glob("scores-*.state")):
        return
    try:
        content = json.loads((folder / "scores.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or "scores" not in content:
        raise UsageError(
            f"{folder} holds {' and '.join(found)}, which no evaluation wrote: name another folder with --output, or "
            "move them away"
        )


def _rich_table(table: Table) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
    for place, column in enumerate(table.columns):
        result.add_column(column, justify="right" if place else "left")
    for row in table.rows:
        result.add_row(*(Text(cell) for cell in row))
    return result
