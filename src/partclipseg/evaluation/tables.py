"""A table of scores: rows of text, and its form in Markdown."""

from __future__ import annotations

import math
from typing import NamedTuple


class Table(NamedTuple):
    """A title, column names, rows of text (the first column is a name, the others are figures), and a remark."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def figure(value: float | None) -> str:
    """Format a percentage with two decimals, as papers do; a dash where it is not defined."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def markdown_rows(table: Table) -> list[str]:
    """Return the lines of a table in Markdown, with its remark below."""
    lines = [
        "| " + " | ".join(table.columns) + " |",
        "|" + "|".join([" :-- ", *[" --: "] * (len(table.columns) - 1)]) + "|",
        *("| " + " | ".join(map(escaped, row)) + " |" for row in table.rows),
    ]
    return [*lines, "", table.note] if table.note else lines


def escaped(text: str) -> str:
    """Return text in which Markdown sees no markup."""
    for character in "\\|*_<`[":
        text = text.replace(character, f"\\{character}")
    return text
