"""The answer of ``POST /v1/explain``: layers with their legends, and heat maps, as pictures for a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.apps.serve.explain import LONGEST_SIDE, Explained, HeatMap, nearest
from partclipseg.data.sample import label_areas
from partclipseg.formats.format import View
from partclipseg.formats.palette import object_colour, object_colours, pale_object_colours, part_colours
from partclipseg.formats.segment import Segment
from partclipseg.inference.result import PartResult


def explained_content(explained: Explained) -> dict[str, Any]:
    """Return the photo's fields of an `ExplainAnswer`."""
    result = explained.result
    assert result.photo is not None
    return {
        "photo": result.name,
        "width": result.size[1],
        "height": result.size[0],
        "picture": _photo(result.photo),
        "layers": {
            "object_parts": _view_layer(result, "parts"),
            "objects": _view_layer(result, "objects"),
            "parts": _layer(explained.part_map, _part_entries(explained)),
        },
        "heat": {
            "probability": _atlas(explained.probabilities),
            "attention": _atlas(explained.attention),
        },
    }


def _entry(name: str, value: int, score: float, share: float, colour: Sequence[int], **more: Any) -> dict[str, Any]:
    known = {"object": None, "part": None, "rest": False, "instance": None, **more}
    sizes = {"score": _rounded(score), "share": round(share, 6)}
    return {"name": name, **known, "value": value, **sizes, "colour": [int(channel) for channel in colour]}


def _view_layer(result: PartResult, view: View) -> dict[str, Any]:
    """Return a layer of a view; its legend has objects by size, the parts of each by size, and then its rest."""
    size, last = math.prod(result.size), len(result.vocabulary)
    colours = part_colours(result.vocabulary) if view == "parts" else object_colours(result.vocabulary)
    pale = pale_object_colours(result.vocabulary)
    segments = [(segment, False) for segment in result.segments(view)]
    if view == "parts":
        segments += [(segment, True) for segment in result.without_part()]
    sizes = {(whole.object, whole.instance): whole.area for whole in result.segments("objects")}
    segments.sort(key=lambda one: (*_owner_place(one[0], sizes), one[1], -one[0].area))
    labels = np.full(result.size, -1, np.int32)
    entries = []
    for number, (segment, rest) in enumerate(segments):
        if result.instance_map is None:
            value = segment.index + last * rest
        else:  # the parts of two dogs have values of their own
            value = number
            labels[segment.mask] = value
        colour = pale[segment.index] if rest else colours[segment.index]
        if view == "objects" and segment.instance is not None:
            colour = object_colour(segment.title)
        known = {"object": segment.object, "part": segment.part, "rest": rest, "instance": segment.instance}
        name = f"rest of the {segment.title}" if rest else segment.title
        entries.append(_entry(name, value + 1, segment.score, segment.area / size, colour, **known))
    if result.instance_map is None:
        labels = result.labelled.painted()[0] if view == "parts" else result.object_map
    return _layer(labels, entries)


def _owner_place(segment: Segment, sizes: Mapping[tuple[str, int | None], int]) -> tuple[Any, ...]:
    owner = segment.object, segment.instance
    return -sizes.get(owner, 0), segment.object, segment.instance or 0


def _part_entries(explained: Explained) -> list[dict[str, Any]]:
    """Return an entry for each generalized part that has pixels, by size."""
    names = explained.result.vocabulary.parts
    areas = label_areas(explained.part_map, len(names))
    return [
        _entry(
            names[index], int(index) + 1, float(explained.part_scores[index]),
            float(areas[index]) / explained.part_map.size, object_colour(names[index]), part=names[index],
        )
        for index in np.argsort(-areas, kind="stable")
        if areas[index]
    ]  # fmt: skip


def _layer(label_map: np.ndarray, entries: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = nearest(label_map, LONGEST_SIDE) + 1
    pixels = np.stack([numbers & 255, numbers >> 8, np.zeros_like(numbers)], axis=-1).astype(np.uint8)
    return {"map": _base64(Image.fromarray(pixels), "PNG"), "entries": entries}


def _atlas(maps: Sequence[HeatMap]) -> dict[str, Any] | None:
    if not maps:
        return None
    height, width = maps[0].values.shape
    columns = math.ceil(math.sqrt(len(maps)))  # nearly square: browsers limit each side of a picture
    sheet = np.zeros((math.ceil(len(maps) / columns) * height, columns * width), dtype=np.uint8)
    for index, heat in enumerate(maps):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = heat.values
    return {
        "atlas": _base64(Image.fromarray(sheet), "PNG"),
        "columns": columns,
        "height": height,
        "width": width,
        "entries": [{"kind": heat.kind, "name": heat.name, "peak": _rounded(heat.peak)} for heat in maps],
    }


def _photo(photo: np.ndarray) -> str:
    image = Image.fromarray(photo)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return _base64(image, "JPEG", quality=90)


def _base64(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def _rounded(value: float) -> float:
    return round(float(value), 4)
