"""JSON without masks: score, area and box of each part and object."""

from __future__ import annotations

from typing import Any

from partclipseg.formats.format import Format, LabelledPhoto, Place, segment_entry


def document(photo: LabelledPhoto) -> dict[str, Any]:
    """Return photo, size, segments of both views and of objects without a part, and class names by index."""
    return {
        "photo": photo.name,
        "width": photo.size[1],
        "height": photo.size[0],
        "segments": [segment_entry(segment) for segment in photo.segments],
        "objects": [segment_entry(segment) for segment in photo.objects],
        "without_part": [segment_entry(segment) for segment in photo.without_part],
        "vocabulary": list(photo.vocabulary.names),
    }


def _make(photo: LabelledPhoto, place: Place) -> dict[str, Any]:
    return document(photo)


FORMAT = Format(name="json", help="score, area and box of each part", suffix=".parts.json", make=_make)
