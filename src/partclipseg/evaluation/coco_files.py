"""The regions that average precision was computed from, as the files that public evaluators read.

``truth.json`` is a COCO file with PACO's and LVIS' fields, ``detections.json`` the results that belong to it.
"""

from __future__ import annotations

from typing import Any

from partclipseg.data.coco_masks import rle
from partclipseg.evaluation.average_precision import AveragePrecision


def truth_file(counts: AveragePrecision) -> dict[str, Any]:
    """Return the true regions as a COCO file: categories such as ``dog`` and ``dog:ear``, numbered from 1.

    A part names its object by ``obj_ann_id``. Where a photo has no list of absent categories, it gets all of those
    that it shows no region of. Regions are masks.
    """
    names = {index: item.name for index, item in enumerate(counts.categories)}
    categories = [
        {
            "id": index + 1,
            "name": item.name if item.object is None else f"{names[item.object]}:{item.part}",
            "supercategory": "OBJECT" if item.object is None else "PART",
            "frequency": "f",
        }
        for index, item in enumerate(counts.categories)
    ]
    images, annotations = [], []
    for number, (key, photo) in enumerate(counts.photos().items(), start=1):
        first = len(annotations) + 1
        regions = photo.truth.regions
        owners = {
            one.instance: first + place
            for place, one in enumerate(regions)
            if one.instance >= 0 and counts.categories[one.label].object is None
        }
        for place, one in enumerate(regions):
            box = [float(value) for value in rle.toBbox(one.region)]
            entry = {"id": first + place, "image_id": number, "category_id": one.label + 1, "segmentation": one.region}
            entry |= {"bbox": box, "area": one.area, "iscrowd": int(one.crowd)}
            annotations.append(entry | ({"obj_ann_id": owners[one.instance]} if one.instance in owners else {}))
        shown = {one.label for one in regions}
        absent = set(names) - shown if photo.truth.negative is None else photo.truth.negative
        size = next((one.region["size"] for one in (*regions, *photo.found) if isinstance(one.region, dict)), [1, 1])
        images.append(
            {
                "id": number,
                "file_name": key,
                "height": size[0],
                "width": size[1],
                "neg_category_ids": sorted(label + 1 for label in absent),
                "not_exhaustive_category_ids": sorted(label + 1 for label in photo.truth.not_exhaustive),
            }
        )
    return {"images": images, "annotations": annotations, "categories": categories}


def detections_file(counts: AveragePrecision) -> list[dict[str, Any]]:
    """Return the detections as COCO and LVIS results, with the ids of `truth_file`.

    They have no ``bbox``: LVIS would take its area for that of the mask.
    """
    return [
        {"image_id": number, "category_id": one.label + 1, "segmentation": one.region, "score": one.score}
        for number, photo in enumerate(counts.photos().values(), start=1)
        for one in photo.found
    ]
