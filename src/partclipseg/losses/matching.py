"""Optimal assignment of many small problems at once, on their device.

scipy solves one problem after another on the CPU, for which a training step would wait for the GPU and could not be
captured. Here all problems take the same number of steps, so that nothing depends on the values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from partclipseg.maps.precision import full_precision


@torch.no_grad()
def assign(costs: Tensor) -> Tensor:
    """Assign each row to a column of its own, with the least sum of costs.

    The Hungarian method by shortest augmenting paths (Jonker and Volgenant, 1987): rows come in one by one, and each
    takes the cheapest path over reduced costs to a free column, along which earlier rows change their columns.

    Args:
        costs: finite float `[N, R, C]` of N problems, `R ≤ C`.

    Returns int64 `[N, R]`: the column of each row. Raises `ValueError` for more rows than columns.
    """
    problems, rows, columns = costs.shape
    if rows > columns:
        raise ValueError(f"{rows} rows cannot have one of {columns} columns each")
    device = costs.device
    costs = full_precision(costs)
    # Column 0 stands for "none": a new row begins there. Row 0 stands for "no row": a column that has it is free.
    row_price, column_price = costs.new_zeros(problems, rows + 1), costs.new_zeros(problems, columns + 1)
    row_of = torch.zeros(problems, columns + 1, dtype=torch.int64, device=device)
    for row in range(1, rows + 1):
        row_of[:, 0].fill_(row)
        column = torch.zeros(problems, 1, dtype=torch.int64, device=device)
        visited = torch.zeros(problems, columns + 1, dtype=torch.bool, device=device)
        least = costs.new_full((problems, columns + 1), torch.inf)  # cheapest way to each column
        before = torch.zeros(problems, columns + 1, dtype=torch.int64, device=device)
        for _ in range(row):  # as many columns are taken, column 0 among them
            going_on = row_of.gather(1, column) > 0  # [N, 1]
            visited = visited.scatter(1, column, going_on | visited.gather(1, column))
            current = row_of.gather(1, column)  # [N, 1]
            prices = costs.gather(1, (current - 1).clamp(min=0)[..., None].expand(-1, -1, columns))[:, 0]
            reduced = prices - row_price.gather(1, current) - column_price[:, 1:]
            better = (reduced < least[:, 1:]) & ~visited[:, 1:] & going_on
            least[:, 1:] = torch.where(better, reduced, least[:, 1:])
            before[:, 1:] = torch.where(better, column, before[:, 1:])
            step, following = least[:, 1:].masked_fill(visited[:, 1:], torch.inf).min(1, keepdim=True)
            step = torch.where(going_on, step, 0)
            row_price = row_price.scatter_add(1, row_of, step * visited)
            column_price = column_price - step * visited
            least = least - step * ~visited
            column = torch.where(going_on, following + 1, column)
        for _ in range(row):  # back along the path; at column 0 nothing changes any more
            earlier = before.gather(1, column)
            row_of = row_of.scatter(1, column, row_of.gather(1, earlier))
            column = earlier
    taken = row_of[:, 1:]  # [N, C], rows from 1 on
    places = torch.arange(columns, device=device).expand(problems, -1)
    return torch.zeros(problems, rows + 1, dtype=torch.int64, device=device).scatter(1, taken, places)[:, 1:]
