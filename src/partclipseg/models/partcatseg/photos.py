"""Make the inputs of the two towers from photos: resized, normalised, and in reference mode padded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.data.photo_size import size_at_shortest_edge
from partclipseg.data.resize import resize_photo
from partclipseg.machine import usable_cores
from partclipseg.maps.upsample import upload
from partclipseg.models.partcatseg.config import CATSegConfig


def model_inputs(
    config: CATSegConfig, photos: Sequence[np.ndarray] | Tensor, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Make the inputs of photos, on `device`.

    Args:
        config: of the model.
        photos: uint8 `[H, W, 3]` RGB of any sizes, which are first resized to `config.shortest_edge`; or, in
            training, a tensor `[B, 3, H, W]`, uint8 or float in 0..1, taken at its own size.
        device: of the model.
        dtype: of the model.

    Returns `pixel_values [B, 3, S, S]`, CLIP's input; `guidance_pixels [B, 3, S', S']`, the guidance tower's; and
    `photo_sizes` int64 `[B, 2]`, height and width before the last resizing.
    """
    # Half precision would round the pixels before they are resized.
    work = torch.promote_types(dtype, torch.float32)
    if isinstance(photos, Tensor):
        values = photos.to(device, non_blocking=True)
        pixels = [values.to(work) * 255 if values.is_floating_point() else values.to(work)]  # [B, 3, H, W]
        sizes = [tuple(photos.shape[-2:])] * len(photos)
    else:
        resized = _resized(photos, config)
        pixels = [upload(photo, device).permute(2, 0, 1)[None].to(work) for photo in resized]  # [1, 3, H, W] each
        sizes = [photo.shape[:2] for photo in resized]
    towers = (
        ("pixel_values", config.image_mean, config.image_std, config.image_size),
        ("guidance_pixels", config.guidance_mean, config.guidance_std, int(config.guidance_image_size or 0)),
    )
    inputs = {}
    for name, mean, std, edge in towers:
        center, spread = (torch.tensor(v, dtype=torch.float32).to(device, work).view(3, 1, 1) for v in (mean, std))
        of_photos = [_input((photo - center) / spread, edge, config) for photo in pixels]
        inputs[name] = torch.cat(of_photos).to(dtype)
    return {**inputs, "photo_sizes": upload(np.array(sizes, np.int64).reshape(-1, 2), device)}


def _resized(photos: Sequence[np.ndarray], config: CATSegConfig) -> list[np.ndarray]:
    """Resize photos for the first time, in threads: one takes some 5 ms of a core, longer than a GPU needs for it."""

    def resize(photo: np.ndarray) -> np.ndarray:
        return np.array(resize_photo(photo, first_size(photo.shape[:2], config)))  # a copy, which may be written to

    threads = min(len(photos), usable_cores())
    if threads < 2:
        return [resize(photo) for photo in photos]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(resize, photos))


def first_size(size: tuple[int, ...], config: CATSegConfig) -> tuple[int, int]:
    """Return height and width after the first resizing, to `shortest_edge` or, where that is less, `longest_edge`."""
    if config.shortest_edge is None:
        return size[0], size[1]
    return size_at_shortest_edge(size, config.shortest_edge, config.longest_edge)


def _input(pixels: Tensor, edge: int, config: CATSegConfig) -> Tensor:
    """Pad normalised photos `[B, 3, H, W]`, unless that is repaired, and resize them to `[B, 3, edge, edge]`."""
    if not config.repaired("padding"):
        # Each photo on its own: as released, photos pass one at a time.
        bottom, right = (-length % config.size_divisibility for length in pixels.shape[-2:])
        pixels = F.pad(pixels, (0, right, 0, bottom))
    return F.interpolate(pixels, (edge, edge), mode="bilinear", align_corners=False)
