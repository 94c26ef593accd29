"""HTML of the page's viewer: one element, which ``viewer/viewer.js`` makes interactive."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.apps.serve.explain import LONGEST_SIDE, Explained, HeatMap, nearest
from partclipseg.formats.palette import object_colour, object_colours, pale_object_colours, part_colours


def viewer_script() -> str:
    """Return the script that defines the element ``part-viewer``."""
    return files("partclipseg.apps.serve").joinpath("viewer", "viewer.js").read_text("utf-8")


def viewer_html(explained: Explained, title: str) -> str:
    """Return the element that shows one result, with its pictures embedded."""
    return f'<part-viewer data-result="{escape(json.dumps(viewer_data(explained, title)))}"></part-viewer>'


def viewer_data(explained: Explained, title: str) -> dict[str, Any]:
    """Return the element's JSON.

    ``layers``: for each view a PNG ``map`` of entry numbers (16 bit, low byte red, high byte green, 0 background)
    and its ``entries``. ``heat``: for each kind of map an ``atlas``, its maps in grey, row by row, ``columns`` of
    them side by side.
    """
    result = explained.result
    assert result.photo is not None
    names = result.vocabulary.parts
    parts = [
        {"name": names[index], "short": names[index], "group": "", "colour": object_colour(names[index])}
        | {"index": index + 1, "score": _rounded(explained.part_scores[index]), "area": int(area)}
        for index, area in enumerate(np.bincount(explained.part_map.ravel() + 1, minlength=len(names) + 1)[1:])
        if area
    ]
    return {
        "title": title,
        "photo": _photo(result.photo),
        "layers": {
            "object-parts": _layer(result.labelled.painted()[0], _entries(explained, "parts")),
            "objects": _layer(result.object_map, _entries(explained, "objects")),
            "parts": _layer(explained.part_map, sorted(parts, key=lambda entry: -entry["area"])),
        },
        "heat": {
            name: _atlas(maps)
            for name, maps in (("probability", explained.probabilities), ("attention", explained.attention))
            if maps
        },
    }


def _entries(explained: Explained, view: Any) -> list[dict[str, Any]]:
    """Return the entries of the legend: objects by size, and the parts of each by size."""
    result = explained.result
    colours = part_colours(result.vocabulary) if view == "parts" else object_colours(result.vocabulary)
    sizes = {segment.object: segment.area for segment in result.segments("objects")}
    found = sorted(result.segments(view), key=lambda s: (-sizes.get(s.object, 0), s.object, -s.area))
    lines = [
        {
            "name": segment.name,
            "short": segment.part or segment.object,
            "group": segment.object if segment.part else "",
            "colour": colours[segment.index].tolist(),
            "index": segment.index + 1,
            "score": _rounded(segment.score),
            "area": segment.area,
        }
        for segment in found
    ]
    return lines if view == "objects" else _with_rest(explained, lines)


def _with_rest(explained: Explained, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of parts, and after those of each object one for its pixels without a part."""
    result = explained.result
    pale, first = pale_object_colours(result.vocabulary), len(result.vocabulary) + 1
    for segment in result.without_part():
        line = {
            "name": f"rest of the {segment.object}",
            "short": "(rest)",
            "group": segment.object,
            "colour": pale[segment.index].tolist(),
            "index": first + segment.index,
            "score": _rounded(segment.score),
            "area": segment.area,
        }
        ends = [place for place, other in enumerate(lines, 1) if other["group"] == segment.object]
        lines.insert(ends[-1] if ends else len(lines), line)
    return lines


def _layer(label_map: np.ndarray, entries: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = nearest(label_map, LONGEST_SIDE) + 1
    pixels = np.stack([numbers & 255, numbers >> 8, np.zeros_like(numbers)], axis=-1).astype(np.uint8)
    return {"map": _url(Image.fromarray(pixels), "PNG"), "entries": entries}


def _atlas(maps: Sequence[HeatMap]) -> dict[str, Any]:
    height, width = maps[0].values.shape
    columns = math.ceil(math.sqrt(len(maps)))  # nearly square: browsers limit each side of a picture
    sheet = np.zeros((math.ceil(len(maps) / columns) * height, columns * width), dtype=np.uint8)
    for index, heat in enumerate(maps):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = heat.values
    return {
        "atlas": _url(Image.fromarray(sheet), "PNG"),
        "columns": columns,
        "height": height,
        "width": width,
        "entries": [{"kind": heat.kind, "name": heat.name, "peak": _rounded(heat.peak)} for heat in maps],
    }


def _photo(photo: np.ndarray) -> str:
    image = Image.fromarray(photo)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return _url(image, "JPEG", quality=90)


def _url(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _rounded(value: float) -> float:
    return round(float(value), 4)
