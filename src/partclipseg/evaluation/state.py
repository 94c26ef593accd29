"""Save scores to disk while an evaluation runs, so that it can be stopped and continued."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from partclipseg.data.fingerprint import changed_data
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import same_path, sha256, whole_file
from partclipseg.writing import writing

_PATTERN = "scores-*.state"

_MODEL_FILES = frozenset({"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"})
"""Files that affect a model's output, beside its weights."""


class Counts(Protocol):
    """Counts of an evaluation, such as an `Evaluator`: they hold each photo or record once, by its key."""

    def __contains__(self, key: str) -> bool: ...

    def state_dict(self) -> dict[str, Any]: ...

    def merge_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SavedScores:
    """Saved counts of an unfinished evaluation: one file for each process, in a folder.

    Args:
        folder: folder of the files; created when the first is written.
        options: plain values; scores that were made with other ones are refused.
        data: the `fingerprint` of the data set; scores that were made from other data are refused.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], data: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.options = dict(options)
        self.data = dict(data or {})

    def load(self, evaluators: Mapping[Any, Counts]) -> None:
        """Add the saved counts of all processes to the evaluators.

        Raises `PartCLIPSegError` naming the file and the options that differ, the data that have changed, or the
        damage.
        """
        for path in self._files():
            options, data, states = _read(path)
            again = f"name another --output, or delete {path} to score all photos again"
            now = self.options
            pairs = {name: (options.get(name), now.get(name)) for name in {**now, **options}}
            if names := [name for name, (a, b) in pairs.items() if a != b and not same_path(a, b)]:
                different = "; ".join(f"{name}: {options.get(name)} then, {now.get(name)} now" for name in names)
                raise PartCLIPSegError(
                    f"{self.folder} holds an unfinished evaluation with other options ({different}): {again}"
                )
            if changed := changed_data(data, self.data):
                raise PartCLIPSegError(
                    f"{self.folder} holds an unfinished evaluation of other data ({changed} changed since): {again}"
                )
            try:
                merge_states(evaluators, states)
            except PartCLIPSegError as error:
                raise PartCLIPSegError(f"{path} does not fit ({error}): {again}") from None
            except _MALFORMED:
                raise _damaged(path) from None

    def save(self, evaluators: Mapping[Any, Counts], process: int = 0) -> None:
        """Write the counts of one process.

        Raises `PartCLIPSegError` if the disk is full or the folder cannot be written to.
        """
        path = self.folder / _PATTERN.replace("*", str(process))
        content = io.BytesIO()  # torch itself would raise a RuntimeError without a reason on a full disk
        torch.save({"options": self.options, "data": self.data, "scores": states_of(evaluators)}, content)
        with writing(path), whole_file(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def save_all(self, evaluators: Mapping[Any, Counts]) -> None:
        """Write counts that include those of all processes, and delete the files of the others."""
        self.save(evaluators)
        for path in self._files()[1:]:
            path.unlink()

    def remove(self) -> None:
        """Delete the files of all processes, after the evaluation is finished and its report written."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(_PATTERN), key=lambda path: (len(path.name), path.name))


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
"""Errors from reading values of other types or forms."""


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str], dict[Any, Any]]:
    """Read options, data and scores of a file; raises `PartCLIPSegError` for a damaged one."""
    if not path.is_file():
        raise _damaged(path)
    content = path.read_bytes()
    try:
        saved = torch.load(io.BytesIO(content), weights_only=True)
        # Older releases saved no data digest.
        found = saved["options"], saved.get("data", {}), saved["scores"]
    except (*_MALFORMED, EOFError, OSError, pickle.UnpicklingError):
        raise _damaged(path) from None
    if not all(isinstance(part, dict) for part in found):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> PartCLIPSegError:
    return PartCLIPSegError(f"{path} is damaged: delete it to score its photos again; all else in the folder is kept")


def scored_twice(what: str) -> PartCLIPSegError:
    """Return the error for a photo or record, named with its key, that was counted twice with different results."""
    return PartCLIPSegError(
        f"the {what} was scored twice with different results: merge only scores of one model on one data set"
    )


def states_of(evaluators: Mapping[Any, Counts]) -> dict[Any, dict[str, Any]]:
    """Return the `state_dict` of every evaluator."""
    return {protocol: evaluator.state_dict() for protocol, evaluator in evaluators.items()}


def merge_states(evaluators: Mapping[Any, Counts], states: Mapping[Any, Mapping[str, Any]]) -> None:
    """Add the records of other evaluators, as `states_of` gives them, to these."""
    for protocol, evaluator in evaluators.items():
        evaluator.merge_state_dict(states[protocol])


def merge_processes(evaluators: Mapping[Any, Counts], world_size: int) -> None:
    """Exchange the records of all processes of the process group, so that every process holds all of them."""
    if world_size == 1:
        return
    states: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(states, states_of(evaluators))
    for state in states:
        merge_states(evaluators, state)


def model_digest(name: str) -> str:
    """Compute a short digest of a model directory's configuration, tokenizer and weights, or of a file of weights.

    A hub name is returned.
    """
    if Path(name).is_file():
        return sha256(Path(name))[:16]
    if not Path(name).is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(Path(name).glob("*")):
        if path.name in _MODEL_FILES or path.suffix in {".safetensors", ".bin"}:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
    return digest.hexdigest()[:16]


def text_digest(lines: Sequence[str]) -> str:
    """Compute a short digest of a list of texts."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
