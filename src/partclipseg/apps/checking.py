"""The check of a data set's files that comes before a model is loaded, with its progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console


def check_files(
    dataset: str, root: Path, split: Any, own: dict[str, Any], processes: PartialState, console: Console
) -> None:
    """Check the files of a split in the main process, as ``check-data`` does.

    Raises `PartCLIPSegError` with what is wrong, and `SystemExit` in the other processes.
    """
    from accelerate.utils import gather_object

    from partclipseg.data.check import check_dataset, raise_if_broken

    report = None
    if processes.is_main_process:
        with progress_bar(console) as progress:
            task = progress.add_task("checking files", total=None, note="")

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            report = check_dataset(dataset, root, split, on_progress=show, **own)
    broken = gather_object([report is not None and not report.ok])
    if report is not None:
        raise_if_broken(report)
    if any(broken):
        raise SystemExit(1)  # the main process says why


@contextmanager
def progress_bar(console: Console) -> Iterator[Any]:
    """A progress bar on standard error, shown only if `console` is a terminal and not quiet."""
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
