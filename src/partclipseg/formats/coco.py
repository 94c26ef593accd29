"""COCO annotations: masks as compressed run lengths with scores (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from partclipseg.formats.format import Content, DataSet, Format, LabelledPhoto, Place, Record
from partclipseg.journal import json_text
from partclipseg.vocabulary import Vocabulary

FILE = "annotations.coco.json"


def coco_document(
    records: Iterable[tuple[int, Record]], vocabulary: Vocabulary, first_annotation_id: int = 1
) -> dict[str, Any]:
    """Make a COCO document of photos, each with its image id; category id = class index + 1: COCO counts from 1.

    Pixels of objects without a part are annotations of categories for whole objects, id `N_c` + object index + 1;
    only objects that have such pixels have one. Annotations are numbered from `first_annotation_id` on. The header is
    what pycocotools and others expect.
    """
    rest_id = len(vocabulary) + 1
    whole: dict[int, dict[str, Any]] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, record in records:
        size = {"width": record["width"], "height": record["height"]}
        images.append({"id": image_id, "file_name": record["photo"], **size})
        rest = [(rest_id + segment["index"], segment) for segment in record.get("without_part", [])]
        whole |= {
            category: {"id": category, "name": segment["object"], "supercategory": segment["object"]}
            for category, segment in rest
        }
        annotations += [
            {
                "id": first_annotation_id + number,
                "image_id": image_id,
                "category_id": category,
                "segmentation": segment["rle"],
                "area": segment["area"],
                "bbox": segment["box"],
                "iscrowd": 0,
                "score": segment["score"],
            }
            for number, (category, segment) in enumerate(
                [*((segment["index"] + 1, segment) for segment in record["segments"]), *rest], start=len(annotations)
            )
        ]
    return {
        "info": {"description": "Object-parts, segmented by partclipseg"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": coco_categories(vocabulary) + [whole[category] for category in sorted(whole)],
    }


def coco_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Make a category for each class, with its object as the supercategory."""
    return [
        {"id": index + 1, "name": pair.name, "supercategory": pair.object}
        for index, pair in enumerate(vocabulary.classes)
    ]


def _make(photo: LabelledPhoto, place: Place) -> dict[str, Any]:
    return coco_document([(1, photo.record)], photo.vocabulary)


def _collect(data_set: DataSet) -> Iterator[tuple[str, Content]]:
    yield FILE, [json_text(coco_document(data_set.records, data_set.vocabulary)), "\n"]


FORMAT = Format(
    name="coco",
    help=f"masks as run lengths; those of all photos of a run are in {FILE}",
    suffix=".coco.json",
    make=_make,
    indent=None,
    collect=_collect,
)
