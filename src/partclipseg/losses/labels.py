"""Label maps as the losses need them: other sizes, the token grid, and what a photo shows."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Label map `[B, H, W]` of any integer type → int64 `[B, h, w]`, nearest neighbour (torch's "nearest")."""
    if tuple(labels.shape[-2:]) == size:
        return labels.long()
    # float32 holds every integer below 2^24, far more than any vocabulary has classes.
    return F.interpolate(labels.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).long()


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns (g, g') of `tokens` square patches that cover a photo of `size` = (h, w)."""
    patch = math.sqrt(size[0] * size[1] / tokens)
    grid = round(size[0] / patch), round(size[1] / patch)
    if grid[0] * grid[1] != tokens:
        raise ValueError(f"{tokens} tokens are no grid of square patches over {size[0]} x {size[1]} logits")
    return grid


def shown(labels: Tensor, count: int) -> Tensor:
    """Which of `count` indices occur in each label map: integer `[B, H, W]` → bool `[B, count]`."""
    found = torch.zeros(len(labels), count + 1, dtype=torch.bool, device=labels.device)
    found.scatter_(1, labels.flatten(1).long().clamp(min=-1) + 1, True)
    return found[:, 1:]


def present_pairs(part_labels: Tensor, num_classes: int, capacity: int | None = None) -> Tensor:
    """The (photo, class) pairs whose attention the loss needs: the object-parts that each photo shows.

    An object's own attention is in none of the terms, so it is not asked for. How many pairs there are is data: on
    a GPU this waits for the device, unless `capacity` says how many to return. Pairs that no photo shows then fill
    the rest, which no term counts; of more than `capacity` shown ones the surplus is left out.

    Args:
        part_labels: integer `[B, H, W]`, object-part index or negative.
        num_classes: `N_c`.
        capacity: number of pairs to return, at most `B · N_c`.

    Returns int64 `[P, 2]`; without `capacity` ordered by photo, then class.
    """
    seen = shown(part_labels, num_classes)  # [B, N_c]
    if capacity is None:
        return seen.nonzero()
    chosen = seen.flatten().to(torch.uint8).topk(min(capacity, seen.numel())).indices
    return torch.stack([chosen // num_classes, chosen % num_classes], dim=1)
