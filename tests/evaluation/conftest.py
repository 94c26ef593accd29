from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PHOTOS = 6


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """Photos of noise with index PNGs: cat's ear, cat's leg, dog's ear, and the last photo without any part."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("cat's ear\ncat's leg\ndog's ear\n")
    generator = np.random.default_rng(0)
    for index in range(PHOTOS):
        size = (40 + 4 * index, 56)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"images/p{index}.png")
        labels = np.full(size, 255, np.uint8)
        if index < PHOTOS - 1:
            labels[5:30, 5:30] = index % 3
            labels[20:35, 20:50] = (index + 1) % 3
        Image.fromarray(labels).save(root / f"labels/p{index}.png")
    return root
