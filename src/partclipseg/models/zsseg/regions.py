"""Stage 2: CLIP's patch features of the regions that stage 1 found, compared with the words.

All regions are looked at in one crop around the object, without masking the photo. Letters in shapes: R regions, K
words, D joint width of CLIP, h x w the photo at stage 1's size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from partclipseg.models.clip_dense import dense_features
from partclipseg.models.zsseg.config import ZSSegConfig
from partclipseg.models.zsseg.proposals import SCALE


def class_scores(mask_logits: Tensor, class_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Combine the proposals to scores of every word, `[K, h, w]`: the sum over the queries of class and mask.

    Args:
        mask_logits: `[Q, H/4, W/4]` of the padded photo.
        class_logits: `[Q, K]`.
        size: height and width of the photo without padding.
    """
    padded = tuple(4 * edge for edge in mask_logits.shape[-2:])
    masks = F.interpolate(mask_logits[None], padded, mode="bilinear", align_corners=False)[0].sigmoid()
    masks = masks[:, : size[0], : size[1]]
    return torch.einsum("qk,qhw->khw", class_logits.softmax(-1), masks)


def region_logits(
    config: ZSSegConfig,
    clip: CLIPModel,
    fuse_weight: Tensor,
    image: Tensor,
    inside: Tensor,
    labels: Tensor,
    texts: Tensor,
) -> Tensor:
    """Compute logits `[K, K]`: row k those of the region labelled k, 0 where there is none.

    Args:
        config: of the model.
        clip: its towers.
        fuse_weight: weight of the region's features; the rest is the object's.
        image: float `[3, h, w]` in 0..255.
        inside: bool `[h, w]`: the object.
        labels: int64 `[h, w]`: the word that wins stage 1 at each pixel.
        texts: unit vectors `[K, D]`.
    """
    logits = torch.zeros(len(texts), len(texts), device=texts.device)
    found = labels[inside].unique()
    if not len(found):
        return logits
    regions = (labels == found[:, None, None]) & inside  # [R, h, w]
    top, bottom, left, right = crop_box(inside, config.crop_scale)
    masks = torch.cat([inside[None], regions])[:, None, top:bottom, left:right].to(texts.dtype)  # [1 + R, 1, …]
    patches = patch_features(config, clip, image[:, top:bottom, left:right])  # [D, g·g]
    masks = F.interpolate(masks, (config.crop_size,) * 2, mode="nearest")
    pooled = F.max_pool2d(masks, int(config.vision_config.patch_size)).flatten(1)  # [1 + R, g·g]
    means = pooled @ patches.T.to(pooled.dtype) / (pooled.sum(1, keepdim=True) + 1e-6)  # [1 + R, D]
    weight = fuse_weight.to(means.dtype)
    features = weight * means[1:] + (1 - weight) * means[:1]  # not normalised again, as released
    logits[found] = SCALE * (features @ texts.T).float()
    return logits


def patch_features(config: ZSSegConfig, clip: CLIPModel, crop: Tensor) -> Tensor:
    """Compute CLIP's unit vectors `[D, g·g]` of the patches of a crop, float `[3, h, w]` in 0..255."""
    colours = [torch.tensor(v, device=crop.device).view(3, 1, 1) for v in (config.clip_mean, config.clip_std)]
    square = F.interpolate(crop[None], (config.crop_size,) * 2, mode="bilinear", align_corners=False)
    return crop_features(clip, square, *colours)[0]


def crop_features(clip: CLIPModel, crops: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Compute CLIP's unit vectors `[B, D, g·g]` of the patches of crops.

    Args:
        clip: its towers.
        crops: float `[B, 3, s, s]` in 0..255.
        mean, std: `[3, 1, 1]`, CLIP's own of colours in 0..1.
    """
    pixels = (crops / 255 - mean) / std
    return F.normalize(dense_features(clip, pixels.to(clip.dtype)).flatten(2), dim=1)


def crop_grid(inside: Tensor, scale: float, side: int) -> Tensor:
    """Make the grid that samples a square crop around each object, for `F.grid_sample`; nothing waits for the device.

    Args:
        inside: bool `[B, H, W]`: the objects; one without a pixel counts as the whole photo.
        scale: side of the crop as a multiple of the object's box.
        side: height and width of the crop, in pixels.

    Returns float32 `[B, side, side, 2]`.
    """
    axes = []
    for axis in (1, 2):  # rows of W first, then columns of H
        shown = inside.any(axis)  # [B, W] or [B, H]
        shown = shown | ~shown.any(1, keepdim=True)
        length = shown.shape[1]
        first = shown.int().argmax(1)
        last = length - shown.flip(1).int().argmax(1)
        middle, half = (first + last) / 2, scale * (last - first) / 2
        low, high = (middle - half).clamp(min=0).floor(), (middle + half).clamp(max=length).floor()
        steps = (torch.arange(side, device=inside.device) + 0.5) / side
        axes.append(2 * (low[:, None] + steps * (high - low)[:, None]) / length - 1)  # [B, side]
    columns, rows = axes
    return torch.stack([columns[:, None].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], dim=-1)


def true_region_features(
    labels: Tensor, inside: Tensor, classes: Tensor, patches: Tensor, fuse_weight: Tensor, patch: int
) -> Tensor:
    """Compute the features `[B, M, D]` of true parts as `region_logits` computes those of found ones.

    Args:
        labels: integer `[B, s, s]`, part labels of the crops.
        inside: bool `[B, s, s]`, the objects in the crops.
        classes: int64 `[B, M]`, the parts.
        patches: unit vectors `[B, D, g·g]` of the crops' patches.
        fuse_weight: weight of the region's features; the rest is the object's.
        patch: side of a patch in pixels.
    """
    regions = torch.cat([inside[:, None], labels[:, None] == classes[..., None, None]], dim=1)  # [B, 1 + M, s, s]
    pooled = F.max_pool2d(regions.float(), patch).flatten(2)  # [B, 1 + M, g·g]
    means = pooled @ patches.float().mT / (pooled.sum(-1, keepdim=True) + 1e-6)  # [B, 1 + M, D]
    return fuse_weight * means[:, 1:] + (1 - fuse_weight) * means[:, :1]


def crop_box(inside: Tensor, scale: float) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the object's box, scaled about its centre and cut to the photo."""
    edges: list[int] = []
    for axis in (1, 0):
        places = inside.any(axis).nonzero()[:, 0]
        first, last = int(places[0]), int(places[-1]) + 1
        middle, half = (first + last) / 2, scale * (last - first) / 2
        edges += [max(0, int(middle - half)), min(inside.shape[1 - axis], int(middle + half))]
    top, bottom, left, right = edges
    return top, max(bottom, top + 1), left, max(right, left + 1)
