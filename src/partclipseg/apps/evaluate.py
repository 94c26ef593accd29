"""``partclipseg evaluate``: the scores of a model on a data set, with a report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from partclipseg.errors import UsageError

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from partclipseg.data.source import FileDataset
    from partclipseg.evaluation.protocol import Evaluator
    from partclipseg.evaluation.report import Report, Table
    from partclipseg.evaluation.run import PhotoRecords
    from partclipseg.evaluation.scores import Protocol
    from partclipseg.evaluation.state import SavedScores
    from partclipseg.inference.segmenter import PartSegmenter

_SAVE_EVERY = 30.0
"""Seconds between two writings of the state: what an interruption without warning costs."""

_EXAMPLES = 6
"""Best and worst photos shown, of each."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model on a benchmark or on your own data, beside the published figures.

    Started again with the same --output, an evaluation that was stopped continues.

    Examples:
      partclipseg evaluate models/pascal --dataset pascal-part-116 --root data/PascalPart116 --output reports/pascal
      partclipseg evaluate models/cars --dataset coco --root data/car_parts --object car
      accelerate launch --num_processes 4 -m partclipseg.apps.cli evaluate ...   (one process for each GPU)
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model's directory or hub name: PartCLIPSeg, or the CLIPSeg baseline."""
    dataset: Literal["pascal-part-116", "ade20k-part-234", "part-imagenet", "coco", "index-png"]
    """A benchmark; or your own photos with annotations as COCO JSON (coco) or as label pictures with a class list
    (index-png)."""
    root: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The data set's folder."""
    protocol: Literal["oracle_obj", "pred_all", "strict", "all"] = "all"
    """oracle_obj: the model is told which objects are in the photo. pred_all: it is told nothing; what it finds
    outside the labels is not counted. strict: it is told nothing, and a part found on the background is an error.
    all: these three, from one pass over the photos."""
    split: Literal["train", "test"] = "test"
    """Which photos; published figures are of the test split."""
    boundary: Literal["per_class", "reference", "none"] = "per_class"
    """Boundary IoU of each class (per_class), or computed as in the published evaluation (reference)."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the report: scores.json, report.md, a picture of bars, a page of the best and worst photos. Without
    it the scores are only printed."""
    batch_size: int = 8
    """Photos that go through the model together."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Score only the first N photos."""
    device: str | None = None
    """cpu, cuda, cuda:1, ... Left out: CUDA where there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the model's arithmetic; bfloat16 is faster on most GPUs."""
    workers: int = 2
    """Processes that read photos ahead."""
    vocabulary: Annotated[str | None, tyro.conf.arg(metavar="WORDS")] = None
    """Other words than all of the data set's: "seen", a file, or text such as "dog: ear, tail"."""
    object: Annotated[str | None, tyro.conf.arg(metavar="WORD")] = None
    """Own data: the object that all parts belong to, where the files do not say it, such as: car."""
    mapping: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Own data: YAML or JSON that says what each class stands for: `left_ear: dog's ear`, or `dog: [ear, tail]`."""
    annotations: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """coco: the annotation file, where it has no usual name."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """coco: the folder of the photos, where they lie neither beside the annotation file nor in the root."""
    classes: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """index-png: the class list, where it is not classes.txt, .yaml or .json in the root."""

    def run(self) -> int:
        from accelerate import PartialState
        from accelerate.utils import gather_object
        from rich.console import Console

        from partclipseg.evaluation.run import group_records, is_scored
        from partclipseg.evaluation.state import merge_states, states_of
        from partclipseg.inference.segmenter import PartSegmenter

        self._check_numbers()
        processes = PartialState(cpu=self.device == "cpu")
        console = Console(quiet=not processes.is_main_process, soft_wrap=True, highlight=False)
        # 1. What can be wrong is found before the model is loaded.
        dataset = self._open_dataset(processes, console)
        photos = group_records(dataset)[: self.limit]
        evaluators = self._evaluators(dataset)
        saved = self._saved_scores(dataset, photos)
        # 2. The main process holds what was saved; all of them leave those photos out.
        pending = photos
        if saved is not None:
            saved.load(evaluators)
            pending = [photo for photo in photos if not is_scored(photo, dataset, evaluators)]
            processes.wait_for_everyone()
            if processes.is_main_process:
                saved.save_all(evaluators)
                if len(pending) < len(photos):
                    done = len(photos) - len(pending)
                    console.print(f"continuing: {done} of {len(photos)} photos are scored already")
            else:
                evaluators = self._evaluators(dataset)
            processes.wait_for_everyone()
        # 3. Every process takes its share of the others.
        device = processes.device if processes.num_processes > 1 else self.device
        segmenter = PartSegmenter.from_pretrained(self.model, device, self.dtype)
        console.print(
            f"model: {self.model} ({type(segmenter.model).__name__}), {self.dtype}, "
            f"{processes.num_processes} x {segmenter.device.type}",
            markup=False,
        )
        share = pending[processes.process_index :: processes.num_processes]
        self._score(segmenter, dataset, share, evaluators, saved, processes.process_index, console)
        # 4. The main process brings all counts together.
        states = gather_object([states_of(evaluators)])
        processes.destroy_process_group()
        if not processes.is_main_process:
            return 0
        for other in states[1:]:
            merge_states(evaluators, other)
        if saved is not None:
            saved.save_all(evaluators)
        self._report(segmenter, dataset, photos, evaluators, console)
        return 0

    def _check_numbers(self) -> None:
        for name, least in (("batch_size", 1), ("limit", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")

    # -- what is scored ---------------------------------------------------------------------------------------

    def _open_dataset(self, processes: PartialState, console: Console) -> FileDataset:
        """Check the files, in the main process, and open the data set."""
        from accelerate.utils import gather_object

        from partclipseg.data.check import check_dataset, raise_if_broken
        from partclipseg.data.datasets import open_dataset

        own = {name: getattr(self, name) for name in ("object", "mapping", "annotations", "images", "classes")}
        report = None
        if processes.is_main_process:
            with _progress(console) as progress:
                task = progress.add_task("checking files", total=None, note="")

                def show(done: int, total: int) -> None:
                    progress.update(task, completed=done, total=total)

                report = check_dataset(self.dataset, self.root, self.split, on_progress=show, **own)
        broken = gather_object([report is not None and not report.ok])
        if report is not None:
            raise_if_broken(report)
        if any(broken):
            raise SystemExit(1)  # the main process says why
        return open_dataset(self.dataset, self.root, self.split, self.vocabulary, **own)

    def _evaluators(self, dataset: FileDataset) -> dict[Protocol, Evaluator]:
        from partclipseg.evaluation.protocol import Evaluator
        from partclipseg.evaluation.scores import PROTOCOLS

        boundary = None if self.boundary == "none" else self.boundary
        protocols = PROTOCOLS if self.protocol == "all" else (self.protocol,)
        return {name: Evaluator(dataset.vocabulary, dataset.seen, name, boundary) for name in protocols}

    def _saved_scores(self, dataset: FileDataset, photos: list[PhotoRecords]) -> SavedScores | None:
        from partclipseg.evaluation.state import SavedScores, model_digest, text_digest

        if self.output is None:
            return None
        records = [dataset.records[index].key for photo in photos for index in photo.indices]
        options = {
            "model": model_digest(self.model),
            "dataset": self.dataset,
            "split": self.split,
            "protocol": self.protocol,
            "boundary": self.boundary,
            "dtype": self.dtype,
            "photos": len(photos),
            "records": text_digest(records),
            "vocabulary": text_digest(dataset.vocabulary.names),
        }
        return SavedScores(self.output, options)

    # -- scoring ----------------------------------------------------------------------------------------------

    def _score(
        self,
        segmenter: PartSegmenter,
        dataset: FileDataset,
        photos: list[PhotoRecords],
        evaluators: Mapping[Protocol, Evaluator],
        saved: SavedScores | None,
        process: int,
        console: Console,
    ) -> None:
        from partclipseg.evaluation.run import read_batches, score

        first = next(iter(evaluators.values()))
        last_saved = time.monotonic()
        batches = read_batches(dataset, photos, segmenter.model.config.image_shape, self.batch_size, self.workers)
        try:
            with _progress(console) as progress:
                task = progress.add_task("scoring", total=len(photos), note="")
                for batch in batches:
                    score(segmenter, dataset.vocabulary, batch, evaluators)
                    note = f"mIoU {first.running_iou():.2f} ({first.protocol})"
                    progress.update(task, advance=len(batch), note=note)
                    if saved is not None and time.monotonic() - last_saved > _SAVE_EVERY:
                        saved.save(evaluators, process)
                        last_saved = time.monotonic()
        finally:
            if saved is not None:
                saved.save(evaluators, process)

    # -- what is said about it --------------------------------------------------------------------------------

    def _report(
        self,
        segmenter: PartSegmenter,
        dataset: FileDataset,
        photos: list[PhotoRecords],
        evaluators: Mapping[Protocol, Evaluator],
        console: Console,
    ) -> None:
        from partclipseg.evaluation.report import Report

        report = Report(
            model=Path(self.model).name,
            dataset=self.dataset,
            settings=json.loads(json.dumps(asdict(self), default=str)),
            scores=tuple(evaluator.compute() for evaluator in evaluators.values()),
            photos=len(photos),
            remark=self._remark(dataset),
        )
        if self.output is not None:  # before anything is printed: the reader of our output may go away
            self._write(self.output, report, segmenter, dataset, photos, evaluators, console)
        for table in report.tables():
            console.print(_rich_table(table), "")
        if report.remark:
            console.print(report.remark, markup=False)
        if self.output is not None:
            console.print(f"report: {self.output / 'report.md'}", markup=False)

    def _remark(self, dataset: FileDataset) -> str:
        """Why the scores are not those of the benchmark, if they are not."""
        reasons = []
        if self.dataset == "ade20k-part-234" and len({record.source.split for record in dataset.records}) == 1:
            reasons.append("the test records draw on the training and the validation files, and one is missing")
        if self.limit is not None:
            reasons.append(f"only the first photos were scored (--limit {self.limit})")
        if self.vocabulary is not None:
            reasons.append("other words than the data set's own were asked for")
        if self.split != "test":
            reasons.append(f"the {self.split} split was scored")
        return f"Not comparable with published figures: {', '.join(reasons)}." if reasons else ""

    def _write(
        self,
        folder: Path,
        report: Report,
        segmenter: PartSegmenter,
        dataset: FileDataset,
        photos: list[PhotoRecords],
        evaluators: Mapping[Protocol, Evaluator],
        console: Console,
    ) -> None:
        from partclipseg.evaluation.examples import best_and_worst, make_examples
        from partclipseg.evaluation.pictures import draw_class_bars, write_photo_page
        from partclipseg.files import write_text

        title = f"{report.model} on {report.dataset}"
        bars: dict[Protocol, str] = {}
        try:
            for scores in report.scores:
                name = f"classes-{scores.protocol}.png"
                draw_class_bars(scores, folder / name, f"{title}, {scores.protocol}")
                bars[scores.protocol] = name
        except ImportError:
            console.print("no bars are drawn, matplotlib is missing: pip install 'partclipseg[plots]'", markup=False)
        # Of several protocols the last is the strictest: it shows whole photos.
        *_, evaluator = evaluators.values()
        best, worst = best_and_worst(evaluator, _EXAMPLES)
        groups = {
            heading: make_examples(segmenter, dataset, photos, evaluator, keys)
            for heading, keys in (("Best photos", best), ("Worst photos", worst))
            if keys
        }
        write_photo_page(folder / "photos.html", title, evaluator.protocol, groups, dataset.vocabulary)
        write_text(folder / "report.md", report.to_markdown(bars, "photos.html"))
        write_text(folder / "scores.json", json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")


@contextmanager
def _progress(console: Console) -> Iterator[Any]:
    """A progress bar that is silent unless a person is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    silent = console.quiet or not console.is_terminal
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=silent) as progress:
        yield progress


def _rich_table(table: Table) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
    for place, column in enumerate(table.columns):
        result.add_column(column, justify="right" if place else "left")
    for row in table.rows:
        result.add_row(*(Text(cell) for cell in row))
    return result
