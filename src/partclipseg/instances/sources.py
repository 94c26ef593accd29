"""Sources of objects: regions of the first look, a detector, or the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from partclipseg.counts import count_of
from partclipseg.data.values import quoted
from partclipseg.errors import UsageError
from partclipseg.files import is_directory, is_file
from partclipseg.instances.components import COMPONENTS
from partclipseg.instances.found import FoundObject, ObjectSource, check_mask_size
from partclipseg.instances.given import GivenObjects, check_objects
from partclipseg.likeness import nearest_name

InstanceSource = Literal["components"] | ObjectSource | GivenObjects


@runtime_checkable
class ObjectOutliner(Protocol):
    """Draws the outlines of found objects, such as a promptable segmenter."""

    def outline(self, photos: Sequence[np.ndarray], found: Sequence[Sequence[FoundObject]]) -> list[list[FoundObject]]:
        """Return the objects of each photo, uint8 `[H, W, 3]`, in their order, with masks where it is sure of them."""
        ...


def as_source(instances: Any) -> InstanceSource:
    """Return the source that the argument `instances` of a call means; raises `UsageError` for other values.

    ``"components"``, an `ObjectSource`, the path of a file for `GivenObjects.read`, or a mapping from the paths of
    photos to lists of `FoundObject`.
    """
    if isinstance(instances, Mapping):
        return GivenObjects.of_mapping(instances)
    if isinstance(instances, str | Path):  # before the protocol: text has a method `find`, too
        if instances == COMPONENTS:
            return COMPONENTS
        if is_file(instances):
            return GivenObjects.read(instances)
        raise UsageError(
            f"instances={str(instances)!r} is neither 'components' nor a file of objects; for a detector give "
            "Detector.from_pretrained(...)"
        )
    # bytes have a method `find`, too, and so has a class, which is no object of it.
    if isinstance(instances, GivenObjects | ObjectSource) and not isinstance(instances, bytes | bytearray | type):
        return instances
    raise UsageError(
        f"instances must be 'components', a detector, a file, or FoundObject lists, not {quoted(instances)}"
    )


def find_objects(source: ObjectSource, photos: Sequence[np.ndarray], words: Sequence[str]) -> list[list[FoundObject]]:
    """Return the objects that a source finds in photos, uint8 `[H, W, 3]` each.

    Raises `UsageError` where the source does not return a list of `FoundObject` for each of them.
    """
    return _lists(source.find(photos, words), len(photos), "the method find of instances")


def outline_objects(
    outliner: ObjectOutliner, photos: Sequence[np.ndarray], found: Sequence[Sequence[FoundObject]]
) -> list[list[FoundObject]]:
    """Return the objects found in photos, uint8 `[H, W, 3]` each, with the masks that an outliner draws.

    Raises `UsageError` where it does not return the same number of objects, or masks of another size.
    """
    who = "the method outline of outlines"
    outlined = _lists(outliner.outline(photos, found), len(photos), who)
    for photo, before, after in zip(photos, found, outlined, strict=True):
        if len(before) != len(after):
            raise UsageError(
                f"{who} must return the objects that it was given, {len(before)} in a photo, not {len(after)}"
            )
        for some in after:
            check_mask_size(some, (photo.shape[0], photo.shape[1]), "outlines")
    return outlined


def _lists(found: Any, count: int, who: str) -> list[list[FoundObject]]:
    lists = list(found) if isinstance(found, Iterable) else []
    if len(lists) != count or not all(isinstance(some, Iterable) for some in lists):
        raise UsageError(
            f"{who} must return a list of FoundObject for each photo that it is given, "
            f"{count_of(count, 'list')} in all, not {quoted(found)}"
        )
    objects = [list(some) for some in lists]
    for some in objects:
        check_objects(some, f"for a photo, {who} must return a list of FoundObject")
    return objects


def open_instance_source(
    name: str, threshold: float | None = None, device: str | None = None, dtype: str | None = None
) -> InstanceSource:
    """Return the source that a command line names: ``components``, a JSON file, or a detector's directory or hub name.

    `threshold` is the minimum score of what a detector finds; None is the detector's own.

    Raises:
        UsageError: a file that cannot be read, or a threshold for what has none.
        PartCLIPSegError: no such detector can be found or loaded.
    """
    if name == COMPONENTS or is_file(name):
        if threshold is not None:
            raise UsageError("--instance-threshold is for a detector: leave it out")
        return as_source(name)
    if name.lower().endswith(".json"):
        raise UsageError(f"there is no file {name}: check the path of the objects' file")
    if nearest_name(name, [COMPONENTS], 0.8) and not is_directory(name):
        raise UsageError(f"--instances {name} names no source of objects, did you mean {COMPONENTS}?")
    from partclipseg.instances.detectors import Detector

    return Detector.from_pretrained(name, device=device, dtype=dtype, threshold=threshold)
