"""``partclipseg prepare``: convert a benchmark's raw source into the layout that training and scoring read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from partclipseg.apps.options import check_least, optional
from partclipseg.apps.terminal import count_bar, plain_console
from partclipseg.counts import count_of
from partclipseg.data.datasets.choice import dataset_option, has_recipe, source_option
from partclipseg.errors import UsageError
from partclipseg.machine import usable_cores

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.data.prepare.recipe import LayoutRecipe
    from partclipseg.data.prepare.runner import Summary


@dataclass(frozen=True)
class Prepare:
    """Make a benchmark's folder, as the other commands read it, from its raw source, which is never changed.

    A run that was stopped continues when the same command is given again.

    Examples:
      partclipseg prepare pascal-part-116 --source Annotations_Part.tar.gz VOC2010 --output data/PascalPart116
      partclipseg prepare ade20k-part-234 --source ADE20K_2021_17_01 --output data/ADE20KPart234
    """

    dataset: Annotated[str, tyro.conf.Positional, dataset_option(has_recipe)]
    source: Annotated[
        tuple[Path, ...],
        source_option(
            tuple[Path, ...],
            "Folders or archives (.zip, .tar.gz) as downloaded; archives are unpacked into OUTPUT.unpacked.",
        ),
    ]
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the layout: a new one, or that of a run to continue."""
    val_list: Annotated[Path | None, optional("FILE")] = None
    """pascal-part-116: text file with the ids of the validation photos, one a line.
    Left out: VOC's ImageSets/Segmentation/val.txt in the source."""
    photos: Literal["copy", "link"] = "copy"
    """Copy the photos, or give them a second name in the output (hard link: no space, same disk only)."""
    workers: Annotated[int | None, optional("N")] = None
    """Number of processes. Left out: one for each processor."""
    overwrite: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Replace files of the layout that a person made or changed. Without it they are kept and count."""

    def run(self) -> int:
        """Run the command; returns 1 if a photo could not be prepared."""
        from partclipseg.data.prepare.runner import prepare

        check_least(workers=(self.workers, 1))
        console = plain_console()
        recipe = self._recipe()
        with count_bar(console, f"preparing {self.dataset}") as show:
            workers = self.workers or usable_cores()
            summary = prepare(recipe, self.output, workers=workers, overwrite=self.overwrite, progress=show)
        _show(console, self.dataset, self.output, summary)
        return 1 if summary.failures else 0

    def _recipe(self) -> LayoutRecipe:
        from partclipseg.data.datasets.registry import dataset_spec
        from partclipseg.data.prepare.source import open_sources

        preparation = dataset_spec(self.dataset).preparation
        assert preparation is not None  # the option allows only data sets with a recipe
        if self.val_list is not None and "val_list" not in preparation.options:
            raise UsageError(f"{self.dataset} has its splits in the source: leave out --val-list")
        folders = open_sources(self.source, self.output)
        options = {name: getattr(self, name) for name in preparation.options}
        return preparation.load()(folders=folders, mode=self.photos, **options)


def _show(console: Console, dataset: str, output: Path, summary: Summary) -> None:
    from rich.table import Table

    from partclipseg.data.datasets.registry import dataset_spec
    from partclipseg.vocabulary import Catalog

    table = Table("", "here", title=f"{dataset} in {output}")
    counts = [("objects", len(summary.objects)), ("object-parts", len(summary.parts))]
    published: tuple[int, ...] = ()
    if name := dataset_spec(dataset).catalog:
        table.add_column("published")
        catalog = Catalog.load(name)
        counts.insert(1, ("parts", len({catalog.object_parts[label].part for label in summary.parts})))
        published = (len(catalog.objects), len(catalog.vocabulary.parts), len(catalog.object_parts))
    for place, (what, here) in enumerate(counts):
        if here:  # a recipe without a class list counts what its source names: objects or parts
            table.add_row(what, str(here), *map(str, published[place : place + 1]))
    for split, count in sorted(summary.photos.items()):
        table.add_row(f"photos in {split}", f"{count:,}")
    console.print(table)
    for count, sentence in (
        (summary.taken_over, "there from an earlier run"),
        (summary.changed, "prepared again, from another source than at the earlier run"),
        (summary.left_out, "left out, without a part of the class list"),
    ):
        if count:
            console.print(f"{count_of(count, 'photo was', 'photos were')} {sentence}")
    for paths, what, sentence in (
        (summary.kept, "file", "made or changed by a person, so kept; --overwrite replaces what is kept"),
        (summary.gone, "photo", "there at an earlier run and not in the source now; delete the files, which are kept"),
    ):
        if paths:
            shown = ", ".join(paths[:8]) + (", …" if len(paths) > 8 else "")
            console.print(f"{count_of(len(paths), f'{what} was', f'{what}s were')} {sentence}: {shown}")
    if summary.unknown:
        names = ", ".join(name for name, _ in summary.unknown.most_common(8))
        more = ", …" if len(summary.unknown) > 8 else ""
        unknown = count_of(len(summary.unknown), "raw name was", "raw names were")
        console.print(f"{unknown} skipped, without a class: {names}{more}")
    for failure in summary.failures[:10]:
        console.print(f"failed: {failure}")
    if summary.failures:
        console.print(f"photos that failed: {len(summary.failures)}; the same command tries them again")
