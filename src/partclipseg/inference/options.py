"""Options of a call of the segmenter: each stands here once, with its type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from partclipseg.errors import UsageError


class SegmentOptions(TypedDict, total=False):
    """Options of `PartSegmenter.__call__`, which explains them, and of `segment_many`; each may be left out."""

    objects: Iterable[str] | None
    zoom: bool
    min_part_probability: float | None
    instances: Any
    outlines: Any
    rest: bool
    batch_size: int
    max_pixels: int
    keep_photo: bool
    fast_reading: bool


def check_fast_reading(zoom: bool = False, instances: bool = False, model_looks: bool = False) -> None:
    """Raise `UsageError` if anything looks at photos at their own size, which fast reading does not keep."""
    why = "zoom looks" if zoom else "instances look" if instances else "this model looks" if model_looks else ""
    if why:
        raise UsageError(f"fast reading cannot be used here, since {why} at photos at their own size: leave it out")


def check_names(options: SegmentOptions) -> None:
    """Raise `TypeError` for an option that does not exist, as Python does for an unknown argument."""
    if unknown := options.keys() - SegmentOptions.__annotations__.keys():
        raise TypeError(f"PartSegmenter got an unexpected keyword argument {min(unknown)!r}")
