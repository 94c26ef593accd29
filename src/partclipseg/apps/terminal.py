"""The terminal as commands write to it: a console for plain text, and progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that prints text as it is: names and words may hold what else is markup, emoji or numbers.

    Lines are not broken, so that paths can be copied.
    """
    from rich.console import Console

    return Console(stderr=stderr, quiet=quiet, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def progress_bar(
    console: Console, description: str, total: int | None = None, note: str = ""
) -> Iterator[Callable[..., None]]:
    """Show a progress bar on standard error, only if `console` is a terminal and not quiet.

    Yield `rich.progress.Progress.update` for it, which takes ``completed``, ``advance``, ``total`` and ``note``.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    silent = console.quiet or not console.is_terminal
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=silent) as progress:
        yield partial(progress.update, progress.add_task(description, total=total, note=note))


@contextmanager
def count_bar(console: Console, description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; yield a callback that takes the number done and the number in all."""
    with progress_bar(console, description) as update:
        yield lambda done, total: update(completed=done, total=total, visible=done < total)
