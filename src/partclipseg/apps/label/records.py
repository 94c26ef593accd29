"""Check the records of a manifest, which a person or a full disk may have damaged, before anything relies on them."""

from __future__ import annotations

from typing import Any

from partclipseg.apps.label.job import ManifestRecord


def is_record(record: ManifestRecord, classes: int) -> bool:
    """Whether a line of a manifest is a record of a photo, for a vocabulary of `classes` classes."""
    if not isinstance(record.get("photo"), str):
        return False
    if record.get("status") == "failed":
        return isinstance(record.get("error"), str)
    files, segments = record.get("files", {}), record.get("segments")
    return (
        record.get("status") == "done"
        and isinstance(record.get("warning", ""), str)
        and isinstance(record.get("content", ""), str)
        and _is_count(record.get("width"))
        and _is_count(record.get("height"))
        and isinstance(files, dict)
        and all(isinstance(value, str) for value in files.values())
        and isinstance(segments, list)
        and all(_is_segment(segment, [record["height"], record["width"]], classes) for segment in segments)
        and _has_owners(record)
    )


def _has_owners(record: ManifestRecord) -> bool:
    """Whether instances, if the record has them, are whole, and segments name no others."""
    instances = record.get("instances")
    if instances is None:
        return "instances" not in record
    numbers = [*range(1, len(instances) + 1)] if isinstance(instances, list) else None
    return (
        numbers is not None
        and all(_is_instance(instance, [record["height"], record["width"]]) for instance in instances)
        and [instance["number"] for instance in instances] == numbers
        and all(segment.get("instance", 0) in {None, *numbers} for segment in record["segments"])
    )


def _is_instance(instance: Any, size: list[int]) -> bool:
    if not isinstance(instance, dict) or not isinstance(instance.get("rle"), dict):
        return False
    rle, area, index = instance["rle"], instance.get("area"), instance.get("index")
    return (
        all(isinstance(instance.get(name), str) for name in ("object", "source"))
        and isinstance(instance.get("number"), int)
        and isinstance(index, int)
        and index >= 0
        and isinstance(instance.get("score"), int | float)
        and (area == 0 or _is_count(area))
        and all(_is_box(instance.get(name)) for name in ("box", "found"))
        and rle.get("size") == size
        and isinstance(rle.get("counts"), str)
    )


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)


def _is_segment(segment: Any, size: list[int], classes: int) -> bool:
    if not isinstance(segment, dict) or not isinstance(segment.get("rle"), dict):
        return False
    box, index, score, rle = (segment.get(name) for name in ("box", "index", "score", "rle"))
    return (
        all(isinstance(segment.get(name), str) for name in ("name", "object", "part"))
        and isinstance(index, int)
        and 0 <= index < classes
        and isinstance(score, int | float)
        and _is_count(segment.get("area"))
        and _is_box(box)
        and isinstance(rle, dict)
        and rle.get("size") == size
        and isinstance(rle.get("counts"), str)
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
