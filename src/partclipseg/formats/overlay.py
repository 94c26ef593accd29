"""Draw overlays: the photo under coloured segments, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from partclipseg.formats.drawing import LegendEntry, draw_overlay
from partclipseg.formats.format import Format, LabelledPhoto, Place, View
from partclipseg.formats.segment import Segment

LEGEND_LIMIT = 48
"""Maximum number of classes in a legend; the smallest of the others would hardly be visible."""


def overlay(
    photo: LabelledPhoto,
    view: View = "parts",
    opacity: float = 0.6,
    legend: bool = True,
    long_side: int | None = None,
) -> Image.Image:
    """Draw the photo under its segments, with a legend panel beside or below it; see `draw_overlay`."""
    labels, segments, colours = photo.view(view)
    rest: tuple[Segment, ...] = ()
    if view == "parts":
        (labels, colours), rest = photo.painted(), photo.without_part
    entries = legend_entries(segments, colours, view, rest) if legend else None
    return draw_overlay(photo.pixels, labels, colours, entries, opacity, long_side)


def legend_entries(
    segments: Sequence[Segment], colours: np.ndarray, view: View, without_part: Sequence[Segment] = ()
) -> list[LegendEntry]:
    """Return the lines of the legend: objects by size, and the parts of each by size, with their scores.

    Beyond `LEGEND_LIMIT` the smallest are only counted. `colours` is uint8 `[K, 3]`, by index of the segments; those of
    the objects `without_part`, which come last, are the last ones.
    """
    found = sorted(segments, key=lambda segment: -segment.area)
    if not found and not without_part:
        return [LegendEntry(f"no {view[:-1]} found")]
    named, left = found[:LEGEND_LIMIT], len(found) - LEGEND_LIMIT
    more = [LegendEntry(f"and {left} smaller", opens_group=True)] if left > 0 else []
    more += _rest_entries(without_part, colours)
    shown = {segment.index: tuple(colours[segment.index].tolist()) for segment in named}
    if view == "objects":
        return [LegendEntry(s.object, shown[s.index], f"{s.score:.2f}") for s in named] + more
    groups: dict[str, list[Segment]] = {}
    for segment in named:
        groups.setdefault(segment.object, []).append(segment)
    entries: list[LegendEntry] = []
    for word, members in sorted(groups.items(), key=lambda group: -sum(s.area for s in group[1])):
        if len(members) > 1:
            entries.append(LegendEntry(word, opens_group=True))
            entries += [LegendEntry(str(s.part), shown[s.index], f"{s.score:.2f}") for s in members]
    # Objects with a single visible part come last and need no heading.
    alone = [s for s in named if len(groups[s.object]) == 1]
    entries += [LegendEntry(s.name, shown[s.index], f"{s.score:.2f}", s is alone[0]) for s in alone]
    return entries + more


def _rest_entries(without_part: Sequence[Segment], colours: np.ndarray) -> list[LegendEntry]:
    """Return a line such as ``rest of the bus`` for each object, the largest first, at most `LEGEND_LIMIT`."""
    largest = sorted(without_part, key=lambda segment: -segment.area)[:LEGEND_LIMIT]
    return [
        LegendEntry(f"rest of the {s.object}", colour, opens_group=s is largest[0])
        for s in largest
        for colour in [tuple(colours[-s.index - 1].tolist())]
    ]


def _make(photo: LabelledPhoto, place: Place) -> Image.Image:
    return overlay(photo)


FORMAT = Format(name="overlay", help="the photo in colours with a legend", suffix=".overlay.png", make=_make)
