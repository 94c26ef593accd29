"""The answer of ``POST /v1/explain``: layers with their legends, and heat maps, as pictures for a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.apps.serve.explain import LONGEST_SIDE, Explained, HeatMap, nearest
from partclipseg.formats.format import View
from partclipseg.formats.palette import object_colour, object_colours, pale_object_colours, part_colours


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
            "object_parts": _layer(result.labelled.painted()[0], _entries(explained, "parts")),
            "objects": _layer(result.object_map, _entries(explained, "objects")),
            "parts": _layer(explained.part_map, _part_entries(explained)),
        },
        "heat": {
            "probability": _atlas(explained.probabilities),
            "attention": _atlas(explained.attention),
        },
    }


def _entry(name: str, value: int, score: float, share: float, colour: Sequence[int], **more: Any) -> dict[str, Any]:
    known = {"object": None, "part": None, "rest": False, **more}
    sizes = {"score": _rounded(score), "share": round(share, 6)}
    return {"name": name, **known, "value": value, **sizes, "colour": [int(channel) for channel in colour]}


def _entries(explained: Explained, view: View) -> list[dict[str, Any]]:
    """Return the entries of the legend: objects by size, and the parts of each by size, and then its rest."""
    result = explained.result
    size = math.prod(result.size)
    colours = part_colours(result.vocabulary) if view == "parts" else object_colours(result.vocabulary)
    sizes = {segment.object: segment.area for segment in result.segments("objects")}
    found = [
        (segment.area, False, _entry(
            segment.name, segment.index + 1, segment.score, segment.area / size,
            colours[segment.index], object=segment.object, part=segment.part,
        ))
        for segment in result.segments(view)
    ]  # fmt: skip
    if view == "parts":
        pale, first = pale_object_colours(result.vocabulary), len(result.vocabulary) + 1
        found += [
            (segment.area, True, _entry(
                f"rest of the {segment.object}", first + segment.index, segment.score, segment.area / size,
                pale[segment.index], object=segment.object, rest=True,
            ))
            for segment in result.without_part()
        ]  # fmt: skip

    def place(one: tuple[int, bool, dict[str, Any]]) -> tuple[Any, ...]:
        area, rest, entry = one
        return -sizes.get(entry["object"], 0), entry["object"], rest, -area

    return [entry for _, _, entry in sorted(found, key=place)]


def _part_entries(explained: Explained) -> list[dict[str, Any]]:
    """Return an entry for each generalized part that has pixels, by size."""
    names = explained.result.vocabulary.parts
    areas = np.bincount(explained.part_map.ravel() + 1, minlength=len(names) + 1)[1:]
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
