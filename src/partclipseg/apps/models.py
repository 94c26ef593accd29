"""``partclipseg models``: the models that are known by name, and what is here of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from partclipseg.apps.options import optional
from partclipseg.apps.terminal import plain_console
from partclipseg.errors import UsageError

_CONTENT = {
    "PartShapes": "rendered scenes, not photos",
    "PhraseCut": "any words, without training on parts",
    "Pascal-Part-116": "parts of animals, vehicles, people and indoor things",
    "ADE20K-Part-234": "parts of furniture, rooms and streets",
    "PartImageNet": "parts of animals, vehicles and bottles",
}
"""Description of what a model can find, by the data set that it was trained on."""


@dataclass(frozen=True)
class Models:
    """List the models that are known by name, which --model NAME fetches, checks, converts and keeps once.

    The environment variable PARTCLIPSEG_HOME moves the folder that they are kept in.

    Example: partclipseg models --fetch partclipseg-pascal
    """

    fetch: Annotated[str | None, optional("NAME")] = None
    """Fetch a model now, so that it is here where there is no network later."""
    add: Annotated[tuple[str, Path] | None, optional("NAME FILE.pth")] = None
    """Take a file that you have fetched by hand as the file of NAME. The file itself is left alone."""
    remove: Annotated[str | None, optional("NAME")] = None
    """Delete what was fetched for a model. The SHA-256 of its file is remembered, files that you changed are kept."""
    keep_original: bool = False
    """With --fetch: keep the .pth file too, in the folder originals."""
    accept_changed: bool = False
    """With --fetch or --add: take a file whose SHA-256 is not that of the first fetch."""

    def run(self) -> int:
        wishes = [self.fetch, self.add, self.remove]
        if sum(wish is not None for wish in wishes) > 1:
            raise UsageError("--fetch, --add and --remove are three calls: give one of them")
        if self.keep_original and self.fetch is None:
            raise UsageError("--keep-original goes with --fetch NAME")
        if self.accept_changed and self.fetch is None and self.add is None:
            raise UsageError("--accept-changed goes with --fetch NAME or --add NAME FILE.pth")
        console = plain_console()
        if self.remove is not None:
            from partclipseg.models.fetch import remove

            kept = remove(self.remove)
            also = f"; files there that a person made or changed are kept in {kept}" if kept else ""
            console.print(f"{self.remove} is removed{also}")
        elif self.fetch is not None or self.add is not None:
            self._have(console)
        else:
            _list(console)
        return 0

    def _have(self, console: Any) -> None:
        from partclipseg.models.fetch import add, checksum_of, fetch
        from partclipseg.models.released import find_release

        if self.add is not None:
            name, path = self.add
            directory = add(name, path, self.accept_changed)
        else:
            name = str(self.fetch)
            directory = fetch(name, self.keep_original, self.accept_changed)
        release = find_release(name)
        digest = checksum_of(release)
        console.print(f"{name}: {directory}" + (f", SHA-256 of its file {digest}" if digest else ""))
        if self.keep_original and release.original.is_file():
            console.print(f"its file: {release.original}")


def _list(console: Any) -> None:
    from partclipseg.models.released import catalogue, home

    known = catalogue().values()
    # Lines are printed as they are: a table that is cut to the terminal hides names that people have to type.
    rows = [("name", "method", "data", "size", "here", "note")]
    rows += [(r.name, r.method, r.data, _size(r), _here(r), r.note) for r in known]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        line = "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
        console.print(line, style="bold" if number == 0 else "")
    console.print()
    for data in dict.fromkeys(release.data for release in known):
        if data in _CONTENT:
            console.print(f"{data}: {_CONTENT[data]}")
    console.print()
    groups: dict[tuple[str, str, str], list[str]] = {}
    for release in known:
        groups.setdefault((release.repository or release.source, release.code, release.terms), []).append(release.name)
    for (source, code, terms), names in groups.items():
        console.print(", ".join(names), style="bold")
        console.print(f"  from {source}; code: {code}; weights and data: {terms}")
    console.print(f"\nKept in {home()}; `partclipseg predict PHOTO --model NAME` fetches what is not here")


def _size(release: Any) -> str:
    if release.built_in:
        return ""
    return "unknown" if release.megabytes is None else f"{release.megabytes:,.3g} MB"


def _here(release: Any) -> str:
    from partclipseg.models.registry import FAMILIES

    if release.is_here:
        return "yes"
    return "no" if release.method in FAMILIES else "no method"
