"""``partclipseg label``: a folder of photos in, a labelled data set out, however often it is interrupted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from partclipseg.apps.format_option import format_option
from partclipseg.apps.instance_options import BUILT_IN_REMARK, FindInstances, InstanceOptions, LoadedInstances
from partclipseg.apps.label.messages import Messages, summary
from partclipseg.apps.options import (
    Ask,
    Asking,
    BatchSize,
    Dtype,
    MaxPixels,
    MinPartProbability,
    MinScore,
    ModelOption,
    Objects,
    VocabularyOption,
    Zoom,
    check_least,
    check_probability,
    optional,
)
from partclipseg.counts import count_of, noun
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import locked, refusal, remove_temporary
from partclipseg.formats.registry import chosen_formats, data_set_formats
from partclipseg.inference.options import check_fast_reading
from partclipseg.machine import usable_cores
from partclipseg.signals import handled

if TYPE_CHECKING:
    from partclipseg.apps.label.job import BulkJob, ManifestRecord, PhotoBatch
    from partclipseg.apps.label.photos import FoundPhotos
    from partclipseg.inference.segmenter import PartSegmenter


@dataclass(frozen=True)
class Label:
    """Label all photos in a folder and the folders inside it, for training or for correction by hand.

    The output folder gets the formats asked for, manifest.jsonl with a line for each photo, and report.html to look
    at. A run that was stopped goes on where it was when the same command is given again. A photo that cannot be
    labelled does not stop the others; the exit code is then 1. Files that you have corrected are kept and count.

    Examples:
      partclipseg label photos --vocabulary "dog: head, torso, leg, tail" --model partclipseg-pascal --output labels
      partclipseg label photos --model partclipseg-pascal --format yolo labelme --output drafts
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the photos."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the results: a new one, or that of a run to go on with."""
    vocabulary: VocabularyOption = None
    model: ModelOption = None
    formats: Annotated[tuple[str, ...], format_option(data_set_formats)] = ("coco", "png")
    objects: Objects = ()
    min_score: MinScore = 0.0
    min_part_probability: MinPartProbability = None
    zoom: Zoom = False
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine.
    ray: Ray Data, on the cluster that RAY_ADDRESS names, or on one started here."""
    workers: Annotated[int | None, optional("N")] = None
    """Processes that label, each with a model of its own.
    Left out: one for each GPU; without a GPU one for every two cores. With Ray, the number is that of the
    whole cluster."""
    device: Annotated[str | None, optional("NAME", "cpu, cuda:1 and so on. Left out: all GPUs, else the CPU.")] = None
    dtype: Dtype = None
    batch_size: BatchSize = 8
    max_pixels: MaxPixels = 80_000_000
    fast_reading: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Decode large JPEG files at a reduced size, and resize by a faster filter, if the CPU cannot keep up with the GPU.
    Some labels change, more of them in large photos. Not with --zoom or --instances."""
    overwrite: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Replace files in the output folder that a person made or changed. Without it they are kept and count."""
    find: FindInstances = field(default_factory=InstanceOptions)
    ask: Ask = field(default_factory=Asking)

    def run(self, say: Messages | None = None, within: Path | None = None) -> int:
        """Label the folder; `say` gets the messages and the progress. Links may not lead out of `within`."""
        from partclipseg.apps.label.photos import find_all
        from partclipseg.apps.written import make_folder

        self._check()
        found = find_all(self.folder, self.output, within)
        say = say or Messages()
        make_folder(self.output)
        self._check_folder()
        try:
            with locked(self.output), handled(signal.SIGTERM, _terminate):
                return self._label(found, say)
        except OSError as error:
            raise PartCLIPSegError(refusal(error, self.output)) from error
        except KeyboardInterrupt:
            return self._stopped(say, 130)
        except Terminated:
            return self._stopped(say, 143)

    def _stopped(self, say: Messages, code: int) -> int:
        say.error("partclipseg: stopped; what is labelled is kept: give the same command again to go on")
        return code

    def _check(self) -> None:
        """Check the options themselves, before anything is loaded."""
        check_probability(min_score=self.min_score, min_part_probability=self.min_part_probability)
        self.find.check(self.formats, data_set_formats(), self.zoom)
        self.ask.prompting()
        if self.fast_reading:
            check_fast_reading(self.zoom, self.find.instances is not None)
        check_least(workers=(self.workers, 1), batch_size=(self.batch_size, 1))
        if self.engine == "ray" and self.device not in {None, "cpu"}:
            raise UsageError(
                f"--device {self.device} cannot be had with --engine ray, which hands out the GPUs itself: leave "
                "--device out, or use cpu"
            )

    def _check_folder(self) -> None:
        """Refuse an output folder that holds other files, unless they may be replaced."""
        if self.overwrite or self._is_begun():
            return
        for place, folders, files in os.walk(self.output):
            folders[:] = [name for name in folders if not name.startswith(".")]
            if seen := sorted(name for name in files if not name.startswith(".")):
                first = (Path(place) / seen[0]).relative_to(self.output)
                raise UsageError(
                    f"{self.output} holds files that are not of a run of partclipseg label, such as {first}: name "
                    "another folder with --output, or have files of the same names replaced with --overwrite"
                )

    def _is_begun(self) -> bool:
        """Whether the output folder holds the state of a run, damaged or not."""
        from partclipseg.apps.label.job import MANIFEST, OPTIONS
        from partclipseg.apps.label.options import stored_options
        from partclipseg.journal import Journal
        from partclipseg.kept_files import WRITTEN

        manifest, written = self.output / MANIFEST, self.output / WRITTEN
        try:
            if stored_options(self.output / OPTIONS):
                return True
        except PartCLIPSegError:  # damaged, or another program's
            return written.is_dir() or os.path.lexists(manifest)
        return os.path.lexists(manifest) and Journal(manifest).begins_with("photo")

    def _label(self, found: FoundPhotos, say: Messages) -> int:
        """Label the photos that are not labelled yet, then write the files for all photos; return the exit code."""
        from partclipseg.apps.label.collections import write_collections
        from partclipseg.apps.label.job import MANIFEST, OPTIONS
        from partclipseg.apps.label.manifest import Manifest, changed_photos, deleted_files, left_files, open_batches
        from partclipseg.apps.label.options import check_options, stored_options
        from partclipseg.apps.label.people import take_in
        from partclipseg.apps.label.report import write_report
        from partclipseg.apps.model_line import model_title
        from partclipseg.inference.asked import Asked
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.kept_files import KeptFiles
        from partclipseg.models.fingerprint import model_fingerprint
        from partclipseg.models.number_types import PREDICTION_TYPES
        from partclipseg.models.registry import find_device, find_dtype

        photos = found.photos
        devices = [self.device] if self.device else _all_devices()
        alone = self.engine == "local" and (self.workers or _default_workers(devices)) == 1
        # Number type of the workers. A run that is continued keeps the one that it was started with, whatever the
        # default of the current device.
        begun = stored_options(self.output / OPTIONS).get("dtype")
        dtype = find_dtype(self.dtype or begun, find_device(devices[0]), PREDICTION_TYPES)
        device, prompting = devices[0] if alone else "cpu", self.ask.prompting()
        instances = self.find.load(device)
        instances.check_photos(photo.path for photo in photos)
        segmenter = PartSegmenter.from_pretrained(self.model, device, dtype, prompting=prompting)
        job = self._job(segmenter)
        # Words and options that do not go together are told once, not with every photo.
        Asked.of(segmenter, job.vocabulary, job.segment_options(instances))
        options = job.options(model_fingerprint(segmenter.model), instances)
        if begun:  # first, since the manifest's class numbers are of the words that the run was begun with
            check_options(self.output / OPTIONS, options)
        manifest = Manifest(self.output / MANIFEST, len(job.vocabulary))
        collections = KeptFiles(self.output, "collections", self.overwrite)
        check_options(self.output / OPTIONS, options)
        remove_temporary(self.output)
        deleted = deleted_files(job, photos, manifest)
        changed = changed_photos(job, photos, manifest)
        batches = open_batches(job, photos, manifest, changed)

        model = model_title(segmenter, self.model)
        todo = sum(map(len, batches))
        if done := len(photos) - todo:
            say.line(f"{done:,} of {count_of(len(photos), 'photo')} {noun(done, 'is', 'are')} labelled already")
        if deleted:
            files = count_of(len(deleted), "deleted file is", "deleted files are")
            say.files(f"{files} made again:", [str(path) for path in deleted])
        if changed:
            title = f"{len(changed)} of the photos changed since and labelled again:"
            say.files(title, [photo.path for photo in changed])
        if long := [photo.path for photo in photos if not photo.path.startswith(Path(photo.stem).as_posix())]:
            names = count_of(len(long), "name is", "names are")
            say.files(f"{names} too long for the files of results, which have shorter ones:", long)
        with self._engine(job, segmenter, instances, batches, devices) as (stream, place):
            say.line(f"model: {model}; {job.dtype}; {place}")
            if self.find.uses_built_in:
                say.line(BUILT_IN_REMARK)
            start = time.perf_counter()
            for records in say.watched(stream, len(photos), todo):
                manifest.append(records)
        if todo:
            say.line(f"{todo / (time.perf_counter() - start):.1f} photos a second")
        remove_temporary(self.output)  # workers of a killed run may have outlived it, and the first removal, by seconds
        results = take_in(job, photos, manifest, usable_cores())
        manifest.finish(photos)
        write_collections(job, photos, results, collections)
        tally = write_report(job, results, collections, model, found.unread)
        collections.finish()
        return summary(say, self.output, found, tally, results, collections, left_files(job, photos))

    def _job(self, segmenter: PartSegmenter) -> BulkJob:
        from partclipseg.apps.label.job import BulkJob
        from partclipseg.vocabulary import Vocabulary

        words = segmenter.vocabulary if self.vocabulary is None else Vocabulary.load(self.vocabulary)
        if words is None:
            raise UsageError('the model has no words of its own: name some with --vocabulary, as in its help')
        for word in self.objects:
            words.object_index(word)
        if self.fast_reading:
            check_fast_reading(model_looks=segmenter.model.ahead_shape is None)
        # Words that are too long or unknown are found once here instead of in every worker.
        if words.paired is not None:
            segmenter.words(words.paired)
        segmenter.word_embeddings(words)
        return BulkJob(
            folder=self.folder,
            output=self.output,
            vocabulary=words,
            formats=tuple(chosen_formats(self.formats, data_set_formats(), vocabulary=words)),
            model=self.model,
            objects=self.objects,
            zoom=self.zoom,
            min_score=self.min_score,
            min_part_probability=self.min_part_probability,
            prompting=self.ask.prompting(),
            dtype=segmenter.model.number_type,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            fast_reading=self.fast_reading,
            overwrite=self.overwrite,
            find=self.find,
        )

    @contextmanager
    def _engine(
        self,
        job: BulkJob,
        segmenter: PartSegmenter,
        instances: LoadedInstances,
        batches: list[PhotoBatch],
        devices: Sequence[str],
    ) -> Iterator[tuple[Iterator[list[ManifestRecord]], str]]:
        """Yield the records of the batches as they come, and a description of the workers."""
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
        place = f"{', '.join(devices)}, {count_of(workers, 'worker')}"
        if workers == 1:
            yield map(Labeller(job, segmenter, instances, threads), batches), place
        else:
            yield run_processes(job, batches, devices, workers, threads), place


class Terminated(BaseException):
    """Raised when the process receives SIGTERM."""


def _terminate(*_: object) -> None:
    """Raise `Terminated` on SIGTERM, so that temporary files are removed and workers ended."""
    raise Terminated


def _all_devices() -> list[str]:
    import torch

    from partclipseg.models.registry import find_device

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or [str(find_device(None))]


def _default_workers(devices: Sequence[str]) -> int:
    return max(1, usable_cores() // 2) if list(devices) == ["cpu"] else len(devices)
