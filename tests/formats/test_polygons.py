"""Polygons fill exactly the pixels they were made from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize(
    "picture",
    [
        "#",
        "#######",
        "#\n#\n#",
        "#....\n.#...\n..#..",  # three pieces of one pixel: one of them stays
        "##...\n.##..\n..##.\n...##",
        "###\n#.#\n###",
        "#########\n#.#.#.#.#\n.........\n....##...\n....##...",  # the ragged piece is larger than the square one
    ],
)
@pytest.mark.parametrize("tolerance", [1, 3, 1000])
def test_the_largest_piece_never_vanishes(picture, tolerance):
    mask = np.array([[c == "#" for c in row] for row in picture.splitlines()])
    areas = [np.sum(filled([polygon], mask.shape)) for polygon in mask_polygons(mask, 0)]
    whole = mask_polygons(mask, 0)[int(np.argmax(areas))]
    corners = {tuple(vertex) for vertex in whole}
    found = [polygon for polygon in mask_polygons(mask, tolerance) if {tuple(vertex) for vertex in polygon} <= corners]
    assert len(found) == 1
    x, y = found[0].T
    assert np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) > 0


def test_small_pieces_vanish_under_the_tolerance():
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[15, 15] = True
    (polygon,) = mask_polygons(mask, 1.0)
    assert polygon.tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]


def test_seams_do_not_open_under_the_tolerance():
    """A long seam to a small hole: moved at one end only, it would be a slit through pixels far from any border."""
    y, x = np.indices((40, 60))
    mask = (np.abs(y - 20) < 18) & (np.abs(x - 30) < 28) & (np.hypot(x - 45, y - 22) > 2.5)
    (polygon,) = mask_polygons(mask, 1.0)
    inside = filled([polygon], mask.shape) > 0
    assert inside[5:36, 5:41].all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=8, max_side=24)), st.sampled_from([0.5, 1, 3])
)
def test_simplified_vertices_are_corners_and_holes_keep_their_seams(mask, tolerance):
    """A seam runs there and back, so that its two sides cover nothing; every vertex is one of the exact outline."""
    exact = {tuple(vertex) for polygon in mask_polygons(mask, 0) for vertex in polygon}
    for polygon in mask_polygons(mask, tolerance):
        assert {tuple(vertex) for vertex in polygon} <= exact


def test_many_holes_are_joined_in_little_time():
    """A plain walk takes the square of the number of holes: these 10,000 would take it minutes."""
    mask = np.ones((301, 301), dtype=bool)
    mask[2:-2:3, 2:-2:3] = False
    (polygon,) = mask_polygons(mask, 0)
    x, y = polygon.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == mask.sum()


def test_two_holes_whose_seams_end_on_one_edge():
    mask = np.ones((9, 6), dtype=bool)
    mask[[2, 6, 4], [3, 3, 4]] = False
    (polygon,) = mask_polygons(mask, 0)
    assert np.array_equal(filled([polygon], mask.shape), mask.astype(int))


def test_polygons_are_those_of_a_plain_walk():
    """The benchmark's walk along every pixel edge; where pixels touch diagonally, it may cut an outline in two."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "outlines.py"
    spec = importlib.util.spec_from_file_location("outlines", path)
    assert spec is not None
    assert spec.loader is not None
    outlines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(outlines)
    labels = outlines.ragged_labels(90, 120, 3, 0.05)
    for index in range(3):
        ours, plain = mask_polygons(labels == index), outlines.plain_polygons(labels == index)
        assert len(ours) == len(plain) >= 3
        same = [len(a) == len(b) and bool((a == b).all()) for a, b in zip(ours, plain, strict=True)]
        assert sum(same) >= len(same) - 2
