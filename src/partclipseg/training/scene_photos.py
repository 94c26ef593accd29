"""Random changes to rendered scenes on their device: mirrored, and recoloured."""

from __future__ import annotations

import torch
from torch import Tensor


def photos_of(scenes: Tensor, rows: Tensor) -> Tensor:
    """Gather the scenes `rows [B]` of uint8 `[N, S, S, 3]` as float32 `[B, 3, S, S]` in 0..1."""
    return scenes[rows].permute(0, 3, 1, 2).float() / 255


def draw_mirrored(photos: Tensor) -> Tensor:
    """Draw which of the photos `[B, …]` are mirrored, each with probability one half: bool `[B, 1, 1]`."""
    return torch.rand(len(photos), 1, 1, device=photos.device) < 0.5


def flip(maps: Tensor, mirrored: Tensor) -> Tensor:
    """Flip the maps `[B, S, S]`, or photos `[B, C, S, S]`, that are `mirrored`, bool `[B, 1, 1]`."""
    return torch.where(mirrored.unsqueeze(1) if maps.ndim == 4 else mirrored, maps.flip(-1), maps)


def recolour(photos: Tensor, gain: float, shift: float) -> Tensor:
    """Multiply each channel of each photo `[B, 3, S, S]` by a random number, add one to each photo, and cut to 0..1.

    The numbers lie within half of `gain` around 1, and within half of `shift` around 0.
    """
    batch, device = len(photos), photos.device
    gains = 1 + gain * (torch.rand(batch, 3, 1, 1, device=device) - 0.5)
    shifts = shift * (torch.rand(batch, 1, 1, 1, device=device) - 0.5)
    return (photos * gains + shifts).clamp(0, 1)
