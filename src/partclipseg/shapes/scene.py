"""Value types of a rendered scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

SceneSplit = Literal["base", "train", "val", "test", "detection", "instances"]
SPLITS: tuple[SceneSplit, ...] = get_args(SceneSplit)
SIZES = ("small", "", "large")
"""Size words; what lies between has none."""
POSITIONS = ("left", "right", "top", "bottom", "middle")
MAX_MEMBERS = 4
"""Maximum number of objects in a scene."""


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene and the words that set it apart."""

    object: str
    """Object word."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of its visible pixels; right and bottom lie outside."""
    colour: str
    """Name of its main colour."""
    size: str
    """One of `SIZES`."""
    position: str
    """One of `POSITIONS`: where in the picture."""


@dataclass(frozen=True)
class Scene:
    """A picture with exact labels, in the indices of the full vocabulary."""

    image: np.ndarray
    """uint8 `[S, S, 3]`, RGB."""
    parts: np.ndarray
    """int16 `[S, S]`: index into `World.vocabulary.object_parts`, −1 for none."""
    objects: np.ndarray
    """int8 `[S, S]`: index into `World.vocabulary.objects`, −1 for none."""
    instances: np.ndarray
    """int8 `[S, S]`: index into `members`, −1 for none."""
    members: tuple[SceneObject, ...]
    """The visible objects, the largest first."""
    key: str
    """Name of the scene, ``split/index``."""
