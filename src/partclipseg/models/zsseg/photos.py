"""Put photos, and the masks of their objects, on the square canvases that ZSSeg+ takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.data.photo_size import size_at_shortest_edge
from partclipseg.data.resize import resize_photo
from partclipseg.models.zsseg.config import ZSSegConfig


def photos_on_canvases(
    config: ZSSegConfig, photos: Sequence[np.ndarray] | Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Put each photo in the upper left corner of a black square of side C, on `device`.

    Args:
        config: of the model.
        photos: uint8 `[H, W, 3]` RGB of any sizes, which are resized to `config.shortest_edge`; or a tensor
            `[B, 3, h, w]`, uint8 or float in 0..1, of at most the canvas's size, taken as it is.
        device: of the model.

    Returns `pixel_values` float32 `[B, 3, C, C]` in 0..255, and `photo_sizes` int64 `[B, 2]`: height and width there.
    """
    canvas = torch.zeros(len(photos), 3, *config.image_shape, device=device)
    if isinstance(photos, Tensor):
        values = photos.to(device, non_blocking=True)
        canvas[:, :, : values.shape[2], : values.shape[3]] = values * 255 if values.is_floating_point() else values
        sizes = [tuple(values.shape[2:])] * len(values)
    else:
        sizes = [first_size(photo.shape[:2], config) for photo in photos]
        for place, photo, (height, width) in zip(canvas, photos, sizes, strict=True):
            resized = torch.from_numpy(np.array(resize_photo(photo, (height, width))))
            place[:, :height, :width] = resized.to(device).permute(2, 0, 1)
    shapes = torch.tensor(sizes, dtype=torch.int64).view(-1, 2)
    return {"pixel_values": canvas, "photo_sizes": shapes.to(device, non_blocking=True)}


def first_size(size: tuple[int, ...], config: ZSSegConfig) -> tuple[int, int]:
    """Return the size of a photo of height and width `size` at `config.shortest_edge`."""
    return size_at_shortest_edge(size, config.shortest_edge, config.longest_edge)


def masks_on_canvases(
    config: ZSSegConfig, masks: Sequence[Tensor] | Tensor, photo_sizes: Tensor, device: torch.device
) -> Tensor:
    """Put the mask of each photo's object where its photo is on the canvas: bool `[B, C, C]` on `device`.

    Args:
        config: of the model.
        masks: bool `[H, W]` each at the photo's own size; or a tensor `[B, C, C]`, which is taken as it is.
        photo_sizes: int64 `[B, 2]`, as `photos_on_canvases` returns them.
        device: of the model.
    """
    if isinstance(masks, Tensor) and masks.shape[1:] == config.image_shape:
        return masks.to(device)
    canvas = torch.zeros(len(masks), *config.image_shape, dtype=torch.bool, device=device)
    for place, mask, size in zip(canvas, masks, photo_sizes.tolist(), strict=True):
        resized = F.interpolate(mask[None, None].to(device, torch.float32), size, mode="nearest")[0, 0] > 0.5
        place[: size[0], : size[1]] = resized
    return canvas
