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
    entries = legend_entries(segments, colours, view) if legend else None
    return draw_overlay(photo.pixels, labels, colours, entries, opacity, long_side)


def legend_entries(segments: Sequence[Segment], colours: np.ndarray, view: View) -> list[LegendEntry]:
    """Return the lines of the legend: objects by size, and the parts of each by size, with their scores.

    Beyond `LEGEND_LIMIT` the smallest are only counted. `colours` is uint8 `[K, 3]`, by index of the segments.
    """
    found = sorted(segments, key=lambda segment: -segment.area)
    if not found:
        return [LegendEntry(f"no {view[:-1]} found")]
    named, rest = found[:LEGEND_LIMIT], len(found) - LEGEND_LIMIT
    more = [LegendEntry(f"and {rest} smaller", opens_group=True)] if rest > 0 else []
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


def _make(photo: LabelledPhoto, place: Place) -> Image.Image:
    return overlay(photo)


FORMAT = Format(name="overlay", help="the photo in colours with a legend", suffix=".overlay.png", make=_make)
