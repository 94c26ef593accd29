"""COCO annotations: masks as compressed run lengths with scores (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from partclipseg.formats.format import Content, DataSet, Format, Record
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

    Instances are written as PACO has them: an annotation of the whole object, of all pixels that it owns, then its
    parts. All of these name the object's annotation by ``obj_ann_id``. What has no owner comes after them without it;
    of whole objects it is a crowd (``iscrowd``), so that it is no object where the document is read.
    """
    first_object = len(vocabulary) + 1
    objects: dict[int, dict[str, Any]] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, record in records:
        size = {"width": record["width"], "height": record["height"]}
        images.append({"id": image_id, "file_name": record["photo"], **size})
        asked = "instances" in record
        owners: dict[int, int] = {}  # number of the instance to the id of its annotation
        for category, segment, number in _entries(record, first_object):
            annotation_id = first_annotation_id + len(annotations)
            if category >= first_object:
                word = segment["object"]
                objects.setdefault(category, {"id": category, "name": word, "supercategory": word})
                if number is not None:
                    owners[number] = annotation_id
            annotations.append(
                {
                    "id": annotation_id,
                    "image_id": image_id,
                    "category_id": category,
                    "segmentation": segment["rle"],
                    "area": segment["area"],
                    "bbox": segment["box"],
                    # Without an owner, a rest is not told apart: read back, it would be one more object.
                    "iscrowd": int(asked and category >= first_object and number is None),
                    "score": segment["score"],
                    **({} if number is None else {"obj_ann_id": owners[number]}),
                }
            )
    return {
        "info": {"description": "Object-parts, segmented by partclipseg"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": coco_categories(vocabulary) + [objects[category] for category in sorted(objects)],
    }


def _entries(record: Record, first_object: int) -> Iterator[tuple[int, dict[str, Any], int | None]]:
    """Yield category, entry and number of the owner of each annotation of a photo; objects before their parts."""
    segments, rest = record["segments"], record.get("without_part", [])
    for instance in record.get("instances", []):
        if instance["area"]:
            number = instance["number"]
            yield first_object + instance["index"], instance, number
            yield from ((some["index"] + 1, some, number) for some in segments if some["instance"] == number)
    yield from ((some["index"] + 1, some, None) for some in segments if some.get("instance") is None)
    # The pixels of an owner without a part are those of its own annotation already.
    yield from ((first_object + some["index"], some, None) for some in rest if some.get("instance") is None)


def coco_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Make a category for each class, with its object as the supercategory."""
    return [
        {"id": index + 1, "name": pair.name, "supercategory": pair.object}
        for index, pair in enumerate(vocabulary.classes)
    ]


def _collect(data_set: DataSet) -> Iterator[tuple[str, Content]]:
    yield FILE, [json_text(coco_document(data_set.records, data_set.vocabulary)), "\n"]


FORMAT = Format(
    name="coco",
    help=f"masks as run lengths; those of all photos of a run are in {FILE}",
    suffix=".coco.json",
    make=lambda photo, _: coco_document([(1, photo.record)], photo.vocabulary),
    indent=None,
    collect=_collect,
)
