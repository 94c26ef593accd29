"""JSON without masks: score, area and box of each part and object."""

from __future__ import annotations

from typing import Any

from partclipseg.formats.format import Format, LabelledPhoto, instance_entry


def document(photo: LabelledPhoto) -> dict[str, Any]:
    """Return photo, size, segments of both views and of objects without a part, and class names by index.

    Where instances were asked for, they are listed, and each segment names its owner.
    """
    found: dict[str, Any] = {
        "photo": photo.name,
        "width": photo.size[1],
        "height": photo.size[0],
        "segments": [photo.entry(segment) for segment in photo.segments],
        "objects": [photo.entry(segment) for segment in photo.objects],
        "without_part": [photo.entry(segment) for segment in photo.without_part],
        "vocabulary": list(photo.vocabulary.names),
    }
    if photo.owners is not None:
        found["instances"] = [instance_entry(instance) for instance in photo.owners.instances]
    return found


FORMAT = Format(
    name="json",
    help="score, area and box of each part",
    suffix=".parts.json",
    make=lambda photo, _: document(photo),
)
