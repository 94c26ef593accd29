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
    mean, std = (torch.tensor(v, device=crop.device).view(3, 1, 1) for v in (config.clip_mean, config.clip_std))
    normalised = ((crop / 255 - mean) / std)[None]
    pixels = F.interpolate(normalised, (config.crop_size,) * 2, mode="bilinear", align_corners=False)
    features = dense_features(clip, pixels.to(clip.dtype))  # [1, D, g, g]
    return F.normalize(features.flatten(2)[0], dim=0)


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
