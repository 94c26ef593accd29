"""Output of ``evaluate``: its folder, tables on the terminal and the note of the progress display."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partclipseg.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.evaluation.tables import Table
    from partclipseg.kept_files import KeptFiles


def present_score(counts: Any) -> str:
    """Return the score of the photos counted so far, for the progress display; empty where that takes long."""
    from partclipseg.evaluation.evaluator import Evaluator
    from partclipseg.evaluation.partpq import PartPQ

    if isinstance(counts, Evaluator):
        return f"mIoU {counts.running_iou():.2f} ({counts.protocol})"
    return f"PartPQ {counts.running():.2f}" if isinstance(counts, PartPQ) else ""


def check_folder(folder: Path, names: Sequence[str]) -> None:
    """Raise `UsageError` if a report would replace files of these `names` in a folder that holds no evaluation."""
    found = [name for name in names if (folder / name).is_file()]
    if not found or any(folder.glob("scores-*.state")):
        return
    try:
        content = json.loads((folder / "scores.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or "scores" not in content:
        raise UsageError(
            f"{folder} holds {' and '.join(found)}, which no evaluation wrote: name another folder with --output, or "
            "move them away"
        )


def write_files(files: KeptFiles, texts: Mapping[str, str], console: Console) -> None:
    """Write the last files of a report, and say which files of people are kept.

    Raises `PartCLIPSegError` if one of `files` could not be written.
    """
    from partclipseg.writing import writing

    for name, text in texts.items():
        with writing(files.folder / name):
            files.text(name, text)
    files.raise_failed()
    files.finish()
    for remark in files.remarks():
        console.print(remark)


def write_and_print(
    console: Console, tables: Iterable[Table], remarks: Iterable[str], write: Callable[[], Path | None]
) -> None:
    """Write a report, then print its tables and remarks, and last where it lies, as `write` returns it.

    It is written first, as standard output may be closed, and printed also where it cannot be written: neither loses
    the scores.
    """
    report = None
    try:
        report = write()
    finally:
        for table in tables:
            console.print(rich_table(table), "")
        for remark in remarks:
            console.print(remark)
    if report is not None:
        console.print(f"report: {report}")


def rich_table(table: Table) -> Any:
    """Return a table of scores as rich prints it."""
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
    for place, column in enumerate(table.columns):
        result.add_column(column, justify="right" if place else "left")
    for row in table.rows:
        result.add_row(*(Text(cell) for cell in row))
    return result
