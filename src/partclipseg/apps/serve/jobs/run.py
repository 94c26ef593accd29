"""The run of one labelling job: the command that the server's options make of it, in a process of its own."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from partclipseg.apps.instance_options import InstanceOptions
from partclipseg.apps.label.command import Label
from partclipseg.apps.options import Asking
from partclipseg.apps.serve.jobs.job import LABELS, LOG, WORDS, JobInfo
from partclipseg.errors import UsageError

PATIENCE = 60
"""Seconds after which a process that was told to stop is killed."""


@dataclass(frozen=True)
class Setup:
    """Settings of all jobs, from the options of the server."""

    models: Mapping[str, str | None]
    """Directory or hub name of each model by the name that clients use; None is the built-in one."""
    device: str | None = None
    dtype: Any = None
    workers: int = 1
    """Processes that label, each with a model of its own."""
    max_pixels: int = 25_000_000
    detector: str | None = None
    threshold: float | None = None
    """Minimum score of what the detector finds."""
    asking: Mapping[str, Asking] | None = None
    """Options of prompts, by the name of the model that takes them."""

    def label(self, job: JobInfo, source: Path, folder: Path) -> Label:
        """Return the command that labels the folder `source` for a job whose own folder is `folder`.

        Raises `UsageError` for a model or detector that the server does not have any more.
        """
        if job.model not in self.models:
            raise UsageError(f"there is no model {job.model!r} here any more: start the server with it")
        find = InstanceOptions()
        if job.instances is not None:
            named = job.instances if job.instances == "components" else self.detector
            if named is None:
                raise UsageError("this server has no detector any more: start it with --detector")
            find = InstanceOptions(named, self.threshold if job.instances == "detector" else None, rest=job.rest)
        return Label(
            folder=source,
            output=folder / LABELS,
            vocabulary=str(folder / WORDS),
            model=self.models[job.model],
            formats=tuple(job.formats),
            objects=tuple(job.objects),
            min_score=job.min_score,
            min_part_probability=job.min_part_probability,
            zoom=job.zoom,
            workers=self.workers,
            device=self.device,
            dtype=self.dtype,
            max_pixels=self.max_pixels,
            find=find,
            ask=(self.asking or {}).get(job.model, Asking()),
        )


class Running(Protocol):
    """A started run."""

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what the run reports, until its end."""
        ...

    def stop(self) -> None:
        """Tell the run to stop; `events` then ends soon."""
        ...

    @property
    def code(self) -> int | None:
        """Exit code, after the end."""
        ...


class Run:
    """A run of ``partclipseg label`` in a process of its own."""

    def __init__(self, label: Label, within: Path, folder: Path) -> None:
        """Start the process. Its messages are appended to the log in the job's folder."""
        with open(folder / LOG, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "partclipseg.apps.serve.jobs.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl+C is for the server, which tells the run to stop
            )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            pickle.dump((label, within, folder), self._process.stdin)
            self._process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                if line.endswith(b"\n"):  # the process may be killed while it writes the last one
                    yield json.loads(line)
        self._process.wait()
        self._close()

    def stop(self) -> None:
        self._close()
        killer = threading.Timer(PATIENCE, self._process.kill)
        killer.daemon = True
        killer.start()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    @property
    def code(self) -> int | None:
        return self._process.returncode
