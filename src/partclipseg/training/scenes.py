"""Scenes of PartShapes on a device, mirrored and recoloured at random, for the training of towers.

Random numbers come from torch's generator of the device.
"""

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
        pixels = as_pixels(self.photos[rows])
        mirrored = draw_mirrored(len(rows), pixels.device)
        return recolour(mirror(pixels, mirrored)), *(mirror(maps[rows], mirrored) for maps in self.labels)


def as_pixels(photos: Tensor) -> Tensor:
    """Turn photos uint8 `[B, S, S, 3]` into float32 `[B, 3, S, S]` in 0..1."""
    return photos.permute(0, 3, 1, 2).float() / 255


def draw_mirrored(count: int, device: torch.device) -> Tensor:
    """Draw which scenes are mirrored, every other one on average: bool `[count]`."""
    return torch.rand(count, device=device) < 0.5


def mirror(maps: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror maps `[B, …, W]` of the scenes `mirrored`, bool `[B]`."""
    return torch.where(mirrored.view(-1, *[1] * (maps.ndim - 1)), maps.flip(-1), maps)


def recolour(pixels: Tensor) -> Tensor:
    """Change contrast by up to 15 % for each channel and brightness by up to a tenth: `[B, 3, S, S]` in 0..1."""
    batch, device = len(pixels), pixels.device
    gain = 1 + 0.3 * (torch.rand(batch, 3, 1, 1, device=device) - 0.5)
    shift = 0.2 * (torch.rand(batch, 1, 1, 1, device=device) - 0.5)
    return (pixels * gain + shift).clamp(0, 1)
