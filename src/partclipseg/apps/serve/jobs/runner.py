"""The labelling jobs of a server: one at a time, in processes of their own, with a state that outlives the server."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from partclipseg.apps.label.command import Label
from partclipseg.apps.serve.jobs.job import (
    LABELS,
    LOG,
    STATE,
    WORDS,
    ConflictError,
    JobInfo,
    JobOptions,
    folder_below,
    now,
)
from partclipseg.apps.serve.jobs.run import Run, Running, Setup
from partclipseg.apps.serve.queue import QueueFullError
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import (
    is_directory,
    is_file,
    is_regular,
    locked,
    refusal,
    remove_temporary,
    whole_directory,
    write_text,
)
from partclipseg.vocabulary import Vocabulary

MOST_WAITING = 32
"""Maximum number of waiting jobs."""
MOST_JOBS = 1000
"""Maximum number of jobs in the folder of results."""
MOST_SAID = 60
"""Number of a run's last messages that are kept."""

_LOG = logging.getLogger(__name__)

_ENDED = {"stopped", "done", "failed"}
"""States of jobs that neither wait nor run."""

_TOLD_TO_STOP = {128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT}
"""Exit codes of a run that a signal has stopped."""


class Jobs:
    """The jobs of a server. Thread-safe.

    Each job has a folder in `results`; jobs that waited or ran when a server ended go on when the next one starts.
    """

    def __init__(
        self, photos: Path, results: Path, setup: Setup, start: Callable[[Label, Path, Path], Running] = Run
    ) -> None:
        """Open the folders, and go on with the jobs that a former server left.

        Args:
            photos: folder whose subfolders may be labelled; links do not lead out of it.
            results: folder for the results; it is made if it is missing.
            setup: what the server's options decide.
            start: starts a run of a command, with links kept within a folder, in the job's folder.

        Raises `UsageError` for folders that are none or lie in each other, `PartCLIPSegError` if another server has
        the results.
        """
        self.setup, self._start = setup, start
        self.photos, self.results = _checked_folders(photos, results)
        self._held = ExitStack()
        try:
            self._held.enter_context(locked(self.results))
        except PartCLIPSegError:
            raise PartCLIPSegError(
                f"another server labels into {results}: stop it, or name another folder with --jobs-output"
            ) from None
        self.damaged: list[str] = []
        """A sentence for each folder of a job that cannot be read; it is left as it is."""
        self._jobs = self._stored()
        self._changed = threading.Condition()
        self._closed = False
        self._running: dict[str, Running] = {}
        self._waiting = deque(name for name, job in self._jobs.items() if job.state == "waiting")
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def all(self) -> list[JobInfo]:
        """Return all jobs, in the order of their first requests."""
        return list(self._jobs.values())

    def get(self, name: str) -> JobInfo | None:
        """Return the job of this name; None if there is none."""
        return self._jobs.get(name)

    def submit(self, name: str, options: JobOptions, vocabulary: Vocabulary) -> tuple[JobInfo, bool]:
        """Queue a job; one of the same name and options goes on where it was. Returns it, and whether it is new.

        Ended jobs whose folders a person has moved away are forgotten.

        Raises `ConflictError` if the name is that of another job, `QueueFullError` beyond the limits, `UsageError` for
        a folder that is not to be labelled, and `OSError`.
        """
        folder_below(self.photos, options.folder)
        with self._changed:
            self._forget_moved()
            known = self._jobs.get(name)
            if known is not None and not known.same_as(options):
                raise ConflictError(f"the job {name!r} has other options: give this one another name")
            if known is not None and known.state in {"waiting", "running"}:
                return known, False
            if known is not None and known.state == "stopping":
                raise ConflictError(f"the job {name!r} is being stopped: try again in a few seconds")
            if self._closed:
                raise QueueFullError("the server is stopping and takes no more jobs")
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFullError(f"{MOST_WAITING} jobs wait already: try again when one is done")
            job = known or self._made(name, options, vocabulary)
            if not is_file(self.results / name / WORDS):  # a person has deleted it
                vocabulary.save(self.results / name / WORDS)
            job = self._set(job, state="waiting", started=None, ended=None, error=None)
            self._waiting.append(name)
            self._changed.notify_all()
            return job, known is None

    def stop(self, name: str) -> JobInfo | None:
        """Stop a job that waits or runs, and return it; what is labelled is kept. None if there is no such job."""
        with self._changed:
            job = self._jobs.get(name)
            if job is not None and job.state == "waiting":
                self._waiting.remove(name)
                job = self._set(job, state="stopped", ended=now())
            elif job is not None and job.state == "running":
                job = self._set(job, state="stopping")
                self._running[name].stop()
            return job

    def close(self) -> None:
        """Stop the running job, and end. It goes on, as those that wait do, when a server starts again."""
        with self._changed:
            self._closed = True
            for run in self._running.values():
                run.stop()
            self._changed.notify_all()
        self._thread.join()
        self._held.close()

    # -- the queue -- ---------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                name = self._waiting.popleft()
                job = self._set(self._jobs[name], state="running", started=now(), failed=0, said=[])
                try:
                    self._running[name] = run = self._started(job)
                except Exception as error:  # the thread must live
                    self._set(job, state="failed", ended=now(), error=self._for_clients(_sentence(error)))
                    continue
            try:
                outcome = self._outcome(name, run)
            except Exception as error:
                run.stop()
                outcome = {"error": _sentence(error)}
            self._end(name, run, outcome)

    def _started(self, job: JobInfo) -> Running:
        folder = self.results / job.name
        for path in (folder, *(folder / name for name in (LABELS, LOG, STATE, WORDS))):
            if path.is_symlink():
                raise UsageError(f"{path} is a link: jobs write into their own folders only")
        if not is_file(folder / WORDS):
            raise UsageError(f"{folder / WORDS} was deleted: ask for the same again, and it is made again")
        source = folder_below(self.photos, job.folder)
        return self._start(self.setup.label(job, source, folder), self.photos, folder)

    def _outcome(self, name: str, run: Running) -> dict[str, Any]:
        """Take in what the run reports until its process has ended; return how it ended, empty if it did not say."""
        outcome: dict[str, Any] = {}
        for event in run.events():
            with self._changed:
                job = self._jobs[name]
                if "said" in event:
                    said = [*job.said, self._for_clients(event["said"])][-MOST_SAID:]
                    self._jobs[name] = job.model_copy(update={"said": said})
                elif "photos" in event:
                    self._jobs[name] = job.model_copy(update=event)
                else:
                    outcome = event
        return outcome

    def _end(self, name: str, run: Running, outcome: Mapping[str, Any]) -> None:
        with self._changed:
            del self._running[name]
            job = self._jobs[name]
            if "ended" in outcome:
                self._set(job, state="done", ended=now())
            elif "error" in outcome:
                self._set(job, state="failed", ended=now(), error=self._for_clients(outcome["error"]))
            elif job.state == "stopping":
                self._set(job, state="stopped", ended=now())
            elif self._closed or run.code in _TOLD_TO_STOP:
                # A stopping system signals to all processes at once. Only DELETE stops a job for good.
                self._set(job, state="waiting")
                self._waiting.append(name)
            else:
                reason = f"its process ended with code {run.code}, which {LOG} in its folder may explain"
                self._set(job, state="failed", ended=now(), error=f"{reason}: ask for the same again to go on")

    def _for_clients(self, sentence: str) -> str:
        """Return a sentence without the server's own paths, and with a client's remedy in place of an option's."""
        for folder in sorted((self.photos, self.results), key=lambda folder: -len(str(folder))):
            sentence = sentence.replace(f"{folder}{os.sep}", "").replace(str(folder), ".")
        return sentence.replace("name another folder with --output", "give the job another name")

    # -- the state -- ---------------------------------------------------------------------------

    def _set(self, job: JobInfo, **changes: Any) -> JobInfo:
        """Change a job and store it; a disk that cannot be written to does not end the server's work.

        A folder that a person has moved away is not made again.
        """
        changed = self._jobs[job.name] = job.model_copy(update=changes)
        if not self._has_folder(job.name):
            return changed
        try:
            write_text(self.results / job.name / STATE, changed.model_dump_json(indent=1) + "\n", durable=True)
        except OSError as error:
            _LOG.warning("%s", refusal(error))
        return changed

    def _made(self, name: str, options: JobOptions, vocabulary: Vocabulary) -> JobInfo:
        if len(self._jobs) >= MOST_JOBS:
            raise ConflictError(f"there are {MOST_JOBS} jobs, as many as may be: have folders of old ones moved away")
        job = JobInfo(
            **options.model_dump(), name=name, output=f"{name}/{LABELS}", state="waiting", created=now()
        )
        try:
            with whole_directory(self.results / name, durable=True, new=True) as folder:
                vocabulary.save(folder / WORDS)
                (folder / STATE).write_text(job.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except UsageError:
            sentence = f"something else is at {name!r} in the folder of results: give the job another name"
            raise ConflictError(sentence) from None
        return job

    def _has_folder(self, name: str) -> bool:
        folder = self.results / name
        return is_directory(folder) and not folder.is_symlink()

    def _forget_moved(self) -> None:
        for name in [name for name, job in self._jobs.items() if job.state in _ENDED]:
            if not self._has_folder(name):
                del self._jobs[name]

    def _stored(self) -> dict[str, JobInfo]:
        """Return the jobs of earlier servers; those that ran wait now, those that were being stopped are."""
        remove_temporary(self.results, recursive=False)
        found: list[JobInfo] = []
        for path in sorted(self.results.glob(f"*/{STATE}")):
            try:
                remove_temporary(path.parent, recursive=False)
                is_regular(path)  # a pipe would be waited for
                job = JobInfo.model_validate_json(path.read_bytes())
                if path.parent.is_symlink() or job.name != path.parent.name:
                    raise UsageError("it is a link, or a copy of another job's")
            except (OSError, ValidationError, UsageError) as error:
                reason = refusal(error) if isinstance(error, OSError) else str(error).splitlines()[0]
                self.damaged.append(f"{path} is not the state of a job ({reason}): its folder is left as it is")
                continue
            state = {"running": "waiting", "stopping": "stopped"}.get(job.state, job.state)
            found.append(job.model_copy(update={"state": state}))
        return {job.name: job for job in sorted(found, key=lambda job: job.created)}


def _sentence(error: Exception) -> str:
    """Describe why a run could not go on; the log gets what no client can mend."""
    if isinstance(error, PartCLIPSegError):
        return str(error)
    if isinstance(error, OSError):
        return refusal(error)
    _LOG.error("a job's run", exc_info=error)
    return f"a fault of this server, whose log says more: {error}"


def _checked_folders(photos: Path, results: Path) -> tuple[Path, Path]:
    if not is_directory(photos):
        raise UsageError(f"--jobs: there is no folder {photos}: name the one whose folders may be labelled")
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--jobs-output: {refusal(error)}") from None
    photos, results = photos.resolve(), results.resolve()
    if photos == results or photos in results.parents or results in photos.parents:
        raise UsageError(f"--jobs-output: {results} and {photos} lie in each other: name one apart from the photos")
    return photos, results
