"""``partclipseg label``: a folder of photos in, a labelled data set out, however often it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from partclipseg.apps.options import (
    BatchSize,
    Dtype,
    MinScore,
    Model,
    Vocabulary,
    Zoom,
    check_min_score,
    number,
    optional,
)
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import locked, remove_temporary
from partclipseg.machine import usable_cores

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.apps.label.job import Batch, BulkJob, Record
    from partclipseg.apps.label.photos import Photo
    from partclipseg.inference.segmenter import PartSegmenter

SHOWN_FAILURES = 20
"""Photos that could not be labelled are named up to this number; the report names all."""


@dataclass(frozen=True)
class Label:
    """Label all photos in a folder and the folders inside it, for training or for correction by hand.

    The output folder gets the formats asked for, manifest.jsonl with a line for each photo, and report.html to look
    at. A run that was stopped goes on where it was when the same command is given again. A photo that cannot be
    labelled does not stop the others; the exit code is then 1.

    Examples:
      partclipseg label photos --vocabulary "dog: ear, tail; bus: wheel" --model models/pascal --output labels
      partclipseg label photos --formats yolo --output labels
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where the photos are."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the results: a new one, or that of a run to go on with."""
    vocabulary: Vocabulary = None
    model: Model = None
    formats: Annotated[
        tuple[Literal["coco", "yolo", "labelme", "png", "jsonl", "label-studio"], ...],
        tyro.conf.arg(metavar="KIND...", aliases=["--format"]),
    ] = ("coco", "png")
    """One or more kinds of result.
    coco: masks of all photos in annotations.coco.json.
    yolo: outlines for training YOLO, with data.yaml.
    labelme: outlines to correct in labelme or X-AnyLabeling.
    png: images of class indices; background is 255 (65535 with more than 255 classes).
    jsonl: a line of masks and scores for each photo in labels.jsonl.
    label-studio: outlines to correct in Label Studio."""
    objects: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD...", help_behavior_hint="")] = ()
    """Only if you know what is in every photo: these objects.
    Their parts then share all pixels, and there is no background."""
    min_score: MinScore = 0.0
    zoom: Zoom = False
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine.
    ray: Ray Data, on the cluster that RAY_ADDRESS names, or on one started here."""
    workers: Annotated[int | None, optional("N")] = None
    """Processes that label, each with a model of its own.
    Left out: one for each GPU; without a GPU one for every two cores. With Ray those of the whole cluster count."""
    device: Annotated[str | None, optional("NAME", "cpu, cuda:1 and so on. Left out: all GPUs, else the CPU.")] = None
    dtype: Dtype = None
    batch_size: BatchSize = 8
    max_pixels: Annotated[int, number("Photos with more pixels than this are refused before they are decoded.")] = (
        80_000_000
    )

    def run(self) -> int:
        from rich.console import Console

        from partclipseg.apps.label.photos import find_all
        from partclipseg.apps.predict import make_folder

        console = Console(soft_wrap=True, highlight=False)
        self._check()
        photos = find_all(self.folder, self.output)
        make_folder(self.output)
        with locked(self.output):
            failed = self._label(photos, console)
        console.print(f"{len(photos) - len(failed)} of {len(photos)} photos -> {self.output}", markup=False)
        if failed:
            errors = Console(stderr=True, soft_wrap=True, highlight=False)
            errors.print(f"{len(failed)} of {len(photos)} photos could not be labelled:")
            for photo, reason in failed[:SHOWN_FAILURES]:
                errors.print(f"  {photo}: {reason}", markup=False)
            if len(failed) > SHOWN_FAILURES:
                more = len(failed) - SHOWN_FAILURES
                errors.print(f"  and {more} more: see {self.output / 'report.html'}", markup=False)
        return 1 if failed else 0

    def _check(self) -> None:
        """All that can be wrong with the call by itself, before anything is loaded."""
        if not self.formats:
            raise UsageError("no format is asked for: leave --formats out, or name one after it")
        check_min_score(self.min_score)
        for name, value in (("--workers", self.workers), ("--batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.engine == "ray" and self.device not in {None, "cpu"}:
            raise UsageError(
                f"--device {self.device} cannot be had with --engine ray, which hands out the GPUs itself: leave "
                "--device out, or use cpu"
            )

    def _label(self, photos: list[Photo], console: Console) -> list[tuple[str, str]]:
        """Label what is not labelled yet, then write what is made of all; returns the failed photos and why."""
        from partclipseg.apps.label.collections import write_collections
        from partclipseg.apps.label.job import MANIFEST, OPTIONS
        from partclipseg.apps.label.manifest import Manifest, open_batches
        from partclipseg.apps.label.options import check_options, fingerprint, stored_options
        from partclipseg.apps.label.report import write_report
        from partclipseg.apps.predict import model_title
        from partclipseg.inference.segmenter import PartSegmenter, find_device, find_dtype

        devices = [self.device] if self.device else _all_devices()
        alone = self.engine == "local" and (self.workers or _default_workers(devices)) == 1
        # What the workers will compute in, though this process may not compute at all: what the run was begun with,
        # whatever is the default of the device that it goes on with.
        begun = stored_options(self.output / OPTIONS).get("dtype")
        dtype = find_dtype(self.dtype or begun, find_device(devices[0]))
        segmenter = PartSegmenter.from_pretrained(self.model, devices[0] if alone else "cpu", dtype)
        job = self._job(segmenter)
        check_options(self.output / OPTIONS, job.options(fingerprint(segmenter.model)))
        remove_temporary(self.output)
        manifest = Manifest(self.output / MANIFEST)
        batches = open_batches(job, photos, manifest)

        model = model_title(segmenter, self.model)
        todo = sum(map(len, batches))
        if todo < len(photos):
            console.print(f"{len(photos) - todo} of {len(photos)} photos are labelled already", markup=False)
        with self._engine(job, segmenter, batches, devices) as (stream, place):
            console.print(f"model: {model}; {job.dtype}; {place}", markup=False)
            start = time.perf_counter()
            try:
                for records in _watched(stream, todo, console):
                    manifest.append(records)
            except OSError as error:
                raise PartCLIPSegError(
                    f"cannot write to {self.output} ({error.strerror}): make room, then give the same command again"
                ) from error
        if todo:
            console.print(f"{todo / (time.perf_counter() - start):.1f} photos a second", markup=False)
        manifest.finish(photos)
        write_collections(job, photos, manifest)
        return write_report(job, manifest, model).failed

    def _job(self, segmenter: PartSegmenter) -> BulkJob:
        from partclipseg.apps.label.job import BulkJob
        from partclipseg.vocabulary import Vocabulary as Words

        words = segmenter.vocabulary if self.vocabulary is None else Words.load(self.vocabulary)
        if words is None:
            raise UsageError('the model has no words of its own: give --vocabulary, such as "dog: ear, tail"')
        for word in self.objects:
            words.object_index(word)
        # Words that are too long or unknown are found here, once, and not by every worker.
        segmenter.text_embeddings(segmenter.model.prompts(words))
        return BulkJob(
            folder=self.folder,
            output=self.output,
            vocabulary=words,
            formats=tuple(dict.fromkeys(self.formats)),
            model=self.model,
            objects=self.objects,
            zoom=self.zoom,
            min_score=self.min_score,
            dtype=str(segmenter.model.dtype).removeprefix("torch."),
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
        )

    @contextmanager
    def _engine(
        self, job: BulkJob, segmenter: PartSegmenter, batches: list[Batch], devices: Sequence[str]
    ) -> Iterator[tuple[Iterator[list[Record]], str]]:
        """The records of the batches as they come, and in words what labels them."""
        from partclipseg.apps.label.labeller import Labeller
        from partclipseg.apps.label.ray import ray_cluster, run_ray
        from partclipseg.apps.label.workers import run_processes

        if not batches:
            yield iter(()), "nothing left to label"
            return
        if self.engine == "ray":
            with ray_cluster(self.workers, usable_cores(), use_gpus=self.device != "cpu") as cluster:
                yield run_ray(job, batches, cluster), str(cluster)
            return
        workers = self.workers or _default_workers(devices)
        threads = max(1, usable_cores() // workers)
        place = f"{', '.join(devices)}, {workers} worker{'s' * (workers > 1)}"
        if workers == 1:
            yield map(Labeller(job, segmenter, threads), batches), place
        else:
            yield run_processes(job, batches, devices, workers, threads), place


def _watched(stream: Iterator[list[Record]], total: int, console: Console) -> Iterator[list[Record]]:
    """The same, with a bar of progress in a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        for records in stream:
            yield records
            progress.advance(task, len(records))


def _all_devices() -> list[str]:
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]


def _default_workers(devices: Sequence[str]) -> int:
    return max(1, usable_cores() // 2) if list(devices) == ["cpu"] else len(devices)
