"""Label Studio: tasks with predicted outlines, and the labelling interface for them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

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
from partclipseg.formats.format import Content, DataSet, Format, LabelledPhoto, Place
from partclipseg.formats.palette import part_colours
from partclipseg.journal import json_text
from partclipseg.json_file import distinct_keys
from partclipseg.vocabulary import Vocabulary


def label_studio_task(photo: LabelledPhoto, image_url: str, model_version: str = "partclipseg") -> dict[str, Any]:
    """Return a task with one prediction, for `label_studio_interface`; coordinates in percent of the photo."""
    height, width = photo.size
    scale = np.array([width, height]) / 100
    regions = [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "polygonlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": round(segment.score, 4),
            "value": {"points": (polygon / scale).round(4).tolist(), "polygonlabels": [segment.name]},
        }
        for segment, polygons in photo.outlines
        for polygon in polygons
    ]
    return {"data": {"image": image_url}, "predictions": [{"model_version": model_version, "result": regions}]}


def label_studio_interface(vocabulary: Vocabulary) -> str:
    """Return the labelling interface (XML) of a project for these classes, in their colours."""
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n'
        for name, colour in zip(vocabulary.names, part_colours(vocabulary), strict=True)
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <PolygonLabels name="label" toName="image" opacity="0.4">\n{labels}  </PolygonLabels>\n</View>\n'
    )


def _make(photo: LabelledPhoto, place: Place) -> dict[str, Any]:
    if place.root is None or place.photo is None:
        return label_studio_task(photo, photo.name)
    # Label Studio serves files below its document root. That must be the parent of the photos' folder, since the
    # photos' folder itself is connected as a storage and must not be the root.
    inside = place.photo.relative_to(place.root).as_posix()
    address = quote(os.fsencode(f"{place.root.resolve().name}/{inside}"))
    return label_studio_task(photo, f"/data/local-files/?d={address}")


def _shared(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    yield "label_studio.xml", label_studio_interface(vocabulary)


def _collect(data_set: DataSet) -> Iterator[tuple[str, Content]]:
    yield "label_studio.json", _tasks(data_set)


def _tasks(data_set: DataSet) -> Iterator[str]:
    separator = "[\n"
    for _, record in data_set.records:
        for content in data_set.own(FORMAT.name, record):
            with suppress(ValueError, RecursionError, CorrectionError):
                yield separator + json_text(_one_task(json.loads(content)))
                separator = ",\n"
                break
    yield "\n]\n" if separator == ",\n" else "[]\n"


def _one_task(document: Any) -> dict[str, Any]:
    """Return the task of a document: a single task, or a list of one, as Label Studio exports it."""
    task = document[0] if isinstance(document, list) and len(document) == 1 else document
    if not isinstance(task, dict):
        raise CorrectionError("it is not one task of Label Studio")
    return task


def _shapes(content: bytes, vocabulary: Vocabulary, size: Size) -> Iterable[LabelledPolygon]:
    task = _one_task(json.loads(content, object_pairs_hook=distinct_keys))
    answers = [answer for answer in task.get("annotations") or () if not answer.get("was_cancelled")]
    answers = answers[-1:] or (task.get("predictions") or ())[:1]
    height, width = size
    for region in answers[0]["result"] if answers else ():
        value, kind = region["value"], region["type"]
        check_photo_shape((region.get("original_height"), region.get("original_width")), size)
        if kind == "polygonlabels":
            points = [(float(x), float(y)) for x, y in value["points"]]
        elif kind == "rectanglelabels" and not value.get("rotation"):
            x, y = float(value["x"]), float(value["y"])
            points = box_corners(x, y, x + float(value["width"]), y + float(value["height"]))
        else:
            raise CorrectionError(f"it has a region of the kind {kind!r}: make it a polygon")
        (label,) = value[kind]
        yield class_index(label, vocabulary), flat((x * width / 100, y * height / 100) for x, y in points)


FORMAT = Format(
    name="label-studio",
    help="outlines to correct in Label Studio, with its labelling interface in label_studio.xml",
    suffix=".studio.json",
    make=_make,
    folder="label_studio",
    collect=_collect,
    shared=_shared,
    read=read_outlines(_shapes),
    precedence=2,
)
