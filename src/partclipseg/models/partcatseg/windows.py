"""Attention within the windows of a grid, which may be shifted by a part of a window.

The published form (Liu et al., "Swin Transformer", ICCV 2021) rolls a shifted grid, attends within whole windows, and
masks what only the roll brought together. The same values come from a cut of the grid itself: at `shift`, and from
there after every window. What is left at the edges are narrower tiles, each of which attends alone. Nothing is rolled
or masked: a GPU's attention is twice as fast without a mask, and the tiles at the edges have fewer products.

Letters in shapes: B photos, T classes, g grid, C width, d = C / heads, n tiles, a and b edges of a tile.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from partclipseg.models.partcatseg.chunks import joined


class Stripe(NamedTuple):
    """Neighbouring rows, or columns, of a grid that are cut into tiles of one edge."""

    length: int
    edge: int


def stripes(grid: int, window: int, shift: int) -> list[Stripe]:
    """Cut `grid` places, a multiple of `window`, at `shift` and from there after every window."""
    if not shift:
        return [Stripe(grid, window)]
    cut = Stripe(shift, shift), Stripe(grid - window, window), Stripe(window - shift, window - shift)
    return [stripe for stripe in cut if stripe.length]


def attend_within_windows(projected: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """Mix the values within windows: queries, keys and values `[B, T, g, g, 3C]` → `[B, T, g, g, C]`.

    `window` divides g and is larger than `shift`.
    """
    cut = stripes(projected.shape[2], window, shift)
    lengths = [stripe.length for stripe in cut]
    maps = projected.flatten(0, 1)  # [B·T, g, g, 3C]
    blocks = [rows.split(lengths, 2) for rows in maps.split(lengths, 1)]
    # 1. Tiles of one size, from whatever block of the grid, are attended together: [3, B·T, n, heads, a, b, d].
    tiles: dict[tuple[int, int], list[Tensor]] = {}
    for row, across in zip(cut, blocks, strict=True):
        for column, block in zip(cut, across, strict=True):
            tiles.setdefault(_size(row, column), []).append(_tiles(block, row, column, heads))
    mixed = {size: iter(_attend(of_size)) for size, of_size in tiles.items()}  # taken in the order they were given
    # 2. Back to the grid.
    rows = [
        joined([_block(next(mixed[_size(row, column)]), row, column) for column in cut], dim=2) for row in cut
    ]
    return joined(rows, dim=1).unflatten(0, projected.shape[:2])


def _size(row: Stripe, column: Stripe) -> tuple[int, int]:
    """Return the edges of the tiles of a block, the longer one first: a lying tile is turned, as order is free."""
    return max(row.edge, column.edge), min(row.edge, column.edge)


def _tiles(block: Tensor, row: Stripe, column: Stripe, heads: int) -> Tensor:
    """Cut a block `[B·T, h, w, 3C]` into tiles `[3, B·T, n, heads, a, b, d]`."""
    x = block.unflatten(3, (3, heads, -1)).unflatten(2, (-1, column.edge)).unflatten(1, (-1, row.edge))
    # [B·T, down, h', across, w', 3, heads, d]
    first, second = (2, 4) if row.edge >= column.edge else (4, 2)
    return x.permute(5, 0, 1, 3, 6, first, second, 7).flatten(2, 3)


def _attend(tiles: list[Tensor]) -> tuple[Tensor, ...]:
    """Attend within tiles of one size, `[3, B·T, n, heads, a, b, d]` each; return `[B·T, n, heads, a, b, d]` each."""
    x = joined(tiles, dim=2)
    q, k, v = x.flatten(4, 5).flatten(2, 3).unbind()  # [B·T, n·heads, a·b, d] each
    mixed = F.scaled_dot_product_attention(q, k, v)
    return mixed.unflatten(2, x.shape[4:6]).unflatten(1, x.shape[2:4]).split([some.shape[2] for some in tiles], 1)


def _block(tiles: Tensor, row: Stripe, column: Stripe) -> Tensor:
    """Join the tiles of a block, `[B·T, n, heads, a, b, d]`, to `[B·T, h, w, C]`."""
    x = tiles.unflatten(1, (row.length // row.edge, -1))  # [B·T, down, across, heads, a, b, d]
    first, second = (4, 5) if row.edge >= column.edge else (5, 4)
    return x.permute(0, 1, first, 2, second, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
