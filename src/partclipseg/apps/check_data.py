"""``partclipseg check-data``: what is in a data set's folder, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from partclipseg.apps.options import Own, OwnData, optional
from partclipseg.apps.terminal import count_bar, plain_console
from partclipseg.data.datasets.choice import dataset_option, has_files
from partclipseg.data.datasets.spec import Split

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.data.check import CheckReport
    from partclipseg.data.problem import Problem


@dataclass(frozen=True)
class CheckData:
    """Say what is in a data set's folder, and what is wrong with it. Nothing is changed.

    Exit code 0 when all is well, 1 when something has to be mended, 2 when the folder is not this data set's.

    Examples:
      partclipseg check-data pascal-part-116 --data data/PascalPart116
      partclipseg check-data coco --data data/car_parts --object car
    """

    dataset: Annotated[str, tyro.conf.Positional, dataset_option(has_files)]
    root: Annotated[Path, tyro.conf.arg(name="data", metavar="DIR")]
    """The data set's folder."""
    split: Annotated[Split | None, optional("{train,test}")] = None
    """Check only what this split needs. Left out: all that is there."""
    own: Own = field(default_factory=OwnData)
    all_problems: bool = False
    """List every problem, not only the first ten of each kind."""

    def run(self) -> int:
        from partclipseg.data.check import check_dataset

        console = plain_console()
        with count_bar(console, "checking files") as show:
            report = check_dataset(self.dataset, self.root, self.split, on_progress=show, **self.own.given())
        _show_counts(console, report)
        limit = None if self.all_problems else 10
        _show_problems(console, "Wrong", report.problems, limit)
        _show_problems(console, "Ignored", report.notes, limit)
        if report.ok:
            console.print("All is well.", style="green")
            return 0
        console.print(f"Problems: {len(report.problems)}", style="red")
        return 1


def _show_counts(console: Console, report: CheckReport) -> None:
    from rich.table import Table

    table = Table(title=f"{report.dataset} in {report.root}", title_justify="left")
    table.add_column("split")
    for heading in ("photos", "sound", "with parts", "classes"):
        table.add_column(heading, justify="right")
    for split in report.splits:
        present = sum(count > 0 for count in split.classes)
        row = (split.photos, split.sound, split.with_parts, f"{present} of {len(split.classes)}")
        table.add_row(split.split, *map(str, row))
    console.print(table)


def _show_problems(console: Console, title: str, problems: tuple[Problem, ...], limit: int | None) -> None:
    """Print the number of problems of each kind as a table, then the files; long paths wrap and are never cut."""
    from rich.table import Table
    from rich.text import Text

    if not problems:
        return
    table = Table(title=title, title_justify="left")
    table.add_column("kind")
    table.add_column("number", justify="right")
    kinds = Counter(problem.kind for problem in problems)
    for kind, number in kinds.items():
        table.add_row(kind, str(number))
    console.print(table)
    for kind, number in kinds.items():
        members = [problem for problem in problems if problem.kind == kind]
        for problem in members[:limit]:
            console.print(Text.assemble((f"{kind}: ", "bold"), str(problem)))
        if limit is not None and number > limit:
            console.print(f"{kind}: and {number - limit} more, which --all-problems lists")
