"""Draw overlays: the photo under coloured segments, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from partclipseg.formats.drawing import LegendEntry, draw_overlay
from partclipseg.formats.format import Format, LabelledPhoto, View
from partclipseg.formats.palette import instance_colours, pale_object_colours
from partclipseg.formats.segment import Owners, Segment

LEGEND_LIMIT = 48
"""Maximum number of classes in a legend; the smallest of the others would hardly be visible."""


def overlay(
    photo: LabelledPhoto,
    view: View = "parts",
    opacity: float = 0.6,
    legend: bool = True,
    long_side: int | None = None,
) -> Image.Image:
    """Draw the photo under its segments, with a legend panel beside or below it; see `draw_overlay`.

    With instances each is outlined and has its number, by which the legend names it; in the view "objects" each has a
    shade of its word's colour.
    """
    labels, segments, colours = photo.view(view)
    rest: tuple[Segment, ...] = ()
    rest_colours = None
    if view == "parts":
        (labels, colours), rest = photo.painted(), photo.without_part
        rest_colours = colours[len(photo.vocabulary) :]
    elif photo.owners is not None:
        labels, segments, colours = _instances(photo, photo.owners)
    entries = legend_entries(segments, colours, view, rest, rest_colours) if legend else None
    numbers = None if photo.owners is None else photo.owners.instance_map
    return draw_overlay(photo.pixels, labels, colours, entries, opacity, long_side, numbers)


def _instances(photo: LabelledPhoto, owners: Owners) -> tuple[np.ndarray, tuple[Segment, ...], np.ndarray]:
    """Return map, segments and colours of the view "objects" with instances; the index of a segment is its colour's.

    Objects without an owner are pale.
    """
    count = np.int32(len(owners.instances))
    labels = np.where(owners.instance_map >= 0, owners.instance_map, photo.object_map + count)
    labels = np.where(photo.object_map < 0, np.int32(-1), labels)
    segments = tuple(
        replace(segment, index=segment.index + count if segment.instance is None else segment.instance - 1)
        for segment in photo.objects
    )
    shades = instance_colours([instance.object for instance in owners.instances])
    return labels, segments, np.concatenate([shades, pale_object_colours(photo.vocabulary)])


def legend_entries(
    segments: Sequence[Segment],
    colours: np.ndarray,
    view: View,
    without_part: Sequence[Segment] = (),
    rest_colours: np.ndarray | None = None,
) -> list[LegendEntry]:
    """Return the lines of the legend: owners by size, and the parts of each by size, with their scores.

    An owner is an object word, or an instance with its number. Beyond `LEGEND_LIMIT` the smallest are only counted.
    `colours` is uint8 `[K, 3]`, by index of the segments; `rest_colours` those of the objects `without_part`, which
    come last, by index of the object.
    """
    found = sorted(segments, key=lambda segment: -segment.area)
    if not found and not without_part:
        return [LegendEntry(f"no {view[:-1]} found")]
    named, left = found[:LEGEND_LIMIT], len(found) - LEGEND_LIMIT
    more = [LegendEntry(f"and {left} smaller", opens_group=True)] if left > 0 else []
    if rest_colours is not None:
        more += _rest_entries(without_part, rest_colours)
    shown = {segment.index: tuple(colours[segment.index].tolist()) for segment in named}
    if view == "objects":
        return [LegendEntry(s.title, shown[s.index], f"{s.score:.2f}") for s in named] + more
    groups: dict[tuple[str, int | None], list[Segment]] = {}
    for segment in named:
        groups.setdefault((segment.object, segment.instance), []).append(segment)
    entries: list[LegendEntry] = []
    for (word, number), members in sorted(groups.items(), key=lambda group: -sum(s.area for s in group[1])):
        if len(members) > 1:
            entries.append(LegendEntry(word if number is None else f"{word} {number}", opens_group=True))
            entries += [LegendEntry(str(s.part), shown[s.index], f"{s.score:.2f}") for s in members]
    # Objects with a single visible part come last and need no heading.
    alone = [s for s in named if len(groups[s.object, s.instance]) == 1]
    entries += [LegendEntry(s.title, shown[s.index], f"{s.score:.2f}", s is alone[0]) for s in alone]
    return entries + more


def _rest_entries(without_part: Sequence[Segment], colours: np.ndarray) -> list[LegendEntry]:
    """Return a line such as ``rest of the bus`` for each object, the largest first, at most `LEGEND_LIMIT`."""
    largest = sorted(without_part, key=lambda segment: -segment.area)[:LEGEND_LIMIT]
    return [
        LegendEntry(
            f"rest of {'the ' if s.instance is None else ''}{s.title}", colour, opens_group=s is largest[0]
        )
        for s in largest
        for colour in [tuple(colours[s.index].tolist())]
    ]


FORMAT = Format(
    name="overlay",
    help="the photo in colours with a legend",
    suffix=".overlay.png",
    make=lambda photo, _: overlay(photo),
    needs_photo=True,
)
