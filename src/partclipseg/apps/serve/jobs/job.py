"""Labelling jobs as clients ask for them and see them, and the folders that they may name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from partclipseg.apps.serve.question import Question, listed
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.formats.registry import chosen_formats, data_set_formats

NAME = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,98}[A-Za-z0-9_-])?"
"""Pattern of a job's name, which is the name of a folder on any system."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""

LABELS, LOG, STATE, WORDS = "labels", "log.txt", "job.json", "words.json"
"""Names in a job's folder: output of ``partclipseg label``, its messages, state of the job, vocabulary."""

State = Literal["waiting", "running", "stopping", "stopped", "done", "failed"]


class ConflictError(PartCLIPSegError):
    """Raised if a request contradicts a job that is there already."""


def _known_formats(names: list[str]) -> list[str]:
    try:
        return list(chosen_formats(names, data_set_formats()))
    except UsageError as error:
        raise ValueError(str(error)) from None


def _describe_formats(schema: dict[str, Any]) -> None:
    """Add the formats to the field's schema when the API is created."""
    kinds = data_set_formats()
    schema["items"] = {"type": "string", "enum": list(kinds)}
    schema["description"] = "What to write. " + "; ".join(f"{name}: {kind.help}" for name, kind in kinds.items())


class JobRequest(Question):
    """A folder to label, the words to look for, and the formats to write."""

    folder: str = Field(
        min_length=1,
        max_length=1000,
        examples=["cars/monday"],
        description="Path of the folder below the server's folder of photos, with forward slashes; . is all of it.",
    )
    name: str | None = Field(
        None,
        max_length=100,
        pattern=f"^{NAME}$",
        description="The job's name, and that of its folder of results. Left out: the folder's path with hyphens.",
    )
    min_score: float = Field(
        0.0, ge=0, le=1, description="Parts whose score, 0 to 1, is lower than this become background."
    )
    formats: Annotated[list[str], AfterValidator(_known_formats), BeforeValidator(listed)] = Field(
        ["coco", "png"], min_length=1, max_length=20, json_schema_extra=_describe_formats
    )

    def check_instances(self) -> None:
        super().check_instances()
        self.check_formats(self.formats, data_set_formats())

    def job_name(self) -> str:
        """Return the name, or one made from the folder; raises `UsageError` for what cannot be a folder's name."""
        made = re.sub(r"[^A-Za-z0-9_]+", "-", self.folder).strip("-")[:100].strip("-")
        name = self.name or made
        if not name:
            raise UsageError(f"no name can be made from the folder {self.folder!r}: give the job a name")
        if _RESERVED.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of a folder on every system: give the job another name")
        return name


class JobOptions(BaseModel):
    """Folder, words and options of a job. Requests with the same options are one job."""

    folder: str = Field(description="below the server's folder of photos")
    model: str
    vocabulary: list[str] = Field(description="the classes, by index")
    objects: list[str] = Field(description="objects known to be in every photo")
    zoom: bool
    instances: Literal["components", "detector"] | None
    rest: bool
    min_score: float
    min_part_probability: float | None
    formats: list[str]

    def same_as(self, other: JobOptions) -> bool:
        """Whether both ask for the same."""
        return all(getattr(self, name) == getattr(other, name) for name in JobOptions.model_fields)


class JobInfo(JobOptions):
    """A job: what it labels, and how far it is. It is stored in its folder, too, for the next start of the server."""

    name: str
    output: str = Field(description="folder of the labels, below the server's folder of results")
    state: State = Field(
        description="waiting, running, stopping, stopped (by DELETE), done, or failed (`error` says why)"
    )
    photos: int = Field(0, description="photos found in the folder; 0 until it has been searched")
    labelled: int = Field(0, description="photos with labels, those of earlier runs among them")
    failed: int = Field(0, description="photos that could not be labelled in this run; `said` names them at the end")
    created: str = Field(description="time of the first request, in UTC")
    started: str | None = Field(None, description="time when the folder's turn came")
    ended: str | None = None
    error: str | None = Field(None, description="why the job has failed, as a sentence")
    said: list[str] = Field([], description="the last messages of the run, the summary among them")


class JobList(BaseModel):
    """All jobs, in the order of their first requests."""

    jobs: list[JobInfo]


def now() -> str:
    """Return the time for a `JobInfo`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def folder_below(root: Path, name: str) -> Path:
    """Return the real path of a folder below `root`, which is resolved, by its relative path with forward slashes.

    Raises `UsageError` for a path that is none, and for one that leads out of `root`, by itself or by a link.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        raise UsageError(
            f"folder must be a path below the server's folder of photos, such as cars/monday, not {name!r}"
        )
    try:
        path = (root / relative).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # nothing there, a loop of links, or no path at all
        raise UsageError(f"there is no folder {name!r} in the server's folder of photos") from None
    if path != root and root not in path.parents:
        raise UsageError(f"{name!r} is a link that leads out of the server's folder of photos: name a folder in it")
    if not path.is_dir():
        raise UsageError(f"{name!r} is no folder: name one below the server's folder of photos")
    return path
