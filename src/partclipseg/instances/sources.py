"""Sources of objects: regions of the first look, a detector, or the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from partclipseg.data.values import quoted
from partclipseg.errors import UsageError
from partclipseg.files import is_file
from partclipseg.instances.components import COMPONENTS
from partclipseg.instances.found import FoundObject, ObjectSource
from partclipseg.instances.given import GivenObjects

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
    if isinstance(instances, GivenObjects | ObjectSource) and not isinstance(instances, bytes | bytearray):
        return instances
    raise UsageError(
        f"instances must be 'components', a detector, a file, or FoundObject lists, not {quoted(instances)}"
    )


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
    from partclipseg.instances.detectors import Detector

    return Detector.from_pretrained(name, device=device, dtype=dtype, threshold=threshold)
