"""Scores on disk while an evaluation runs, so that it can be stopped and continued."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from partclipseg.errors import PartCLIPSegError
from partclipseg.evaluation.protocol import Evaluator
from partclipseg.evaluation.scores import Protocol
from partclipseg.files import whole_file

_PATTERN = "scores-*.state"


class SavedScores:
    """The counts of an unfinished evaluation: one file for each process, in a folder.

    Args:
        folder: where the files lie; made when the first is written.
        options: plain values; scores that were made with other ones are refused.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.folder = folder
        self.options = dict(options)

    def load(self, evaluators: Mapping[Protocol, Evaluator]) -> None:
        """Add what any process has saved to the evaluators.

        Raises `PartCLIPSegError` naming the file and the options that differ, or for a damaged file.
        """
        for path in self._files():
            try:
                content = torch.load(path, weights_only=True)
                options, states = content["options"], content["scores"]
            except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
                raise PartCLIPSegError(f"{path} cannot be read: remove it to start again") from None
            now = self.options
            if names := [name for name in {**now, **options} if options.get(name) != now.get(name)]:
                different = "; ".join(f"{name}: {options.get(name)} then, {now.get(name)} now" for name in names)
                raise PartCLIPSegError(
                    f"{self.folder} holds an evaluation with other options ({different}): name another --output, or "
                    f"remove {path.name} there to start again"
                )
            merge_states(evaluators, states)

    def save(self, evaluators: Mapping[Protocol, Evaluator], process: int = 0) -> None:
        """Write the counts of one process."""
        with whole_file(self.folder / _PATTERN.replace("*", str(process))) as temporary:
            torch.save({"options": self.options, "scores": states_of(evaluators)}, temporary)

    def save_all(self, evaluators: Mapping[Protocol, Evaluator]) -> None:
        """Write counts that hold those of all processes, in place of their files."""
        self.save(evaluators)
        for path in self._files()[1:]:
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(_PATTERN), key=lambda path: (len(path.name), path.name))


def states_of(evaluators: Mapping[Protocol, Evaluator]) -> dict[Protocol, dict[str, Any]]:
    """The `state_dict` of every evaluator."""
    return {protocol: evaluator.state_dict() for protocol, evaluator in evaluators.items()}


def merge_states(evaluators: Mapping[Protocol, Evaluator], states: Mapping[Protocol, Mapping[str, Any]]) -> None:
    """Add the records of other evaluators, as `states_of` gives them, to these."""
    for protocol, evaluator in evaluators.items():
        evaluator.merge_state_dict(states[protocol])


def model_digest(name: str) -> str:
    """A short digest of a model directory's configuration and weights; the name itself for a hub name."""
    if not Path(name).is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(Path(name).glob("*")):
        if path.name == "config.json" or path.suffix in {".safetensors", ".bin"}:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
    return digest.hexdigest()[:16]


def text_digest(lines: Sequence[str]) -> str:
    """A short digest of a list of texts."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
