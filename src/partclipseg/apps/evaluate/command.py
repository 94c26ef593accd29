"""``partclipseg evaluate``: the scores of a model on a data set, with a report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from partclipseg.apps.evaluate.output import check_folder
from partclipseg.apps.instance_options import FindInstances, InstanceOptions
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
from partclipseg.apps.terminal import plain_console
from partclipseg.data.datasets.choice import dataset_option
from partclipseg.data.datasets.spec import Split
from partclipseg.errors import UsageError
from partclipseg.evaluation.choices import PROTOCOL_HELP, BoundaryKind, Metric, Protocol, Rule
from partclipseg.models.number_types import PredictionType

_PROTOCOL_HELP = "\n".join(
    f"{name}: {text}"
    for name, text in {**PROTOCOL_HELP, "all": "the first three, from one pass over the photos."}.items()
)


@dataclass(frozen=True)
class Evaluate:
    """Score a model on a benchmark, beside the published figures, or on your own data.

    Started again with the same --output, an evaluation that was stopped continues.

    Examples:
      partclipseg evaluate partclipseg-pascal --dataset pascal-part-116 --data data/PascalPart116 --output reports
      partclipseg evaluate runs/cars/best --dataset coco --data data/cars --object car
      partclipseg evaluate partshapes --dataset partshapes
      partclipseg evaluate partshapes --dataset partshapes --split instances --metric partpq --instances true-boxes
      torchrun --nproc-per-node 4 -m partclipseg.apps.cli -- evaluate ...   (one process for each GPU)
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
    split: Split | Literal["instances"] = "test"
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
        self._check_options()
        from partclipseg.apps.evaluate.run import Evaluation
        from partclipseg.apps.evaluate.subject import open_subject
        from partclipseg.processes import join_processes
        from partclipseg.writing import claimed

        processes = join_processes(cpu=self.device == "cpu")
        console = plain_console(quiet=not processes.is_main_process)
        # Check the options and the data before the model is loaded.
        subject = open_subject(self, processes, console)
        if self.output is None or not processes.is_main_process:
            return Evaluation(self, subject, processes, console).run()
        with claimed(self.output):
            if not self.overwrite:
                check_folder(self.output, self._files())
            return Evaluation(self, subject, processes, console).run()

    @property
    def finds(self) -> InstanceOptions:
        """Return what says where objects are, for the metrics that ask whose a part is."""
        return self.find if self.find.asked else replace(self.find, instances="components")

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
            self.finds.check(["json"], all_formats(), zoom=False)
        check_least(batch_size=(self.batch_size, 1), limit=(self.limit, 1), workers=(self.workers, 0))
        self.ask.prompting()

    def _files(self) -> tuple[str, ...]:
        """Return the names of the files that the report replaces in its folder."""
        more = {"iou": ("photos.html",), "partpq": (), "ap": ("truth.json", "detections.json")}
        return ("report.md", "scores.json", *more[self.metric])
