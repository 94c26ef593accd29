"""Time the outlines of a 12-megapixel photo, beside a plain walk along every pixel edge.

    python benchmarks/outlines.py --output outlines.json

A rough map of classes stands for the labels: smooth fields that compete, with noise on top, so that the borders are
ragged and have islands and holes. The plain walk is run for a few of the classes, in the same process. Times are
those of the processor, in one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from partclipseg.files import write_text
from partclipseg.formats.polygons import mask_polygons

Vertex = tuple[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="JSON file for the figures")
    parser.add_argument("--size", nargs=2, type=int, default=[3000, 4000], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.01, help="amplitude of the noise beside fields of 1")
    parser.add_argument("--plain", type=int, default=3, help="classes that are also walked plainly")
    options = parser.parse_args()
    height, width = options.size
    labels = ragged_labels(height, width, options.classes, options.noise)
    rows = []
    for index in range(options.classes):
        mask = labels == index
        row = {"class": index, "pixels": int(mask.sum()), "edges": edges(mask)}
        started = time.process_time()
        polygons = mask_polygons(mask)
        row |= {"seconds": time.process_time() - started, "polygons": len(polygons)}
        if index < options.plain:
            started = time.process_time()
            plain = plain_polygons(mask)
            row["plain_seconds"] = time.process_time() - started
            row["ratio"] = row["plain_seconds"] / row["seconds"]
            row["same"] = sum(len(a) == len(b) and bool((a == b).all()) for a, b in zip(polygons, plain, strict=False))
            row["plain_polygons"] = len(plain)
        rows.append(row)
        print(row, flush=True)
    found = {
        "size": options.size,
        "noise": options.noise,
        "machine": platform.processor() or platform.machine(),
        "numpy": np.__version__,
        "mean_seconds": float(np.mean([row["seconds"] for row in rows])),
        "greatest_seconds": max(row["seconds"] for row in rows),
        "ratio": float(np.mean([r["ratio"] for r in rows if "ratio" in r])) if options.plain else None,
        "classes": rows,
    }
    print({key: value for key, value in found.items() if key != "classes"})
    if options.output:
        write_text(Path(options.output), json.dumps(found, indent=1) + "\n")


def ragged_labels(height: int, width: int, classes: int, noise: float) -> np.ndarray:
    """Return int8 `[height, width]`: at each pixel the class whose field and noise are greatest."""
    generator = np.random.default_rng(0)
    best, labels = np.full((height, width), -np.inf, np.float32), np.zeros((height, width), np.int8)
    for index in range(classes):
        field = generator.random((7, 9), dtype=np.float32)
        for axis, size in enumerate((height, width)):  # bilinear
            place = np.linspace(0, field.shape[axis] - 1.001, size, dtype=np.float32)
            low = place.astype(np.int64)
            share = np.expand_dims(place - low, 1 - axis)
            field = field.take(low, axis) * (1 - share) + field.take(low + 1, axis) * share
        field += noise * generator.random((height, width), dtype=np.float32)
        better = field > best
        best[better], labels[better] = field[better], index
    return labels


def edges(mask: np.ndarray) -> int:
    """Return the number of pixel edges between the mask and the rest."""
    padded = np.pad(mask, 1)
    return int((padded[1:] ^ padded[:-1]).sum() + (padded[:, 1:] ^ padded[:, :-1]).sum())


# -- the plain walk -------------------------------------------------------------------------------------------


def plain_polygons(mask: np.ndarray, tolerance: float = 1.0) -> list[np.ndarray]:
    """Return the polygons of `mask_polygons`, one pixel edge at a time."""
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


if __name__ == "__main__":
    main()
