from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def own_data(own_data: Path) -> Path:
    """The last photo without any part."""
    path = own_data / "labels/p5.png"
    labels = np.full_like(np.asarray(Image.open(path)), 255)
    Image.fromarray(labels).save(path)
    return own_data
