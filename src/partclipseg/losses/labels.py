"""Label maps in the forms that the losses need: resized, on the token grid, and as lists of classes shown."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.data.sample import UNLABELLED


def downsample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a label map `[B, H, W]` of any integer type to int64 `[B, h, w]` by torch's "nearest"."""
    if tuple(labels.shape[-2:]) == size:
        return labels.long()
    # float32 holds every integer below 2^24, far more than any vocabulary has classes.
    return F.interpolate(labels.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).long()


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns (g, g') of `tokens` square patches that cover a photo of `size` = (h, w)."""
    patch = math.sqrt(size[0] * size[1] / tokens)
    grid = round(size[0] / patch), round(size[1] / patch)
    if grid[0] * grid[1] != tokens:
        raise ValueError(f"{tokens} tokens are no grid of square patches over {size[0]} x {size[1]} logits")
    return grid


def shown(labels: Tensor, count: int) -> Tensor:
    """Return the indices below `count` that occur in each label map: integer `[B, H, W]` → bool `[B, count]`."""
    found = torch.zeros(len(labels), count + 1, dtype=torch.bool, device=labels.device)
    found.scatter_(1, labels.flatten(1).long().clamp(min=-1) + 1, True)
    return found[:, 1:]


def present_pairs(part_labels: Tensor, num_classes: int, capacity: int | None = None) -> Tensor:
    """Return the (photo, class) pairs whose attention the loss needs: the object-parts that each photo shows.

    No term uses an object's own attention, so it is not listed. The number of pairs depends on the data: on a GPU this
    waits for the device, unless `capacity` sets the number. Pairs that no photo shows then fill the rest and count in
    no term; if more than `capacity` are shown, the surplus is dropped.

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


def one_object(
    part_labels: Tensor, object_labels: Tensor, class_to_object: Tensor, draws: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose one of the objects whose parts each photo shows; return its part labels alone, and its mask.

    Nothing here waits for the device.

    Args:
        part_labels: integer `[B, H, W]`, object-part index or negative.
        object_labels: integer `[B, H, W]`, object index or negative.
        class_to_object: int64 `[N_c]`.
        draws: float `[B, N_o]`, random numbers from 0 on: the greatest among the objects of a photo chooses.

    Returns int64 `[B, H, W]`, where other objects' parts are `UNLABELLED`, and bool `[B, H, W]`. A photo without any
    part has no label left.
    """
    parts = part_labels.long()
    owners = torch.where(parts >= 0, class_to_object[parts.clamp(min=0)], -1)
    present = shown(owners, draws.shape[1])  # [B, N_o]
    chosen = torch.where(present, draws, -1.0).argmax(1)[:, None, None]
    return torch.where(owners == chosen, parts, UNLABELLED), object_labels == chosen


def list_present(labels: Tensor, count: int, most: int) -> tuple[Tensor, Tensor]:
    """List the indices below `count` that occur in each label map, at most `most` of them, without waiting.

    Args:
        labels: integer `[B, H, W]`.
        count: number of indices.
        most: number of entries of each list, M; at most `count` are given.

    Returns int64 `[B, M]` and bool `[B, M]`: the entries that do occur; the others fill the rest.
    """
    found = shown(labels, count)
    indices = found.to(torch.uint8).topk(min(most, count)).indices
    return indices, found.gather(1, indices)
