"""Results in the formats that other tools read: index PNG, COCO, labelme, YOLO, Label Studio, supervision.

Each function takes plain arrays and returns what is to be written; `PartResult` gives them their data.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from partclipseg.data.coco import encode_mask
from partclipseg.errors import PartCLIPSegError
from partclipseg.inference.polygons import mask_polygons
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.inference.result import Segment

Entry = tuple["Segment", np.ndarray]
"""A segment and its mask, bool `[H, W]`."""

Outline = tuple["Segment", list[np.ndarray]]
"""A segment and a polygon float `[n, 2]` (x, y in pixels) for each of its pieces, see `mask_polygons`."""


def index_image(label_map: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Label map `[H, W]` as an image of indices, background as the greatest value that a pixel can have.

    With up to 255 classes: 8-bit palette image (mode P), background 255, each class in its colour in viewers and
    background black. With more: 16-bit grey (I;16), background 65535. These are the values of the label files of
    Pascal-Part-116 and ADE20K-Part-234, so that predictions can serve as labels.
    """
    if len(colours) > 255:
        return Image.fromarray(np.where(label_map < 0, 65535, label_map).astype(np.uint16))
    image = Image.fromarray(np.where(label_map < 0, 255, label_map).astype(np.uint8), mode="P")
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(colours)] = colours
    image.putpalette(palette.tobytes())
    return image


def coco_document(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: list[dict[str, Any]]
) -> dict[str, Any]:
    """A COCO document under the header that pycocotools and others expect."""
    return {
        "info": {"description": "Object-parts, segmented by partclipseg"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def coco_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """One category for each class, numbered from 1 as COCO does: id = class index + 1."""
    return [
        {"id": index + 1, "name": pair.name, "supercategory": pair.object}
        for index, pair in enumerate(vocabulary.object_parts)
    ]


def coco_annotations(
    entries: Iterable[Entry], image_id: int, first_id: int, first_category: int = 0
) -> list[dict[str, Any]]:
    """One annotation for each segment, its mask as compressed RLE (pycocotools), with a score.

    The category is `first_category` + the segment's index + 1.
    """
    return [
        {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": first_category + segment.index + 1,
            "segmentation": encode_mask(mask),
            "area": segment.area,
            "bbox": list(segment.box),
            "iscrowd": 0,
            "score": round(segment.score, 4),
        }
        for number, (segment, mask) in enumerate(entries)
    ]


def merge_coco(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One COCO document of many, over the same vocabulary, each with image and annotation ids of its own."""
    merged = coco_document([], [], [])
    categories: dict[int, dict[str, Any]] = {}
    for document in documents:
        merged["images"] += document["images"]
        merged["annotations"] += document["annotations"]
        categories.update((category["id"], category) for category in document["categories"])
    merged["categories"] = [categories[number] for number in sorted(categories)]
    return merged


def outlines(entries: Iterable[Entry]) -> list[Outline]:
    """Polygons within a pixel of the masks, holes cut in through a seam."""
    return [(segment, mask_polygons(mask)) for segment, mask in entries]


def labelme_document(found: Iterable[Outline], image_path: str, size: tuple[int, int]) -> dict[str, Any]:
    """What labelme and X-AnyLabeling open beside the photo.

    The polygons of one segment share a ``group_id``, its class index plus 1. X-AnyLabeling shows the ``score``; labelme
    has none, and keeps the field.
    """
    shapes = [
        {
            "label": segment.name,
            "points": polygon.tolist(),
            "group_id": segment.index + 1,
            "score": round(segment.score, 4),
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for segment, polygons in found
        for polygon in polygons
    ]
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def yolo_lines(found: Iterable[Outline], size: tuple[int, int]) -> str:
    """A line ``class x y x y …`` for each polygon, coordinates as shares of width and height: YOLO's segmentation."""
    scale = np.array([size[1], size[0]])
    return "".join(
        f"{segment.index} {' '.join(f'{value:.6f}' for value in (polygon / scale).ravel())}\n"
        for segment, polygons in found
        for polygon in polygons
    )


def label_studio_task(
    found: Iterable[Outline], image_url: str, size: tuple[int, int], model_version: str
) -> dict[str, Any]:
    """A Label Studio task with one prediction, for `label_studio_config`; coordinates in percent of the photo."""
    scale = np.array([size[1], size[0]]) / 100
    regions = [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "polygonlabels",
            "original_width": size[1],
            "original_height": size[0],
            "image_rotation": 0,
            "score": round(segment.score, 4),
            "value": {"points": (polygon / scale).round(4).tolist(), "polygonlabels": [segment.name]},
        }
        for segment, polygons in found
        for polygon in polygons
    ]
    return {"data": {"image": image_url}, "predictions": [{"model_version": model_version, "result": regions}]}


def label_studio_config(vocabulary: Vocabulary, colours: np.ndarray) -> str:
    """The labelling interface (XML) of a Label Studio project for these classes, `colours` uint8 `[N_c, 3]`."""
    from xml.sax.saxutils import quoteattr

    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n'
        for name, colour in zip(vocabulary.names, colours, strict=True)
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <PolygonLabels name="label" toName="image" opacity="0.4">\n{labels}  </PolygonLabels>\n</View>\n'
    )


def supervision_detections(entries: Iterable[Entry]) -> Any:
    """`supervision.Detections` with masks, one for each segment; `class_id` is the class index.

    Names are in ``data["class_name"]``, where supervision's label annotators look. Raises `PartCLIPSegError` if
    the package supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise PartCLIPSegError("this needs the package supervision: pip install supervision") from error
    found = list(entries)
    if not found:
        return supervision.Detections.empty()
    boxes = np.array([segment.box for segment, _ in found], dtype=np.float32)  # x, y, width, height
    boxes[:, 2:] += boxes[:, :2]
    return supervision.Detections(
        xyxy=boxes,
        mask=np.stack([mask for _, mask in found]),
        confidence=np.array([segment.score for segment, _ in found], dtype=np.float32),
        class_id=np.array([segment.index for segment, _ in found]),
        data={"class_name": np.array([segment.name for segment, _ in found])},
    )


def notebook_html(overlay: bytes, segments: Iterable[Segment], colours: np.ndarray, size: tuple[int, int]) -> str:
    """A fragment of HTML: the overlay (PNG) beside a table of segments with colour, score and share of the photo."""
    rows = "".join(
        f'<tr><td><span style="display:inline-block;width:.8em;height:.8em;border-radius:2px;'
        f'background:#{bytes(colours[segment.index]).hex()}"></span></td>'
        f'<td style="text-align:left">{escape(segment.name)}</td><td>{segment.score:.2f}</td>'
        f"<td>{segment.area / (size[0] * size[1]):.1%}</td></tr>"
        for segment in sorted(segments, key=lambda segment: -segment.area)
    )
    table = (
        '<table><thead><tr><th></th><th style="text-align:left">part</th><th>score</th><th>pixels</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        if rows
        else "<p>nothing found</p>"
    )
    picture = f'<img style="max-width:min(100%,640px)" src="data:image/png;base64,{b64encode(overlay).decode()}">'
    return f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">{picture}{table}</div>'
