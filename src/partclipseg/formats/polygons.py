"""Convert a mask to polygons along its pixel edges, for tools that edit outlines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

Vertex = tuple[int, int]
"""A pixel corner, x and y."""


def mask_polygons(mask: np.ndarray, tolerance: float = 1.0) -> list[np.ndarray]:
    """Return a closed polygon float `[n, 2]` (x, y; first vertex not repeated) for each 4-connected piece of `mask`.

    Holes are joined to the outline by a seam of no width, so that each polygon covers exactly the pixels of its piece
    under both the even-odd and the non-zero rule. Coordinates are pixel corners: (0, 0) is the photo's outer corner.

    Args:
        mask: bool `[H, W]`.
        tolerance: greatest distance in pixels by which vertices may be dropped (Douglas and Peucker 1973); 0 is
            exact. Pieces that vanish under it are left out.
    """
    outer, holes = [], []
    for ring in _rings(mask):
        (outer if _signed_area(ring) > 0 else holes).append(ring)
    owner = {vertex: index for index, ring in enumerate(outer) for vertex in ring}
    # From left to right: the pixels left of a hole, at its leftmost corner, are then already part of a polygon.
    for hole in sorted(holes, key=min):
        _cut_in(hole, outer, owner)
    polygons = (_simplify(np.array(ring, dtype=np.float64), tolerance) for ring in outer)
    return [polygon for polygon in polygons if len(polygon) >= 3]


def _rings(mask: np.ndarray) -> list[list[Vertex]]:
    """Return closed walks over pixel corners with the mask on the right: outer borders clockwise on the screen."""
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    inside = padded[1:-1, 1:-1]
    following: dict[Vertex, list[Vertex]] = {}
    for neighbour, start, end in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # nothing above: an edge to the right
        (padded[1:-1, 2:], (1, 0), (1, 1)),  # nothing on the right: down
        (padded[2:, 1:-1], (1, 1), (0, 1)),  # nothing below: to the left
        (padded[1:-1, :-2], (0, 1), (0, 0)),  # nothing on the left: up
    ):
        rows, columns = np.nonzero(inside & ~neighbour)
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            following.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    rings = []
    while following:
        first = vertex = next(iter(following))
        before: Vertex | None = None
        ring: list[Vertex] = []
        while vertex != first or not ring:
            ring.append(vertex)
            before, vertex = vertex, _next_vertex(following, before, vertex)
        rings.append(ring)
    return rings


def _next_vertex(following: dict[Vertex, list[Vertex]], before: Vertex | None, vertex: Vertex) -> Vertex:
    choices = following[vertex]
    if len(choices) == 1:
        return following.pop(vertex)[0]
    if before is None:
        return choices.pop()
    # Two pixels touch only at this corner: turn right, to stay on the current one.
    dx, dy = vertex[0] - before[0], vertex[1] - before[1]
    right = (vertex[0] - dy, vertex[1] + dx)
    choices.remove(right)
    return right


def _signed_area(ring: list[Vertex]) -> float:
    x, y = np.array(ring).T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def _cut_in(hole: list[Vertex], outer: list[list[Vertex]], owner: dict[Vertex, int]) -> None:
    corner = min(hole)  # leftmost, topmost of these: both pixels on its left belong to the mask
    x, y = corner[0] - 1, corner[1]
    while (x, y) not in owner:
        x -= 1
    index = owner[(x, y)]
    ring, position = outer[index], outer[index].index((x, y))
    start = hole.index(corner)
    outer[index] = [*ring[: position + 1], *hole[start:], *hole[:start], corner, *ring[position:]]
    owner.update(dict.fromkeys(hole, index))


def _simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplify the closed `ring` `[n, 2]` by Douglas-Peucker, split at its first vertex and the one farthest from it.

    Vertices that the ring visits twice are kept: they are the ends of seams, and a seam with only one side moved would
    open into a slit.
    """
    middle = int(np.argmax(np.sum((ring - ring[0]) ** 2, axis=1)))
    _, which, count = np.unique(ring, axis=0, return_inverse=True, return_counts=True)
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, middle, len(ring)]] = True
    keep[:-1][count[which.ravel()] > 1] = True
    pending = list(pairwise(np.flatnonzero(keep).tolist()))
    while pending:
        start, end = pending.pop()
        if end - start < 2:
            continue
        direction = closed[end] - closed[start]
        offsets = closed[start + 1 : end] - closed[start]
        along = np.clip(offsets @ direction / max(direction @ direction, 1e-12), 0, 1)
        distances = np.linalg.norm(offsets - along[:, None] * direction, axis=1)
        farthest = int(np.argmax(distances))
        if distances[farthest] > max(tolerance, 1e-9):
            split = start + 1 + farthest
            keep[split] = True
            pending += [(start, split), (split, end)]
    return closed[:-1][keep[:-1]]
