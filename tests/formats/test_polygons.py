"""Polygons fill exactly the pixels they were made from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from partclipseg.formats.polygons import mask_polygons


def filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre is inside an odd number of times, summed over the polygons."""
    rows, columns = np.indices(shape) + 0.5
    counts = np.zeros(shape, dtype=int)
    for polygon in polygons:
        crossings = np.zeros(shape, dtype=int)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            spans = (rows > min(y0, y1)) & (rows < max(y0, y1))
            crossings += spans & (columns > x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
        counts += crossings % 2
    return counts


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_exact_polygons_give_the_mask_back(mask):
    assert np.array_equal(filled(mask_polygons(mask, tolerance=0), mask.shape), mask.astype(int))


@pytest.mark.parametrize(
    ("picture", "pieces"),
    [
        ("##\n##", 1),
        ("#.\n.#", 2),  # touching at a corner: two pieces
        ("####\n#.##\n##.#\n####", 1),  # one hole whose pixels touch at a corner
        ("#####\n#.#.#\n#####", 1),  # two holes side by side
        ("#####\n#...#\n#.#.#\n#...#\n#####", 2),  # an island in a hole
        ("....", 0),
    ],
)
def test_pieces(picture, pieces):
    mask = np.array([[c == "#" for c in row] for row in picture.splitlines()])
    polygons = mask_polygons(mask, tolerance=0)
    assert len(polygons) == pieces
    assert np.array_equal(filled(polygons, mask.shape), mask.astype(int))


def test_tolerance_drops_the_stairs_and_keeps_the_shape():
    y, x = np.indices((120, 160))
    disc = (x - 80) ** 2 + (y - 60) ** 2 < 50**2
    exact, simple = mask_polygons(disc, 0)[0], mask_polygons(disc, 1.0)[0]
    assert len(simple) < len(exact) / 5
    inside = filled([simple], disc.shape) > 0
    # Vertices move by less than a pixel, so only the pixels along the border (2 pi 50 = 314) can differ.
    assert (inside & disc).sum() / (inside | disc).sum() > 0.97


def test_seams_do_not_open_under_the_tolerance():
    """A long seam to a small hole: moved at one end only, it would be a slit through pixels far from any border."""
    y, x = np.indices((40, 60))
    mask = (np.abs(y - 20) < 18) & (np.abs(x - 30) < 28) & (np.hypot(x - 45, y - 22) > 2.5)
    (polygon,) = mask_polygons(mask, 1.0)
    inside = filled([polygon], mask.shape) > 0
    assert inside[5:36, 5:41].all()
