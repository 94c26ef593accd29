"""``partclipseg check-data``: what is in a data set's folder, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.data.check import CheckReport
    from partclipseg.data.problem import Problem


@dataclass(frozen=True)
class CheckData:
    """Say what is in a data set's folder, and what is wrong with it. Nothing is changed.

    Exit code 0 when all is well, 1 when something has to be mended, 2 when the folder is not this data set's.

    Such as: partclipseg check-data pascal-part-116 --root data/PascalPart116,
    or for own photos: partclipseg check-data coco --root data/car_parts --object car
    """

    dataset: Annotated[
        Literal["pascal-part-116", "ade20k-part-234", "part-imagenet", "coco", "index-png"], tyro.conf.Positional
    ]
    """A benchmark; or your own photos with annotations as COCO JSON (coco) or as label pictures with a class list
    (index-png)."""
    root: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The data set's folder."""
    split: Literal["train", "test"] | None = None
    """Check only what this split needs; all that is there by default."""
    object: Annotated[str | None, tyro.conf.arg(metavar="WORD")] = None
    """Own data: the object that all parts belong to, where the files do not say it, such as: car."""
    mapping: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Own data: YAML or JSON that says what each class stands for: `left_ear: dog's ear`, or `dog: [ear, tail]`."""
    annotations: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """coco: the annotation file, where it has no usual name."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """coco: the folder of the photos, where they lie neither beside the annotation file nor in the root."""
    classes: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """index-png: the class list, where it is not classes.txt, .yaml or .json in the root."""
    all_problems: bool = False
    """List every problem, not only the first ten of each kind."""

    def run(self) -> int:
        from rich.console import Console
        from rich.progress import Progress

        from partclipseg.data.check import check_dataset

        console = Console()
        with Progress(console=Console(stderr=True), transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"checking {self.root}", total=None)
            report = check_dataset(
                self.dataset,
                self.root,
                self.split,
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),
                object=self.object,
                mapping=self.mapping,
                annotations=self.annotations,
                images=self.images,
                classes=self.classes,
            )
        _show_counts(console, report)
        limit = None if self.all_problems else 10
        _show_problems(console, "Wrong", report.problems, limit)
        _show_problems(console, "Ignored", report.notes, limit)
        console.print("[green]All is well.[/]" if report.ok else f"[red]Problems: {len(report.problems)}[/]")
        return 0 if report.ok else 1


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
    """Counts of each kind as a table, then the files; long paths wrap, they are never cut."""
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
            console.print(Text.assemble((f"{kind}: ", "bold"), str(problem)), soft_wrap=True)
        if limit is not None and number > limit:
            console.print(f"{kind}: and {number - limit} more, which --all-problems lists")
