"""Problems of a data set's files, shared by readers and checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from partclipseg.data.values import printable
from partclipseg.errors import PartCLIPSegError

ProblemKind = Literal[
    "missing photo",
    "missing label",
    "missing split",
    "unreadable",
    "size",
    "bit depth",
    "unknown label",
    "empty",
    "label count",
    "path",
    "annotation",
    "repeated",
    "class list",
    "stray file",
    "left out",
]
"""Table headings of `check-data`, one for each sort of defect."""


_LONGEST = 4096
"""Greatest number of characters that are shown of a path or a message."""


@dataclass(frozen=True)
class Problem:
    """One defect of one file."""

    kind: ProblemKind
    file: Path
    message: str
    """A sentence that names the remedy; it does not repeat the file."""

    def __str__(self) -> str:
        return f"{_shortened(printable(str(self.file)))}: {_shortened(printable(self.message))}"


def _shortened(text: str) -> str:
    """Leave out the middle of a long text: it quotes a name from a damaged file."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


class DataError(PartCLIPSegError):
    """Error for a file of a data set that is missing or wrong; `problem` says which and how."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)  # the only argument, so that the error survives pickling between processes
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)
