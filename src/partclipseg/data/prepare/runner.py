"""Prepare many photos in parallel; a run that was stopped continues.

Every finished photo is one line of a journal in the output folder. A later run takes over the photos of the journal
whose source is the same and whose files are there in the stated size, and does the others. Files are written under a
temporary name first, so that a file with its final name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from partclipseg.data.photo import photo_formats
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import locked, remove_temporary, whole_file
from partclipseg.journal import Journal

JOURNAL = "prepare-journal.jsonl"

PhotoMode = Literal["copy", "link"]


@dataclass(frozen=True)
class Outcome:
    """Result of one photo."""

    key: str
    split: str
    files: dict[str, int] = field(default_factory=dict)
    """Size in bytes of each file, by its path below the output folder; empty for a photo that was left out."""
    parts: list[int] = field(default_factory=list)
    """Part labels in its map, sorted."""
    objects: list[int] = field(default_factory=list)
    """Object labels in its map or among its instances, sorted."""
    unknown: list[str] = field(default_factory=list)
    """Raw part names, with their object, that the class list does not have."""
    size: tuple[int, int] | None = None
    """Height and width, if the layout's lists need it."""
    instances: list[dict[str, Any]] = field(default_factory=list)
    """COCO annotations without ids, if the layout has them."""
    source: str = ""
    """State of the source, see `source_state`; empty in journals of earlier releases, whose photos are taken over."""


class PrepareJob(Protocol):
    """Work of one photo, which can be sent to another process."""

    @property
    def key(self) -> str: ...

    def source(self) -> str:
        """Return the `source_state` of all that the result depends on."""
        ...

    def run(self, output: Path) -> Outcome:
        """Write the files of the photo below `output`."""
        ...


class LayoutRecipe(Protocol):
    """Interface of a recipe that makes the layout of a data set."""

    @property
    def name(self) -> str: ...

    def options(self) -> dict[str, Any]:
        """Return the JSON values that change the result; a run is continued only if they are the same."""
        ...

    def jobs(self) -> Sequence[PrepareJob]: ...

    def finish(self, output: Path, outcomes: Sequence[Outcome]) -> None:
        """Write the layout's lists. `outcomes` are sorted by key, and those of photos that were left out are gone."""
        ...


@dataclass(frozen=True)
class Summary:
    """Counts of a run and of its output."""

    photos: Counter[str]
    """Number of photos in the layout, by split."""
    taken_over: int
    """Number of photos that an earlier run had finished."""
    changed: int
    """Number of photos that an earlier run had finished and whose source has changed since: they are made again."""
    left_out: int
    """Number of photos that do not belong in the layout, such as those without any part."""
    objects: frozenset[int]
    parts: frozenset[int]
    """Labels that occur in at least one photo."""
    unknown: Counter[str]
    """Raw part names that no class stands for, with the number of photos that have them."""
    failures: tuple[str, ...]
    """Messages about photos that could not be prepared; the next run tries them again."""


def prepare(
    recipe: LayoutRecipe, output: Path, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Make the layout of a data set in `output`; `progress` is called with photos done and photos in all.

    Raises:
        UsageError: the output holds something else, or was made with other options.
        PartCLIPSegError: a worker died, nothing was found to do, or another run is writing to the output.
    """
    jobs = {job.key: job for job in recipe.jobs()}
    if not jobs:
        raise PartCLIPSegError(f"no photo with annotations of {recipe.name} was found: check --source")
    if output.exists() and not output.is_dir():
        raise UsageError(f"the output {output} is not a folder: choose another one")
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):
        return _prepare(recipe, jobs, output, workers, progress)


def _prepare(
    recipe: LayoutRecipe,
    jobs: dict[str, PrepareJob],
    output: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Summary:
    outcomes = _open_journal(recipe, output)
    outcomes = {key: outcome for key, outcome in outcomes.items() if key in jobs}
    sources = {key: job.source() for key, job in jobs.items()}  # before the work, to notice a change during it
    changed = [key for key, outcome in outcomes.items() if outcome.source not in ("", sources[key])]
    for key in changed:
        del outcomes[key]
    taken_over, failures = len(outcomes), []
    waiting = [jobs[key] for key in sorted(jobs.keys() - outcomes.keys())]
    journal = Journal(output / JOURNAL)
    for done, (job, result) in enumerate(_results(waiting, output, workers), start=taken_over + 1):
        if isinstance(result, Outcome):
            outcomes[job.key] = result = replace(result, source=sources[job.key])
            journal.append([asdict(result)])
        else:
            failures.append(result)
        if progress is not None:
            progress(done, len(jobs))
    kept = [outcomes[key] for key in sorted(outcomes) if outcomes[key].files]
    recipe.finish(output, kept)
    return Summary(
        photos=Counter(outcome.split for outcome in kept),
        taken_over=taken_over,
        changed=len(changed),
        left_out=len(outcomes) - len(kept),
        objects=frozenset(label for outcome in kept for label in outcome.objects),
        parts=frozenset(label for outcome in kept for label in outcome.parts),
        unknown=Counter(name for outcome in outcomes.values() for name in outcome.unknown),
        failures=tuple(failures),
    )


# -- helpers for jobs -----------------------------------------------------------------------------------------


def source_state(*sources: Path | str | int) -> str:
    """Return a digest of values, and of name, size and time of files; the folder that a file lies in does not count."""
    digest = blake2b(digest_size=8)
    for source in sources:
        state: Any = source
        if isinstance(source, Path):
            try:
                status = source.stat()
                state = source.name, status.st_size, status.st_mtime_ns
            except OSError:  # its job says what is wrong
                state = source.name, None
        digest.update(repr(state).encode(errors="surrogateescape"))
    return digest.hexdigest()


def place_photo(source: Path, target: Path, mode: PhotoMode) -> None:
    """Bring a photo into the layout, leaving the source alone.

    ``link`` gives the same file a second name (a hard link): no space is used, and the photos must then not be
    edited in place. It needs both folders on one disk.

    Raises:
        PartCLIPSegError: the photo cannot be read, or not be linked.
    """
    try:
        with whole_file(target) as temporary:
            if mode == "link":
                os.link(source.resolve(), temporary)
            else:
                shutil.copyfile(source, temporary)
    except OSError as error:
        remedy = "use --photos copy" if mode == "link" else "check the file and the disk"
        raise PartCLIPSegError(f"{source}: cannot be brought to {target} ({error.strerror}): {remedy}") from error


def write_map(labels: np.ndarray, path: Path) -> None:
    """Write a label map as PNG with the array's 8 or 16 bits."""
    with whole_file(path) as temporary:
        Image.fromarray(labels).save(temporary)


def photo_size(path: Path) -> tuple[int, int]:
    """Read height and width from the file's header; raises `PartCLIPSegError` if it is not a photo."""
    try:
        with Image.open(path, formats=photo_formats()) as photo:
            return photo.height, photo.width
    except Exception as error:  # damaged headers make the format readers raise almost anything
        raise PartCLIPSegError(f"{path}: not a photo ({error}): replace it") from error


def sizes(output: Path, *paths: Path) -> dict[str, int]:
    """Return the sizes of files, for `Outcome.files`."""
    return {path.relative_to(output).as_posix(): path.stat().st_size for path in paths}


# -- journal and processes ----------------------------------------------------------------------------------------


def _open_journal(recipe: LayoutRecipe, output: Path) -> dict[str, Outcome]:
    """Read the outcomes of an earlier run whose files are still there; start a journal if there is none."""
    journal, head = Journal(output / JOURNAL), {"dataset": recipe.name, "options": recipe.options()}
    if not journal.path.is_file():
        if any(output.iterdir()):
            raise UsageError(f"the output {output} is not empty, and no run started there: choose another folder")
        journal.append([head])
        return {}
    # A damaged line costs one photo, which is prepared again.
    lines = journal.read(damaged="skip")
    if not lines or lines[0] != json.loads(json.dumps(head)):
        raise UsageError(
            f"{output} was made from another data set or with another split: choose another output, or repeat the "
            "first command"
        )
    remove_temporary(output)
    outcomes = {}
    for line in lines[1:]:
        try:
            outcome = Outcome(**line)
        except TypeError:  # a line of another program
            continue
        outcomes.pop(outcome.key, None)
        if all(_has_size(output / name, size) for name, size in outcome.files.items()):
            outcomes[outcome.key] = outcome
    return outcomes


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _results(jobs: Sequence[PrepareJob], output: Path, workers: int) -> Iterator[tuple[PrepareJob, Outcome | str]]:
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, _attempt(job, output)
        return
    with _pool(min(workers, len(jobs))) as pool:
        try:
            # A few jobs at a time: a stop then waits for these alone, and their results are not held in memory.
            waiting = iter(jobs)
            while batch := list(islice(waiting, 16 * workers)):
                yield from zip(batch, pool.map(_attempt, batch, [output] * len(batch), chunksize=4), strict=True)
        except BrokenProcessPool:
            raise PartCLIPSegError(
                "a worker process died, perhaps for want of memory: run again to go on, with fewer --workers"
            ) from None


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # Fresh processes: a fork would copy the threads' locks of a progress display in an undefined state.
    # Ctrl-C reaches every process of the terminal; only the main process should handle it.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(job: PrepareJob, output: Path) -> Outcome | str:
    try:
        return job.run(output)
    except PartCLIPSegError as error:
        return str(error)
    except OSError as error:
        return f"{job.key}: {error}"
