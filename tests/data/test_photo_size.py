"""Sizes of resized photos, to the pixel those of detectron2's `ResizeShortestEdge`."""

from __future__ import annotations

import pytest

from partclipseg.data.photo_size import size_at_shortest_edge


@pytest.mark.parametrize(
    ("size", "edges", "expected"),
    [
        ((375, 500), (800, 1333), (800, 1067)),
        ((500, 375), (800, 1333), (1067, 800)),
        ((100, 1000), (800, 1333), (133, 1333)),
        ((800, 800), (800, 1333), (800, 800)),
        ((375, 500), (640, 768), (576, 768)),
        ((500, 333), (640, 768), (768, 511)),
        ((1, 4000), (640, 768), (1, 768)),
        # Half pixels: the rounding of the factors decides, in detectron2's order of products.
        ((77, 512), (640, 768), (116, 768)),
        ((512, 303), (640, 768), (768, 455)),
        ((147, 512), (640, 768), (220, 768)),
        ((11, 22), (800, 1333), (666, 1333)),
        ((30, 60), (800, 1333), (667, 1333)),
    ],
)
def test_sizes_are_those_of_detectron2(size, edges, expected):
    assert size_at_shortest_edge(size, *edges) == expected
