"""A table of the parts as CSV: area and shares of each, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator

from partclipseg.formats.format import Content, DataSet, Format, Record
from partclipseg.vocabulary import ANY

FILE = "areas.csv"

COLUMNS = (
    *("photo", "object", "part", "area", "share_of_photo", "share_of_object", "score"),
    *("x", "y", "width", "height"),
)
"""Columns; areas and boxes are in pixels, shares and scores from 0 to 1.

An object's area is that of its parts and of what is left of it without a part; words without an object have no share.
"""

OWNER = "instance"
"""Further column where instances were asked for: the owner's number, empty for none. The object is then the owner."""


def area_lines(record: Record) -> Iterator[str]:
    """Yield a line of CSV for each part of a photo."""
    photo = record["width"] * record["height"]
    objects = Counter[tuple[str, int | None]]()
    for segment in (*record["segments"], *record.get("without_part", ())):
        objects[segment["object"], segment.get("instance")] += segment["area"]
    for segment in record["segments"]:
        area, word, owner = segment["area"], segment["object"], segment.get("instance")
        shares = f"{area / photo:.6f}", "" if word == ANY else f"{area / objects[word, owner]:.6f}"
        last = (owner,) if "instances" in record else ()
        yield _line((record["photo"], word, segment["part"], area, *shares, segment["score"], *segment["box"], *last))


def _header(has_instances: bool) -> str:
    return _line((*COLUMNS, OWNER) if has_instances else COLUMNS)


def _line(values: tuple[object, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _collect(data_set: DataSet) -> Iterator[tuple[str, Content]]:
    def lines() -> Iterator[str]:
        yield _header(any("instances" in record for _, record in data_set.records))
        for _, record in data_set.records:
            yield from area_lines(record)

    yield FILE, lines()


FORMAT = Format(
    name="csv",
    help=f"a table of areas, shares, scores and boxes of the parts; all photos of a run are in {FILE}",
    suffix=".areas.csv",
    make=lambda photo, _: _header(photo.owners is not None) + "".join(area_lines(photo.record)),
    collect=_collect,
)
