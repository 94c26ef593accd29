"""Random changes to rendered scenes on their device: mirrored, and recoloured."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from partclipseg.shapes.cache import SceneArrays


class LabelledScenes:
    """Photos of scenes on a device, with any number of label maps."""

    def __init__(self, scenes: SceneArrays, device: torch.device, *labels: np.ndarray) -> None:
        """Put the photos and `labels`, integers `[N, S, S]` each, on the device."""
        self.photos = torch.from_numpy(np.array(scenes.images)).to(device)  # uint8 [N, S, S, 3]
        self.labels = [torch.from_numpy(np.array(maps)).to(device) for maps in labels]

    def __call__(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return changed photos `[B, 3, S, S]` in 0..1 of the scenes `rows [B]`, and their label maps `[B, S, S]`."""
        photos = photos_of(self.photos, rows)
        mirrored = draw_mirrored(photos)
        photos = recolour(flip(photos, mirrored), gain=0.3, shift=0.2)
        return photos, *(flip(maps[rows], mirrored) for maps in self.labels)


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
