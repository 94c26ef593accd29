"""Prepare many photos in parallel; a run that was stopped continues.

Every finished photo is one line of a journal in the output folder. A later run takes over the photos of the journal
whose source is the same and whose files are there as they were written, and does the others.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from partclipseg.data.prepare.recipe import Layout, LayoutRecipe, Outcome, PrepareJob
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import locked, refusal, remove_temporary
from partclipseg.journal import Journal
from partclipseg.kept_files import KeptFiles, file_digest, is_free

JOURNAL = "prepare-journal.jsonl"


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
    kept: tuple[str, ...] = ()
    """Files that a person made or changed, below the output folder, sorted: they are as they were."""
    gone: tuple[str, ...] = ()
    """Photos of an earlier run that are no longer in the source, sorted; their files are kept."""


def prepare(
    recipe: LayoutRecipe,
    output: Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Make the layout of a data set in `output`; `progress` is called with photos done and photos in all.

    With `overwrite`, files that a person made or changed are replaced.

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
        return _prepare(recipe, jobs, output, workers, overwrite, progress)


def _prepare(
    recipe: LayoutRecipe,
    jobs: dict[str, PrepareJob],
    output: Path,
    workers: int,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> Summary:
    before, known = _open_journal(recipe, output)
    sources = {key: job.source() for key, job in jobs.items()}  # before the work, to notice a change during it
    here = {key: outcome for key, outcome in before.items() if key in jobs}
    changed = {key for key, outcome in here.items() if outcome.source not in ("", sources[key])}
    outcomes = {
        key: outcome
        for key, outcome in here.items()
        if key not in changed and not (overwrite and outcome.kept) and _is_as_written(output, outcome)
    }
    taken_over, failures, left = len(outcomes), [], []
    waiting = [jobs[key] for key in sorted(jobs.keys() - outcomes.keys())]
    layouts = [Layout(output, known.get(job.key, {}), overwrite) for job in waiting]
    journal = Journal(output / JOURNAL)
    for done, (job, result) in enumerate(_results(waiting, layouts, workers), start=taken_over + 1):
        if isinstance(result, Outcome):
            outcomes[job.key] = result = replace(result, source=sources[job.key])
            journal.append([asdict(result)])
            left += _remove_former(output, before.get(job.key), result)
        else:
            failures.append(result)
        if progress is not None:
            progress(done, len(jobs))
    kept = [outcomes[key] for key in sorted(outcomes) if outcomes[key].files]
    lists = KeptFiles(output, "prepare", overwrite, beside=False)
    recipe.finish(lists, kept)
    lists.raise_failed()
    lists.finish()
    by_people = {*left, *(name for outcome in kept for name in outcome.kept), *(name for name, _ in lists.kept)}
    return Summary(
        photos=Counter(outcome.split for outcome in kept),
        taken_over=taken_over,
        changed=len(changed),
        left_out=len(outcomes) - len(kept),
        objects=frozenset(label for outcome in kept for label in outcome.objects),
        parts=frozenset(label for outcome in kept for label in outcome.parts),
        unknown=Counter(name for outcome in outcomes.values() for name in outcome.unknown),
        failures=tuple(failures),
        kept=tuple(sorted(by_people)),
        gone=tuple(sorted(key for key in before.keys() - jobs.keys() if before[key].files)),
    )


# -- journal and processes ----------------------------------------------------------------------------------------


def _open_journal(recipe: LayoutRecipe, output: Path) -> tuple[dict[str, Outcome], dict[str, dict[str, set[str]]]]:
    """Read the outcomes of earlier runs, and the digests of each photo's files; start a journal if there is none."""
    journal, head = Journal(output / JOURNAL), {"dataset": recipe.name, "options": recipe.options()}
    if not journal.path.is_file():
        if any(output.iterdir()):
            raise UsageError(f"the output {output} is not empty, and no run started there: choose another folder")
        journal.append([head])
        return {}, {}
    # A damaged line costs one photo, which is prepared again.
    lines = journal.read(damaged="skip")
    if not lines or lines[0] != json.loads(json.dumps(head)):
        raise UsageError(
            f"{output} was made from another data set or with another split: choose another output, or repeat the "
            "first command"
        )
    remove_temporary(output)
    outcomes: dict[str, Outcome] = {}
    known: dict[str, dict[str, set[str]]] = {}
    for line in lines[1:]:
        if (outcome := _outcome(line)) is None:  # a line of another program
            continue
        outcomes[outcome.key] = outcome
        for name in outcome.files.keys() - set(outcome.kept):
            known.setdefault(outcome.key, {}).setdefault(name, set()).update(_digests(outcome, name))
    return outcomes, known


def _outcome(line: dict[str, Any]) -> Outcome | None:
    """Return the outcome that a line of the journal holds; None if it holds none."""
    try:
        outcome = Outcome(**line)
        words = [outcome.key, outcome.split, outcome.source, *outcome.files.keys(), *outcome.kept, *outcome.unknown]
        labels = [*outcome.parts, *outcome.objects]
    except (TypeError, AttributeError):
        return None
    known = all(isinstance(word, str) for word in words) and all(isinstance(label, int) for label in labels)
    return outcome if known else None


def _digests(outcome: Outcome, name: str) -> list[str]:
    state = outcome.files[name]
    return [str(state["digest"])] if isinstance(state, dict) and "digest" in state else []


def _is_as_written(output: Path, outcome: Outcome) -> bool:
    """Whether the files of a photo are there as they were when its outcome was recorded."""
    return all(_has_state(output / name, state) for name, state in outcome.files.items())


def _has_state(path: Path, state: Any) -> bool:
    try:
        status = path.stat()
        if not isinstance(state, dict):
            return path.is_file() and status.st_size == state
        if (status.st_size, status.st_mtime_ns) == (state.get("bytes"), state.get("modified")):
            return path.is_file()
        return file_digest(path) == state.get("digest")  # a copy may have another time
    except OSError:
        return False


def _remove_former(output: Path, before: Outcome | None, now: Outcome) -> list[str]:
    """Delete the files that a photo no longer has, such as those of another split; return those that are a person's."""
    kept: list[str] = []
    if before is None:
        return kept
    for name in sorted(before.files.keys() - now.files.keys()):
        path = output / name
        with suppress(OSError):
            if name in before.kept or not is_free(path, _digests(before, name)):
                kept.append(name)
            else:
                path.unlink(missing_ok=True)
    return kept


def _results(
    jobs: Sequence[PrepareJob], layouts: Sequence[Layout], workers: int
) -> Iterator[tuple[PrepareJob, Outcome | str]]:
    if workers <= 1 or len(jobs) <= 1:
        for job, layout in zip(jobs, layouts, strict=True):
            yield job, _attempt(job, layout)
        return
    with _pool(min(workers, len(jobs))) as pool:
        try:
            # A few jobs at a time: a stop then waits for these alone, and their results are not held in memory.
            waiting = zip(jobs, layouts, strict=True)
            while batch := list(islice(waiting, 16 * workers)):
                now, places = zip(*batch, strict=True)
                yield from zip(now, pool.map(_attempt, now, places, chunksize=4), strict=True)
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


def _attempt(job: PrepareJob, layout: Layout) -> Outcome | str:
    try:
        return replace(job.run(layout), files=layout.files, kept=layout.kept)
    except PartCLIPSegError as error:
        return str(error)
    except OSError as error:
        return f"{job.key}: {refusal(error)}"
