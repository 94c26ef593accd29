"""One evaluation: what was saved is taken up, the other photos are scored, and the report is written."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from partclipseg.apps.evaluate.output import present_score, write_and_print, write_files
from partclipseg.apps.evaluate.subject import Subject
from partclipseg.apps.instance_options import LoadedInstances
from partclipseg.apps.terminal import plain_console, progress_bar
from partclipseg.counts import count_of, noun
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.average_precision import AveragePrecision
from partclipseg.evaluation.choices import PROTOCOLS, TRUE_OBJECTS
from partclipseg.evaluation.coco_files import detections_file, truth_file
from partclipseg.evaluation.examples import draw_report
from partclipseg.evaluation.instances import make_counts, score_instances
from partclipseg.evaluation.photos import PhotoRecords
from partclipseg.evaluation.report import Report
from partclipseg.evaluation.resized_labels import LABELS
from partclipseg.evaluation.run import is_scored, make_evaluators, score_photos
from partclipseg.evaluation.scores import Scores
from partclipseg.evaluation.state import SavedScores, merge_processes, model_digest, text_digest
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.kept_files import KeptFiles
from partclipseg.machine import how_to_install

if TYPE_CHECKING:
    from accelerate import PartialState

    from partclipseg.apps.evaluate.command import Evaluate

_SAVE_EVERY = 30.0
"""Seconds between two saves of the state: at most this much work is lost in a crash."""


class Evaluation:
    """The evaluation that options ask for, in one of the processes that share its photos."""

    def __init__(self, options: Evaluate, subject: Subject, processes: PartialState, console: Console) -> None:
        """Load what says where objects are; raises as `InstanceOptions.load` does."""
        self.options = options
        self.subject = subject
        self.processes = processes
        self.console = console
        self.instances = _load_instances(options)
        self.counts: Mapping[Any, Any] = self._no_counts()
        """Evaluator of each protocol, or counts of the metric of instances, by its name."""
        self.saved = self._saved_scores()

    def run(self) -> int:
        """Score the photos and report the scores; return the exit code.

        Raises `PartCLIPSegError` for photos in which nothing is to be scored, and for files that cannot be read or
        written.
        """
        options, processes = self.options, self.processes
        # 1. The main process holds what was saved; all of them leave those photos out.
        pending = self.subject.photos if self.saved is None else self._take_up(self.saved)
        # 2. Every process takes its share of the others.
        device = processes.device if processes.num_processes > 1 else options.device
        segmenter = PartSegmenter.from_pretrained(
            options.model, device, options.dtype, prompting=options.ask.prompting()
        )
        self.console.print(
            f"model: {options.model} ({segmenter.model.title}), {options.dtype}, "
            f"{processes.num_processes} x {segmenter.device.type}"
        )
        try:
            self._score(segmenter, pending[processes.process_index :: processes.num_processes])
        except KeyboardInterrupt:
            self._say_stopped()
            return 130
        # 3. The main process saves and reports the counts of all.
        merge_processes(self.counts, processes.num_processes)
        processes.destroy_process_group()
        if not processes.is_main_process:
            return 0
        if self.saved is not None:
            self.saved.save_all(self.counts)
        scores = [counts.compute() for counts in self.counts.values()]
        if not any(one.has_truth for one in scores):
            if self.saved is not None:
                self.saved.remove()  # the same photos would leave nothing to score again
            raise PartCLIPSegError(self._nothing_to_score(scores))
        self._report(segmenter, scores)
        return 0

    # -- counts and their saved state -- ------------------------------------------------------------------------------

    def _no_counts(self) -> Mapping[Any, Any]:
        options, dataset, shared = self.options, self.subject.dataset, self.subject.shared
        if options.metric != "iou":
            return {options.metric: make_counts(dataset, options.metric)}
        return make_evaluators(
            dataset,
            PROTOCOLS if options.protocol == "all" else options.protocol,
            seen=None if shared is None else shared.pairs,
            rule=options.rule,
            boundary=None if options.boundary == "none" else options.boundary,
        )

    def _saved_scores(self) -> SavedScores | None:
        options, shared = self.options, self.subject.shared
        if options.output is None:
            return None
        classes = text_digest(self.subject.dataset.vocabulary.names)
        asked = {
            "model": model_digest(options.model),
            "dataset": options.dataset,
            "split": options.split,
            "protocol": options.protocol,
            "boundary": options.boundary,
            "zoom": options.zoom,
            "dtype": options.dtype,
            "limit": options.limit,
            "vocabulary": None if options.vocabulary is None else classes,
            # Entries of options that older releases did not have, or did not save, stand only where they are given.
            **({} if options.rule == "partclipseg" else {"rule": options.rule, "labels": LABELS[options.rule]}),
            **({} if shared is None else {"vocabulary_of_training": shared.digest}),
            **({"prompting": str(prompting)} if (prompting := options.ask.prompting()) else {}),
        }
        if options.metric != "iou":
            asked |= {"metric": options.metric, **options.finds.describe(self.instances)}
        return SavedScores(options.output, asked, {**self.subject.digests(options.verify), "class list": classes})

    def _take_up(self, saved: SavedScores) -> list[PhotoRecords]:
        """Load the saved counts, which the main process alone keeps, and return the photos that are not in them."""
        photos = self.subject.photos
        saved.load(self.counts)
        pending = [photo for photo in photos if not is_scored(photo, self.counts)]
        self.processes.wait_for_everyone()
        if self.processes.is_main_process:
            saved.save_all(self.counts)
            if len(pending) < len(photos):
                done = len(photos) - len(pending)
                photos_are = f"{count_of(len(photos), 'photo')} {noun(done, 'is', 'are')}"
                self.console.print(f"continuing: {done:,} of {photos_are} scored already")
        else:
            self.counts = self._no_counts()
        self.processes.wait_for_everyone()
        return pending

    # -- scoring -- ---------------------------------------------------------------------------------------------------

    def _score(self, segmenter: PartSegmenter, photos: list[PhotoRecords]) -> None:
        """Count photos, and save the counts now and then and at the end."""
        options, process = self.options, self.processes.process_index
        first, sizes = next(iter(self.counts.values())), (options.batch_size, options.workers)
        if options.metric == "iou":
            batches = score_photos(segmenter, self.subject.dataset, photos, self.counts, options.zoom, *sizes)
        else:
            batches = score_instances(segmenter, self.subject.dataset, photos, first, *self.instances, *sizes)
        last_saved = time.monotonic()
        try:
            with progress_bar(self.console, "scoring", len(photos)) as update:
                for number in batches:
                    update(advance=number, note=present_score(first))
                    if self.saved is not None and time.monotonic() - last_saved > _SAVE_EVERY:
                        self.saved.save(self.counts, process)
                        last_saved = time.monotonic()
        finally:
            if self.saved is not None:
                self.saved.save(self.counts, process)

    def _say_stopped(self) -> None:
        photos, output = self.subject.photos, self.options.output
        done = sum(is_scored(photo, self.counts) for photo in photos)
        stopped = f"stopped after {done:,} of {count_of(len(photos), 'photo')}"
        text = f"{stopped}; nothing is saved without --output"
        if output is not None:
            text = f"stopped; the scores so far are saved in {output}, and the same command continues"
            if self.processes.num_processes == 1:
                text = text.replace("stopped", stopped, 1)
        plain_console(stderr=True, quiet=not self.processes.is_main_process).print(text)

    def _nothing_to_score(self, scores: list[Any]) -> str:
        """Return why no score of the photos means anything, and what to do."""
        options, photos = self.options, count_of(len(self.subject.photos), "photo")
        if any(isinstance(one, Scores) and one.left_out for one in scores):  # labels there are
            return (
                "nothing to score: the model found no object of the vocabulary where parts are labelled "
                f"({photos}): choose another --protocol, such as pred_all, or another model"
            )
        lacking = {
            "iou": "a labelled part that is asked for",
            "ap": "a labelled object or part that is no crowd",
            "partpq": "an object with labelled parts that is no crowd",
        }[options.metric]
        remedy = "label some, or check --data"
        if options.limit is not None:
            remedy = "leave --limit out, or raise it"
        elif options.vocabulary is not None:
            remedy = "ask for words that are labelled, or leave --vocabulary out"
        elif options.metric != "iou":
            parts = "and their parts " if options.metric == "partpq" else ""
            remedy = f"annotate single objects, whose iscrowd is 0, {parts}or check --data"
        return f"nothing to score: none of the {photos} has {lacking}: {remedy}"

    # -- the report -- ------------------------------------------------------------------------------------------------

    def _report(self, segmenter: PartSegmenter, scores: list[Any]) -> None:
        options = self.options
        settings = json.loads(json.dumps(asdict(options), default=str))
        del settings["overwrite"]  # the scores do not depend on it
        report = Report(
            model=Path(options.model).name,
            dataset=options.dataset,
            settings=settings if self.saved is None else {**settings, "data": self.saved.data},
            scores=tuple(scores),
            photos=len(self.subject.photos),
            compared=self.subject.shared is None,
            remark=self._remark(),
        )
        remarks = [report.remark] if report.remark else []
        write_and_print(self.console, report.tables(), remarks, lambda: self._write(report, segmenter))

    def _remark(self) -> str:
        """Return why the scores are not those of the benchmark; empty if they are."""
        options, subject = self.options, self.subject
        reasons = [subject.remark] if subject.remark else []
        if options.limit is not None:
            reasons.append(f"only the first photos were scored (--limit {options.limit})")
        if options.vocabulary is not None:
            reasons.append("other words than the data set's own were asked for")
        if options.zoom:
            reasons.append("small objects were looked at a second time (--zoom)")
        if options.split != "test":
            reasons.append(f"the {options.split} split was scored")
        remark = f"Not comparable with published figures: {', '.join(reasons)}." if reasons else ""
        if subject.shared is None:
            return remark
        cross = f"Cross-dataset: {subject.shared.sentence()}; these object-parts stand under seen."
        return f"{cross} {remark}".strip()

    def _write(self, report: Report, segmenter: PartSegmenter) -> Path | None:
        """Write the files of the report, and return where it lies; None if no folder is named for it."""
        options, subject = self.options, self.subject
        if options.output is None:
            return None
        files, bars, page = KeptFiles(options.output, "evaluate", options.overwrite), None, None
        if options.metric == "iou":
            title = f"{report.model} on {report.dataset}"
            bars, page = draw_report(
                files, title, segmenter, subject.dataset, subject.photos, self.counts, options.zoom
            )
            if bars is None:
                self.console.print(f"no bars are drawn, matplotlib is missing: {how_to_install('plots')}")
        texts = {
            "report.md": report.to_markdown(bars, page),
            "scores.json": json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n",
        }
        if isinstance(counts := self.counts.get("ap"), AveragePrecision):
            texts["truth.json"] = json.dumps(truth_file(counts), ensure_ascii=False)
            texts["detections.json"] = json.dumps(detections_file(counts))
        write_files(files, texts, self.console)
        if self.saved is not None:
            self.saved.remove()
        return files.path_of("report.md")


def _load_instances(options: Evaluate) -> LoadedInstances:
    finds = options.finds
    if options.metric == "iou":
        return LoadedInstances()
    if finds.instances not in TRUE_OBJECTS:
        return finds.load(options.device)
    if finds.instance_threshold is not None:
        raise UsageError("--instance-threshold is for a detector: leave it out")
    # The outliner is loaded by the same options; the objects are in the labels.
    return replace(finds, instances="components").load(options.device)._replace(instances=finds.instances)
