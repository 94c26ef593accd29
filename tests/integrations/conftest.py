"""Loads the files of the folder integrations, and a photo of which the built-in model finds something."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from partclipseg import PartSegmenter
from partclipseg.shapes.renderer import render_scene

INTEGRATIONS = Path(__file__).resolve().parents[2] / "integrations"


def load(path: str) -> ModuleType:
    """The module in a file of the folder, loaded as the tools do: by its path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, INTEGRATIONS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A rendered scene, uint8 `[H, W, 3]`."""
    return render_scene("test", 2, 160).image


@pytest.fixture(scope="session")
def segmenter() -> PartSegmenter:
    return PartSegmenter.from_pretrained()


@pytest.fixture(scope="session")
def two_scenes() -> np.ndarray:
    """Two scenes side by side, uint8 `[H, 2W, 3]`, each with the same object."""
    scene = render_scene("test", 2, 160).image
    return np.concatenate([scene, scene], axis=1)
