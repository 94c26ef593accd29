"""Logs of a run: a JSON-lines file, its resolved configuration, and optional TensorBoard curves."""

from __future__ import annotations

import logging
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import partclipseg
from partclipseg.counts import count_of
from partclipseg.errors import UsageError
from partclipseg.files import is_regular
from partclipseg.journal import Journal
from partclipseg.kept_files import KeptFiles
from partclipseg.machine import how_to_install
from partclipseg.writing import writing

logger = logging.getLogger(__name__)


class RunLog:
    """Log with one JSON object a line, each with a ``step``, and optional TensorBoard scalars.

    Args:
        path: the ``.jsonl`` file; lines are appended.
        tensorboard: directory for event files, or None.

    Raises `UsageError` if TensorBoard is asked for and not installed.
    """

    def __init__(self, path: str | Path, tensorboard: str | Path | None = None) -> None:
        self.path = Path(path)
        self._journal = Journal(self.path, durable=False)  # waiting for the disk would slow training
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_regular(self.path)
        self._writer = None if tensorboard is None else _summary_writer(tensorboard)

    def write(self, step: int, **values: Any) -> None:
        """Append a line; numbers, also those one level down, become TensorBoard scalars ``losses/total``."""
        with writing(self.path):
            self._journal.append([{"step": step, **values}])
        if self._writer is not None:
            for name, value in _scalars(values).items():
                self._writer.add_scalar(name, value, step)

    def rewind(self, step: int, without: str = "") -> None:
        """Delete what a resumed run writes again, and malformed lines.

        That is every line after `step`, and of `step` itself each line with an entry of the name `without`.
        """
        if not self.path.is_file():
            return
        with writing(self.path):
            entries = self._journal.read("skip")
            kept = [entry for entry in entries if type(entry.get("step")) is int]
            if odd := self.path.read_bytes().count(b"\n") - len(kept):
                lines = count_of(odd, "line is", "lines are")
                logger.warning("%s: %s damaged and left out; the run goes on", self.path, lines)
            self._journal.rewrite(
                entry for entry in kept if entry["step"] < step or (entry["step"] == step and without not in entry)
            )

    def close(self) -> None:
        """Write what is left of the TensorBoard files; the log itself is complete after every line."""
        if self._writer is not None:
            self._writer.close()


def write_configuration(files: KeptFiles, name: str, values: Mapping[str, Any]) -> None:
    """Write `values` as YAML, with the environment of the run: versions, and the commit if there is one."""
    content = {**values, "made_with": environment()}
    with writing(files.folder / name):
        files.text(name, yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True))
    files.raise_failed()


def environment() -> dict[str, str]:
    """Return the versions that affect a result, and the commit of a source checkout."""
    found = {"python": platform.python_version(), "partclipseg": partclipseg.__version__}
    found |= {name: metadata.version(name) for name in ("torch", "transformers", "accelerate", "numpy")}
    if commit := _commit():
        found["commit"] = commit
    return found


def _commit() -> str | None:
    """Return the commit of the checkout of this package, with ``-dirty`` if files have changed."""
    package = Path(__file__).resolve().parents[1]
    try:
        # A checkout that holds this file, not one that an installed package happens to lie inside of.
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", "errors.py"], cwd=package, capture_output=True, timeout=10
        )
        if tracked.returncode:
            return None
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=package, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _scalars(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = float(value)
    return flat


def _summary_writer(directory: str | Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            f"TensorBoard is not installed: {how_to_install('tracking')}, or leave --tensorboard out"
        ) from None
    return SummaryWriter(str(directory))
