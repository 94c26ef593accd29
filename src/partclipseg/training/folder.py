"""Folder of a run: refuse one that holds other files of the names that a run writes, and keep what people change."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_file
from partclipseg.kept_files import KeptFiles
from partclipseg.training.checkpoint import differences
from partclipseg.writing import writing

logger = logging.getLogger(__name__)

CONFIGURATION, LOG, MODEL, BEST, CHECKPOINTS = "config.yaml", "log.jsonl", "model", "best", "checkpoints"
"""Names in the folder of a run: its configuration, its log, the finished model, the best so far, and checkpoints."""


def check_new(
    output: Path,
    recipe: Mapping[str, Any],
    harmless: Collection[str] = (),
    models: Mapping[str, str] | None = None,
    accept_changed: bool = False,
) -> None:
    """Check a folder that has no checkpoint, before a run begins in it.

    A run of the same `recipe` may begin again there; `harmless` names settings that may differ, and `models` are the
    digests of the recipe's models and `accept_changed` whether other ones do, as for `same_models`. Raises `UsageError`
    if there are results of another recipe, or files that no training wrote.
    """
    run = run_of(output)
    names = (BEST, MODEL) if run is not None else (BEST, CONFIGURATION, LOG, MODEL)
    found = [name for name in names if os.path.lexists(output / name)]
    if found and (
        run is None or differences(run["recipe"], recipe, (*harmless, *same_models(run, models or {}, accept_changed)))
    ):
        other = "which no run of training wrote" if run is None else "the results of another recipe"
        raise UsageError(
            f"{output} holds {' and '.join(found)}, {other}: name another folder with --output, or move them away"
        )


def check_unchanged(output: Path, changes: Sequence[str]) -> None:
    """Raise `PartCLIPSegError` where the run in `output` has another recipe, by the `changes` since then."""
    if changes:
        raise PartCLIPSegError(
            f"{output} holds a run with another recipe: name another --output, or continue it as it was\n  "
            + "\n  ".join(changes)
        )


def same_models(run: Mapping[str, Any], models: Mapping[str, str], accept_changed: bool = False) -> tuple[str, ...]:
    """Return the settings whose models have the files that they had in `run`, wherever these lie now.

    With `accept_changed` other files count as the same, where `run` had files too. `models` holds a digest by
    setting, as `start.model_files` computes them, and so does `run`, which is what a checkpoint or a configuration
    holds; older releases saved the start's alone.
    """
    then = run.get("models") or {"start": (run.get("digest") or {}).get("start model")}
    return tuple(
        setting
        for setting, digest in models.items()
        if setting in then and (accept_changed or then[setting] == digest)
    )


@contextmanager
def model_folder(files: KeptFiles, name: str) -> Iterator[Path]:
    """Yield a temporary folder for a model's files; it takes the place of the folder `name` when the block ends.

    A folder that a person changed is kept under another name, which is logged. Raises `PartCLIPSegError` if the disk
    is full or may not be written.
    """
    with writing(files.folder / name), files.directory(name) as unfinished:
        yield unfinished
    say_kept(files)


def say_kept(files: KeptFiles) -> None:
    """Log which files of people are kept, each once."""
    for remark in files.remarks():
        logger.warning("%s", remark)
    files.kept.clear()


def run_of(output: Path) -> dict[str, Any] | None:
    """Return the configuration of the run in `output`, with its recipe; None if there is none, or another file."""
    path = output / CONFIGURATION
    if not is_file(path):
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError, RecursionError):
        return None
    known = isinstance(content, dict) and "made_with" in content and isinstance(content.get("recipe"), dict)
    return content if known else None
