"""Atomic checkpoints, verified by hash; the last few are kept.

A checkpoint is a directory ``step-00000100`` with one file for each named state and a manifest of their hashes.
It is written under a temporary name, flushed to the disk and then renamed, so that a process killed at any moment
leaves either the complete checkpoint or none. Nothing here knows what is being trained.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import remove_temporary, sha256, whole_directory
from partclipseg.writing import writing

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    step: int
    states: dict[str, Any]
    """Saved states, tensors on the CPU."""


class CheckpointStore:
    """Checkpoints of one run.

    Args:
        directory: folder of the checkpoints; created when the first is saved.
        keep: number of newest checkpoints to keep.
        states: the states that every checkpoint must have; one without them counts as damaged.
    """

    def __init__(self, directory: str | Path, keep: int = 2, states: Collection[str] = ()) -> None:
        if keep < 1:
            raise PartCLIPSegError(f"keep at least one checkpoint, not {keep}")
        self.directory = Path(directory)
        self.keep = keep
        self.states = tuple(states)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending, without checking them.

        Raises `NotADirectoryError` if something else is in the folder's place, such as a link to a disk that is away.
        """
        if not self.directory.is_dir():
            if os.path.lexists(self.directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.directory))
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.directory.iterdir() if path.is_dir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, states: Mapping[str, Any]) -> Path:
        """Write a checkpoint and remove those that are too old.

        `states` are nested dictionaries and lists of tensors, numbers and strings. Raises `PartCLIPSegError` where
        the disk is full or may not be written; the older checkpoints are then untouched.
        """
        target = self._path(step)
        with writing(target), whole_directory(target, durable=True) as temporary:
            files = {}
            for name, state in states.items():
                path = temporary / f"{name}.pt"
                torch.save(state, path)
                files[path.name] = sha256(path)
            manifest = json.dumps({"step": step, "sha256": files}, indent=1)
            (temporary / _MANIFEST).write_text(manifest, encoding="utf-8")
        self._remove_old()
        return target

    def load(self) -> Checkpoint | None:
        """Load the newest intact checkpoint; None if there is none at all.

        A damaged one is passed over with a warning that names the file. Raises `PartCLIPSegError` if every
        checkpoint is damaged: starting anew over them is the caller's decision. Raises `PermissionError` for one that
        may not be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return Checkpoint(step, self._read(self._path(step)))
            except _DamagedError as damage:
                logger.warning("the checkpoint %s is damaged (%s) and not used", self._path(step), damage)
        if steps:
            raise PartCLIPSegError(
                f"every checkpoint in {self.directory} is damaged: delete that folder to start from the beginning; "
                "all else in the run's folder is kept"
            )
        return None

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            hashes = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["sha256"]
            if not isinstance(hashes, dict) or not all(map(_is_state, hashes)):
                raise _DamagedError(f"{_MANIFEST} lists no states")
            if missing := [name for name in self.states if f"{name}.pt" not in hashes]:
                raise _DamagedError(f"it has no {', '.join(missing)}")
            for name, expected in hashes.items():
                if sha256(path / name) != expected:
                    raise _DamagedError(f"{name} has changed since it was written")
            return {
                name.removesuffix(".pt"): torch.load(path / name, map_location="cpu", weights_only=True)
                for name in hashes
            }
        except PermissionError:
            raise
        except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            raise _DamagedError(str(error)) from error
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise _DamagedError("a file is no state of PyTorch") from error

    def _remove_old(self) -> None:
        for step in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(step), ignore_errors=True)
        remove_temporary(self.directory, recursive=False)


def _is_state(name: str) -> bool:
    return name.endswith(".pt") and Path(name).name == name


class _DamagedError(Exception):
    pass


def differences(then: Mapping[str, Any], now: Mapping[str, Any], harmless: Collection[str] = ()) -> list[str]:
    """Return the entries of two nested settings that differ, as ``loss.separation: 0.1 then, 0.2 now``.

    `harmless` names entries that are not compared: ``loss`` and all below it, or ``loss.separation`` alone. Tuples and
    lists count as equal.
    """
    old, new = _flattened(then), _flattened(now)
    absent = object()
    return [
        f"{key}: {old.get(key, 'absent')!r} then, {new.get(key, 'absent')!r} now"
        for key in {**old, **new}
        if not {key, key.split(".")[0]} & set(harmless) and old.get(key, absent) != new.get(key, absent)
    ]


def _flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
