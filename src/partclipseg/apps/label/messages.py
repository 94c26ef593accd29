"""Write what ``partclipseg label`` says in the terminal, while it runs and at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from partclipseg.apps.terminal import plain_console, progress_bar
from partclipseg.counts import count_of
from partclipseg.data.values import printable

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.apps.label.job import ManifestRecord
    from partclipseg.apps.label.people import Results
    from partclipseg.apps.label.photos import FoundPhotos
    from partclipseg.apps.label.report import Tally
    from partclipseg.kept_files import KeptFiles

SHOWN_FAILURES = 20
"""Maximum number of photos and files named in the terminal; the report names all."""

SHOWN_LEFT = 5
"""Maximum number of files of photos that are gone named in the terminal."""


class Messages:
    """Lines for the terminal; a closed pipe, as after `| head`, does not end the run."""

    def __init__(self) -> None:
        self.console = plain_console()
        self._errors = plain_console(stderr=True)

    def line(self, text: str) -> None:
        """Write to standard output."""
        self._print(self.console, text)

    def error(self, text: str) -> None:
        """Write to standard error."""
        self._print(self._errors, text)

    def files(self, title: str, names: Sequence[str], error: bool = False) -> None:
        """Write a title and at most `SHOWN_FAILURES` names below it."""
        say = self.error if error else self.line
        say(title)
        for name in names[:SHOWN_FAILURES]:
            say(f"  {name}")
        if len(names) > SHOWN_FAILURES:
            say(f"  and {len(names) - SHOWN_FAILURES} more")

    def watched(
        self, stream: Iterator[list[ManifestRecord]], total: int, todo: int
    ) -> Iterator[list[ManifestRecord]]:
        """Yield the batches of `stream`, which label `todo` of all photos, with a progress bar in a terminal."""
        with progress_bar(self.console, "labelling", todo) as update:
            for records in stream:
                yield records
                update(advance=len(records))

    def _print(self, console: Console, text: str) -> None:
        if console.quiet:
            return
        try:
            console.print(printable(text))
        except (BrokenPipeError, SystemExit):  # Rich turns the first into the second
            console.quiet = True


def summary(
    say: Messages,
    output: Path,
    found: FoundPhotos,
    tally: Tally,
    results: Results,
    collections: KeptFiles,
    left: Sequence[str],
) -> int:
    """Print a summary of all photos and files; return the exit code."""
    total, failed = len(found.photos), tally.failed
    reasons = dict(results.unreadable)
    if results.kept_files:
        files = count_of(len(results.kept_files), "file is", "files are")
        photos = count_of(len(results.taken), "photo is", "photos are")
        title = f"{files} a person's and kept; {photos} taken into the results as corrected:"
        say.files(title, list(results.kept_files))
    if reasons:
        files = count_of(len(reasons), "file is", "files are")
        title = f"{files} kept but not read back, so that the model's own result counts:"
        say.files(title, [f"{file}: {reason}" for file, reason in reasons.items()], error=True)
    for remark in collections.remarks():
        say.line(remark)
    if left:
        names = ", ".join(left[:SHOWN_LEFT]) + (f" and {len(left) - SHOWN_LEFT} more" if len(left) > SHOWN_LEFT else "")
        files = count_of(len(left), "file is", "files are")
        say.line(
            f"{files} of photos that are gone or renamed, so kept and not counted: {names}: "
            "delete what you do not need, or give the photos their former names"
        )
    say.line(f"{total - len(failed):,} of {count_of(total, 'photo')} -> {output}")
    if failed:
        title = f"{len(failed):,} of {count_of(total, 'photo')} could not be labelled (see {output / 'report.html'}):"
        say.files(title, [f"{photo}: {reason}" for photo, reason in failed], error=True)
    if tally.warned:
        title = f"{count_of(len(tally.warned), 'photo is', 'photos are')} labelled in which little may be seen:"
        say.files(title, [f"{photo}: {warning}" for photo, warning in tally.warned], error=True)
    if found.unread:
        say.error(found.unread)
    if found.unreadable:
        say.files("folders that cannot be read are left out:", found.unreadable, error=True)
    if unwritten := [*results.failed, *collections.failed]:
        say.files("files that could not be written:", [f"{file}: {reason}" for file, reason in unwritten], error=True)
    return 1 if failed or found.unreadable or unwritten else 0
