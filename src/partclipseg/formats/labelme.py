"""labelme JSON: outlines to edit in labelme or X-AnyLabeling."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from partclipseg.formats.corrections import (
    CorrectionError,
    LabelledPolygon,
    Size,
    box_corners,
    check_photo_shape,
    class_index,
    flat,
    read_outlines,
)
from partclipseg.formats.format import Format, LabelledPhoto, Place
from partclipseg.json_file import distinct_keys
from partclipseg.vocabulary import Vocabulary


def labelme_document(photo: LabelledPhoto, image_path: str) -> dict[str, Any]:
    """Return a document for labelme and X-AnyLabeling; `image_path` is the photo's path from the document's folder.

    The polygons of one segment share a ``group_id``: its class index plus 1, or the number of the instance that it
    belongs to. Parts without an owner then have numbers beyond those of the instances, so that converters which join
    the shapes of one label and group keep their pieces together. X-AnyLabeling shows the ``score``; labelme ignores the
    field but keeps it.
    """
    first = 1 if photo.owners is None else len(photo.owners.instances) + 1
    shapes = [
        {
            "label": segment.name,
            "points": polygon.tolist(),
            "group_id": segment.instance or first + segment.index,
            "score": round(segment.score, 4),
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for segment, polygons in photo.outlines
        for polygon in polygons
    ]
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": photo.size[0],
        "imageWidth": photo.size[1],
    }


def _make(photo: LabelledPhoto, place: Place) -> dict[str, Any]:
    path = Path(photo.name).name if place.photo is None else os.path.relpath(place.photo, place.folder)
    return labelme_document(photo, path)


def _shapes(content: bytes, vocabulary: Vocabulary, size: Size) -> Iterable[LabelledPolygon]:
    document = json.loads(content, object_pairs_hook=distinct_keys)
    check_photo_shape((document.get("imageHeight"), document.get("imageWidth")), size)
    for shape in document["shapes"]:
        points, kind = [(float(x), float(y)) for x, y in shape["points"]], shape.get("shape_type") or "polygon"
        if kind == "rectangle" and len(points) == 2:
            points = box_corners(*points[0], *points[1])
        elif kind not in {"polygon", "rectangle", "rotation"}:
            raise CorrectionError(f"it has a shape of the kind {kind!r}: make it a polygon")
        yield class_index(shape["label"], vocabulary), flat(points)


FORMAT = Format(
    name="labelme",
    help="outlines to correct in labelme or X-AnyLabeling",
    suffix=".labelme.json",
    make=_make,
    folder="labelme",
    read=read_outlines(_shapes),
    precedence=1,
)
