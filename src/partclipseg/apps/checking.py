"""Check a data set's files, with a progress bar, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def check_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar for a check of files; yield a callback that takes photos done and photos in all."""
    with progress_bar(console) as progress:
        task = progress.add_task("checking files", total=None, note="")

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=done < total)

        yield show


@contextmanager
def progress_bar(console: Console) -> Iterator[Any]:
    """Yield a progress bar on standard error, shown only if `console` is a terminal and not quiet."""
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
        yield progress
