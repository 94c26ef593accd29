"""Results in the formats that other tools read: index PNG, COCO, labelme.

Each function takes plain arrays and returns what is to be written; `PartResult` gives them their data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from partclipseg.inference.polygons import mask_polygons
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.inference.result import Segment

Entry = tuple["Segment", np.ndarray]
"""A segment and its mask, bool `[H, W]`."""


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


def coco_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """One category for each class, numbered from 1 as COCO does: id = class index + 1."""
    return [
        {"id": index + 1, "name": pair.name, "supercategory": pair.object}
        for index, pair in enumerate(vocabulary.object_parts)
    ]


def coco_annotations(entries: Iterable[Entry], image_id: int, first_id: int) -> list[dict[str, Any]]:
    """One annotation for each segment, its mask as compressed RLE (pycocotools), with a score."""
    from pycocotools import mask as mask_utils

    annotations = []
    for number, (segment, mask) in enumerate(entries):
        rle: dict[str, Any] = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))  # pyright: ignore
        annotations.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": segment.index + 1,
                "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
                "area": segment.area,
                "bbox": list(segment.box),
                "iscrowd": 0,
                "score": round(segment.score, 4),
            }
        )
    return annotations


def merge_coco(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One COCO document of many, over the same vocabulary, each with image and annotation ids of its own."""
    merged: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for document in documents:
        merged["images"] += document["images"]
        merged["annotations"] += document["annotations"]
        merged["categories"] = document["categories"]
    return merged


def labelme_document(entries: Iterable[Entry], image_path: str, size: tuple[int, int]) -> dict[str, Any]:
    """What labelme opens beside the photo: polygons within a pixel of the masks, holes cut in through a seam.

    The polygons of one segment share a ``group_id``, its class index plus 1.
    """
    shapes = [
        {
            "label": segment.name,
            "points": polygon.tolist(),
            "group_id": segment.index + 1,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for segment, mask in entries
        for polygon in mask_polygons(mask)
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
