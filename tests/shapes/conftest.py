"""Scenes that several tests look at."""

import pytest

from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.scene import SPLITS, Scene


@pytest.fixture(scope="session")
def scenes() -> dict[str, list[Scene]]:
    """The first 200 scenes of each split at 64 pixels."""
    return {split: [render_scene(split, index, 64) for index in range(200)] for split in SPLITS}
