"""What can be wrong with a data set's files, said in the same words by reading and by checking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from partclipseg.data.values import printable
from partclipseg.errors import PartCLIPSegError

Kind = Literal[
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
"""The table headings of `check-data`, one for each sort of defect."""


_LONGEST = 2000
"""Characters of a message that are shown."""


@dataclass(frozen=True)
class Problem:
    """One defect of one file."""

    kind: Kind
    file: Path
    message: str
    """A sentence that names the remedy; it does not repeat the file."""

    def __str__(self) -> str:
        message = self.message
        if len(message) > _LONGEST:  # it quotes a name of a damaged file
            message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
        return printable(f"{self.file}: {message}")


class DataError(PartCLIPSegError):
    """A file of a data set is missing or wrong; `problem` says which and how."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)  # the only argument, so that the error survives pickling between processes
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)
