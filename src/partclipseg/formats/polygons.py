"""Convert a mask to polygons along its pixel edges, for tools that edit outlines.

Only the corners of an outline are visited, not every pixel of it: with NumPy where all corners are handled alike, with
plain lists where one leads to the next. `benchmarks/outlines.py` compares the time with a plain walk.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import NamedTuple

import numpy as np


def mask_polygons(mask: np.ndarray, tolerance: float = 1.0) -> list[np.ndarray]:
    """Return a closed polygon float `[n, 2]` (x, y; first vertex not repeated) for each 4-connected piece of `mask`.

    Holes are joined to the outline by a seam of no width, so that each polygon covers exactly the pixels of its piece
    under both the even-odd and the non-zero rule. Coordinates are pixel corners: (0, 0) is the photo's outer corner.

    Args:
        mask: bool `[H, W]`.
        tolerance: greatest distance in pixels by which vertices may be dropped (Douglas and Peucker 1973); 0 is
            exact. Pieces that vanish under it are left out, but the largest one stays: its tolerance is halved until
            it has three vertices.
    """
    mask = np.asarray(mask, dtype=bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return []
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    outlines = _Outlines(_corners(padded), padded)
    outlines.join_holes()
    points, starts = outlines.polygons()
    points += (left, top)
    kept = _simplified(points, starts, tolerance)
    largest = int(_doubled_areas(points[:, 0], points[:, 1], starts).argmax())
    pieces = [slice(start, end) for start, end in pairwise([*starts.tolist(), len(points)])]
    while np.count_nonzero(kept[pieces[largest]]) < 3:
        tolerance /= 2
        kept[pieces[largest]] = _simplified(points[pieces[largest]], starts[:1], tolerance)
    polygons = (points[piece][kept[piece]] for piece in pieces)
    return [polygon for polygon in polygons if len(polygon) >= 3]


def _doubled_areas(x: np.ndarray, y: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return twice the area within each ring, `[r]`, positive for clockwise ones on the screen.

    `x` and `y`, `[n]` each, are the vertices of all rings; a ring begins at each of the `starts`, `[r]`.
    """
    after = np.arange(1, len(x) + 1)
    after[np.append(starts[1:], len(x)) - 1] = starts
    return np.add.reduceat(x * y[after] - y * x[after], starts)


class _Corners(NamedTuple):
    """Corners of outlines with the mask on the right: outer ones run clockwise on the screen, holes the other way.

    A vertex at which two pixels of the mask touch diagonally has two corners, one for each of the pixels.
    """

    x: np.ndarray
    y: np.ndarray
    """int64 `[n]` each, sorted by y, then x."""
    following: np.ndarray
    """int64 `[n]`: next corner of the outline."""
    goes_right: np.ndarray
    """bool `[n]`: whether the edge to the next corner leads to the right."""
    by_column: np.ndarray
    """int64 `[n]`: the corners sorted by x, then y; the 2k-th and the next one are the ends of a vertical edge."""


def _corners(padded: np.ndarray) -> _Corners:
    """Find the corners of a mask, bool `[H + 2, W + 2]` with an empty margin, and the order in which they follow."""
    # A vertex is a corner if the vertical edges above and below it differ, or if both are there on different sides.
    edges = padded[:, :-1] ^ padded[:, 1:]  # [H + 2, W + 1]
    above, below = edges[:-1], edges[1:]
    touching = above & below & (padded[:-1, :-1] ^ padded[1:, :-1])
    places = np.flatnonzero((above ^ below) | touching)
    twice = touching.ravel()[places]
    places, twice = np.repeat(places, 1 + twice), np.repeat(twice, 1 + twice)
    y, x = np.divmod(places, edges.shape[1])
    is_second = np.zeros(len(places), dtype=bool)
    is_second[1:] = twice[1:] & (places[1:] == places[:-1])
    lower_right = padded[y + 1, x + 1]

    # Along each row, corners pair up as the ends of horizontal edges; along each column, of vertical ones. Of the two
    # corners at a vertex the first is the right end of an edge. If the lower right pixel is part of the mask, so is the
    # upper left one, whose corner this first one is; otherwise it is that of the lower left pixel, below the vertex.
    is_lower = is_second ^ (twice & ~lower_right)
    by_column = np.argsort(2 * (x * (int(y[-1]) + 1) + y) + is_lower)
    lefts, rights = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
    uppers, lowers = by_column[0::2], by_column[1::2]
    following = np.empty(len(x), dtype=np.int64)
    goes_right = np.zeros(len(x), dtype=bool)
    rightwards = padded[y[lefts] + 1, x[lefts] + 1]
    upwards = padded[y[uppers] + 1, x[uppers] + 1]
    following[np.where(rightwards, lefts, rights)] = np.where(rightwards, rights, lefts)
    following[np.where(upwards, lowers, uppers)] = np.where(upwards, uppers, lowers)
    goes_right[lefts[rightwards]] = True
    return _Corners(x, y, following, goes_right, by_column)


class _Outlines:
    """Outlines as linked corners; joining holes to them adds corners."""

    def __init__(self, corners: _Corners, padded: np.ndarray) -> None:
        self.corners, self.padded = corners, padded
        self.x, self.y = corners.x.tolist(), corners.y.tolist()
        self.following: list[int] = corners.following.tolist()
        order, starts = self._walk(np.flatnonzero(corners.goes_right).tolist())
        x, y = corners.x[order], corners.y[order]
        ends = np.append(starts[1:], len(order))
        areas = _doubled_areas(x, y, starts)
        self.outer: list[int] = [order[start] for start in starts[areas > 0].tolist()]
        """First corner of each outer outline."""
        places = x * (int(corners.y[-1]) + 1) + y  # sorted by x, then y
        hole_places = np.minimum.reduceat(places, starts)
        ring = np.repeat(np.arange(len(starts)), ends - starts)
        # At its leftmost vertex, topmost of these, a hole has one corner: both pixels on its left are in the mask.
        leftmost = np.flatnonzero((places == hole_places[ring]) & (areas < 0)[ring])
        self.holes: list[int] = [order[index] for index in leftmost[np.argsort(places[leftmost])].tolist()]
        """Leftmost corner of each hole, from left to right."""
        self._tails: dict[int, int] = {}
        """Corner from which the edge leads on, of corners that a seam divides in two."""
        self._on_edges: dict[int, list[tuple[int, int]]] = {}
        """(-y, corner) of those added on vertical edges, sorted, by the lower end of the edge."""

    def _walk(self, firsts: list[int]) -> tuple[list[int], np.ndarray]:
        """Return all corners in the order of their outlines, and the index at which each outline begins.

        An outline begins at the first of the `firsts` that it has.
        """
        following, order, starts = self.following, [], []
        seen = bytearray(len(following))
        for first in firsts:
            if seen[first]:
                continue
            starts.append(len(order))
            corner = first
            while not seen[corner]:
                seen[corner] = 1
                order.append(corner)
                corner = following[corner]
        return order, np.array(starts, dtype=np.int64)

    def join_holes(self) -> None:
        """Join each hole to the outline on its left by a seam, from left to right: there all holes are joined then."""
        if not self.holes:
            return
        previous = [0] * len(self.following)
        for corner, after in enumerate(self.following):
            previous[after] = corner
        column_places = (self.corners.x * (int(self.corners.y[-1]) + 1) + self.corners.y)[self.corners.by_column]
        for hole in self.holes:
            before = previous[hole]
            # Seams that ended on the edge to the hole's corner come before it.
            while self.following[before] != hole:
                before = self.following[before]
            end = self._end_of_seam(hole, column_places)
            tail, again = self._add(self.x[end], self.y[end]), self._add(self.x[hole], self.y[hole])
            self.following[tail] = self.following[end]
            self.following[end] = hole
            self.following[before] = again
            self.following[again] = tail
            self._tails[end] = tail

    def _add(self, x: int, y: int) -> int:
        self.x.append(x)
        self.y.append(y)
        self.following.append(-1)
        return len(self.x) - 1

    def _end_of_seam(self, hole: int, column_places: np.ndarray) -> int:
        """Return the corner at the left end of a hole's seam; a new one where the seam ends on an edge."""
        x, y = self.x[hole], self.y[hole]
        pair = self.padded[y : y + 2, x::-1]
        x -= int((pair[0] & pair[1]).argmin())
        height = int(self.corners.y[-1]) + 1
        index = int(np.searchsorted(column_places, x * height + y))
        if index < len(column_places) and column_places[index] == x * height + y:
            return int(self.corners.by_column[index])
        # The mask is on the right of the edge, so it leads upwards, from its lower end.
        lower = int(self.corners.by_column[index])
        added = self._on_edges.setdefault(lower, [])
        place = bisect_left(added, (-y, -1))
        before = added[place - 1][1] if place else lower
        before = self._tails.get(before, before)
        corner = self._add(x, y)
        self.following[corner] = self.following[before]
        self.following[before] = corner
        added.insert(place, (-y, corner))
        return corner

    def polygons(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of all outer outlines, float `[m, 2]`, and the index at which each begins."""
        order, starts = self._walk(self.outer)
        points = np.stack([np.array(self.x, dtype=np.float64)[order], np.array(self.y, dtype=np.float64)[order]], 1)
        return points, starts


def _simplified(points: np.ndarray, starts: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplify closed rings by Douglas-Peucker, each split at its first vertex and the one farthest from it.

    Vertices that a ring visits twice are kept: they are the ends of seams, and a seam with only one side moved would
    open into a slit.

    Args:
        points: `[m, 2]`, the vertices of all rings.
        starts: `[r]`, index of each ring's first vertex.
        tolerance: as in `mask_polygons`.

    Returns the vertices that stay, bool `[m]`.
    """
    lengths = np.diff(starts, append=len(points))
    ring = np.repeat(np.arange(len(starts)), lengths)
    keep = np.zeros(len(points), dtype=bool)
    keep[starts] = True
    keep[_first_greatest(np.square(points - points[starts][ring]).sum(1), starts)] = True
    x, y = points.astype(np.int64).T
    places = (ring * (y.max() + 1) + y) * (x.max() + 1) + x
    _, which, counts = np.unique(places, return_inverse=True, return_counts=True)
    keep[counts[which] > 1] = True

    # All pieces between kept vertices are split at once; the last piece of a ring ends at the ring's first vertex.
    firsts = np.flatnonzero(keep)
    lasts = np.append(firsts[1:], len(points))
    ends = np.where(ring[firsts] == np.append(ring[firsts[1:]], -1), lasts, starts[ring[firsts]])
    px, py = np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1])
    limit = max(tolerance, 1e-9) ** 2
    while True:
        some = lasts - firsts >= 2
        firsts, lasts, ends = firsts[some], lasts[some], ends[some]
        if len(firsts) == 0:
            return keep
        counts = lasts - firsts - 1
        begins = np.cumsum(counts) - counts
        inside = np.arange(counts.sum()) + np.repeat(firsts + 1 - begins, counts)
        wx, wy = px[ends] - px[firsts], py[ends] - py[firsts]
        scale = 1 / np.maximum(wx * wx + wy * wy, 1e-12)
        dx, dy = px[inside] - np.repeat(px[firsts], counts), py[inside] - np.repeat(py[firsts], counts)
        rx, ry = np.repeat(wx, counts), np.repeat(wy, counts)
        along = np.clip((dx * rx + dy * ry) * np.repeat(scale, counts), 0, 1)
        distances = np.square(dx - along * rx) + np.square(dy - along * ry)
        farthest = _first_greatest(distances, begins)
        far = distances[farthest] > limit
        splits = inside[farthest[far]]
        keep[splits] = True
        firsts, lasts, ends = (
            np.concatenate(pair) for pair in ((firsts[far], splits), (splits, lasts[far]), (splits, ends[far]))
        )


def _first_greatest(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the index of the first greatest value of each run; runs begin at `starts`."""
    greatest = np.maximum.reduceat(values, starts)
    found = np.flatnonzero(values == np.repeat(greatest, np.diff(starts, append=len(values))))
    return found[np.searchsorted(found, starts)]
