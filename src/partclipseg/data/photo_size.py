"""The size of a photo at a given shortest edge, as detectron2 rounds it."""

from __future__ import annotations


def size_at_shortest_edge(size: tuple[int, ...], shortest: int, longest: int) -> tuple[int, int]:
    """Return height and width at the `shortest` edge or, where that is less, the `longest` one, in pixels."""
    height, width = size
    scale = shortest / min(height, width)
    # The shortest edge is not multiplied, and the other one in two steps, as released: the roundings of the factors
    # decide about half pixels.
    edges = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(edges) > longest:
        edges = tuple(edge * (longest / max(edges)) for edge in edges)
    return max(1, int(edges[0] + 0.5)), max(1, int(edges[1] + 0.5))
