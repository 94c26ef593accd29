"""JSON lines: a record with masks for each photo, all in one file."""

from __future__ import annotations

from collections.abc import Iterator

from partclipseg.formats.format import Content, DataSet, Format
from partclipseg.journal import json_text

FILE = "labels.jsonl"


def _collect(data_set: DataSet) -> Iterator[tuple[str, Content]]:
    yield FILE, (f"{json_text(record)}\n" for _, record in data_set.records)


FORMAT = Format(
    name="jsonl", help=f"a line of masks, scores, areas and boxes for each photo in {FILE}", collect=_collect
)
