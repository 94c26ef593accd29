"""Attention control: parts of one object attend to different places, and the weakest of them attends enough.

Choi et al., "Understanding Multi-Granularity for Open-Vocabulary Part Segmentation" (NeurIPS 2024), in two
readings with the same arguments and the same result, (separation, enhancement), two scalars:

Args:
    attention: `[P, T, T]`, rows are queries, the class token first; T = g·g' + 1.
    pairs: int64 `[P, 2]`, (photo, class), each at most once, from `present_pairs`.
    part_labels: int64 `[B, h, w]`, object-part index or negative.
    object_labels: int64 `[B, h, w]`, object index or negative.
    class_to_object: int64 `[N_c]`.
    threshold: γ, attention (of the part's own maximum, 0 to 1) above which a part claims a token.
    sigma: width of the 3×3 smoothing.
    counts: denominators of the means over the whole batch, if this is a micro-batch of it; None for this batch.

Shapes: n = g·g' tokens. Neither reading waits for the device; memory grows with P.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.losses.labels import downsample_labels, shown, token_grid
from partclipseg.losses.masks import LossCounts


def differentiable_control(
    attention: Tensor,
    pairs: Tensor,
    part_labels: Tensor,
    object_labels: Tensor,
    class_to_object: Tensor,
    threshold: float,
    sigma: float,
    counts: LossCounts | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the intended losses: both terms have a gradient, and an object is compared with its own parts only.

    For each part c that the token grid still shows, with its tokens M_c and its object's tokens O:

        a_c = mean of the rows of A_c inside M_c                     (a share of attention for every token)
        n_c = smooth((a_c - min a_c) / max(max a_c - min a_c, 1/n))
        b_c = max(0, n_c - γ) / (1 - γ) inside O, 0 outside

    Separation, for an object with k >= 2 such parts: Jaccard index (overlap over union) of the soft maps,

        shared = Σ_x Σ_{c≠d} b_c b_d / (k - 1),   own = Σ_x Σ_c b_c²,   L_sep = shared / max(2 own - shared, 1)

    For two hard maps this is |both| / |either|, the paper's overlap over union; it is 0 for disjoint maps, 1 for
    equal ones, and no order of parts enters. Averaged over the objects with k >= 2.

    Enhancement, for every object with such parts:

        q_c = min(1, max_{x in M_c} smooth(a_c) / max smooth(1_{M_c} / |M_c|)),   L_enh = 1 - min_c q_c

    the paper's "one minus the weakest part's peak", the peak measured in units of the one that the part reaches by
    attending evenly to itself. A share of attention peaks near 1/area, so a bare peak would call every large part
    weak; in these units a part of any size gives 1 when its attention is its own. Averaged over objects.

    Chosen so that the terms cannot work against the segmentation:

    - The gradient of L_sep reaches b_c only outside M_c: where maps meet, a part keeps its own tokens and the
      others yield. Without that, a part that is attended by others would be pushed off itself.
    - Minimum, maximum and union are constants for the gradient. Through a maximum, an overlap anywhere would
      sharpen the peak wherever that is; through the union, it would be paid with more attention everywhere.
    - Denominators have floors, the even share 1/n for the contrast and one token for the union: nearly even
      attention has no peak, and to stretch its noise to full scale would stretch its gradient with it.
    """
    grid = token_grid(attention.shape[-1] - 1, (part_labels.shape[-2], part_labels.shape[-1]))
    part_mask, object_mask, same_object = _on_grid(grid, pairs, part_labels, object_labels, class_to_object)
    present = part_mask.any(1)  # [P], the rest is too small for the grid
    same_object = (same_object & present).to(attention.dtype)  # [P, P], each pair's object's present parts
    mates = same_object.sum(1)  # [P], k
    mean_rows = _row_sum(attention, part_mask) / part_mask.sum(1, keepdim=True).clamp(min=1)  # [P, n], a_c

    fixed = mean_rows.detach()
    least, most = fixed.amin(1, keepdim=True), fixed.amax(1, keepdim=True)
    contrast = (most - least).clamp(min=1 / fixed.shape[1])
    claim = (_smooth((mean_rows - least) / contrast, grid, sigma) - threshold).relu() / (1 - threshold)
    claim = claim * (object_mask & present.unsqueeze(1))
    claim = torch.where(part_mask, claim.detach(), claim)  # [P, n], b_c: a part keeps its own tokens
    shared = same_object @ (claim * (same_object @ claim - claim)).sum(1) / (mates - 1).clamp(min=1)  # [P]
    own = same_object @ claim.square().sum(1)
    separation = shared / (2 * own - shared).detach().clamp(min=1)

    own_tokens = part_mask.to(attention.dtype)
    even = _smooth(own_tokens / own_tokens.sum(1, keepdim=True).clamp(min=1), grid, sigma).amax(1)  # [P]
    peak = (_smooth(mean_rows, grid, sigma) * part_mask).amax(1)
    strength = (peak / torch.where(present, even, 1)).clamp(max=1)
    weakest = torch.where(same_object.bool(), strength, 1).amin(1) if len(pairs) else strength  # [P]
    if counts is None:
        separated, enhanced = objects_on_grid(grid, pairs, part_labels, object_labels, class_to_object)
    else:
        separated, enhanced = counts.separated, counts.enhanced
    return (
        _sum_over_objects(separation, mates, present & (mates > 1)) / separated.clamp(min=1),
        _sum_over_objects(1 - weakest, mates, present) / enhanced.clamp(min=1),
    )


def objects_on_grid(
    grid: tuple[int, int], pairs: Tensor, part_labels: Tensor, object_labels: Tensor, class_to_object: Tensor
) -> tuple[Tensor, Tensor]:
    """Count the objects that the intended losses separate and enhance: two parts or more on the grid, and any."""
    part_mask, _, same_object = _on_grid(grid, pairs, part_labels, object_labels, class_to_object)
    present = part_mask.any(1)
    mates = (same_object & present).sum(1)
    ones = torch.ones(len(pairs), device=pairs.device)
    return _sum_over_objects(ones, mates, present & (mates > 1)), _sum_over_objects(ones, mates, present)


def reference_control(
    attention: Tensor,
    pairs: Tensor,
    part_labels: Tensor,
    object_labels: Tensor,
    class_to_object: Tensor,
    threshold: float,
    sigma: float,
    counts: LossCounts | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the released losses, value for value; separation has no gradient.

    - Every object of a photo is compared with all parts of the photo, its own or not, lost on the grid or not
      (a lost one has the peak 0).
    - A photo without any negative object label loses its last object; photos without parts count no object.
    - `a_c` is averaged over all n rows, so peaks scale with the part's area.
    - Sums over objects are divided by the number of objects and once more by the number of photos.
    """
    batch, num_classes = len(part_labels), len(class_to_object)
    grid = token_grid(attention.shape[-1] - 1, (part_labels.shape[-2], part_labels.shape[-1]))
    part_mask, _, _ = _on_grid(grid, pairs, part_labels, object_labels, class_to_object)
    photo, index = pairs.unbind(1)
    part_shown = shown(part_labels, num_classes)  # [B, N_c]
    listed = part_shown[photo, index]  # [P], the others went lost between the photo's size and the logits'

    mean_rows = _row_sum(attention, part_mask) / part_mask.shape[1]  # [P, n]
    least, most = mean_rows.amin(1, keepdim=True), mean_rows.amax(1, keepdim=True)
    scaled = (mean_rows - least) / (most - least + 1e-9)
    claims = (_smooth(scaled, grid, sigma) > threshold) & listed.unsqueeze(1)
    votes = claims.new_zeros(batch, claims.shape[1], dtype=torch.long).index_add(0, photo, claims.long())  # [B, n]
    peak = torch.where(listed, _smooth(mean_rows, grid, sigma).amax(1), 1)
    weakest = peak.new_ones(batch).scatter_reduce(0, photo, peak, "amin")  # [B]

    objects = listed_objects(part_labels, object_labels, num_classes)  # [B, N_o <= N_c]
    token_object = downsample_labels(object_labels, grid).flatten(1)  # [B, n]
    bins = token_object.clamp(min=-1) + 1
    zeros = weakest.new_zeros(batch, num_classes + 1)
    overlap = zeros.scatter_add(1, bins, (votes > 1).to(zeros.dtype))[:, 1:]  # [B, N_c]
    union = zeros.scatter_add(1, bins, (votes >= 1).to(zeros.dtype))[:, 1:]
    listed, photos = (objects.sum(), batch) if counts is None else (counts.listed, counts.photos)
    divisor = listed.clamp(min=1) * photos
    separation = (overlap / (union + 1e-9) * objects).sum() / divisor
    enhancement = ((1 - weakest) * objects.sum(1)).sum() / divisor
    return separation, enhancement


def listed_objects(part_labels: Tensor, object_labels: Tensor, num_classes: int) -> Tensor:
    """Return the objects of each photo that the released code loops over: bool `[B, N_c]`, longer than the objects."""
    objects = shown(object_labels, num_classes)
    numbers = torch.arange(num_classes, device=objects.device)
    last = torch.where(objects, numbers, -1).amax(1, keepdim=True)
    any_negative = (object_labels < 0).flatten(1).any(1, keepdim=True)
    any_part = shown(part_labels, num_classes).any(1, keepdim=True)
    return objects & (any_negative | (numbers != last)) & any_part


def _on_grid(
    grid: tuple[int, int], pairs: Tensor, part_labels: Tensor, object_labels: Tensor, class_to_object: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return on the token grid part and object masks of each pair, bool `[P, n]`, and pairs of one object `[P, P]`."""
    photo, index = pairs.unbind(1)  # [P]
    of_object = class_to_object[index]
    part_mask = downsample_labels(part_labels, grid).flatten(1)[photo] == index.unsqueeze(1)
    object_mask = downsample_labels(object_labels, grid).flatten(1)[photo] == of_object.unsqueeze(1)
    same_object = (photo.unsqueeze(1) == photo) & (of_object.unsqueeze(1) == of_object)
    return part_mask, object_mask, same_object


def _row_sum(attention: Tensor, part_mask: Tensor) -> Tensor:
    """Sum each pair's attention rows inside its part, without the class token: `[P, T, T]` → `[P, n]`."""
    rows = part_mask.to(attention.dtype).unsqueeze(1)  # [P, 1, n]
    return (rows @ attention[:, 1:, 1:]).squeeze(1)


def _smooth(maps: Tensor, grid: tuple[int, int], sigma: float) -> Tensor:
    """Smooth `[P, n]` on the grid, separable 3×3, borders reflected; weights ∝ exp(-(x / 2σ)²), x = -1, 0, 1."""
    side = math.exp(-((0.5 / sigma) ** 2))
    centre, side = 1 / (1 + 2 * side), side / (1 + 2 * side)
    mode = "reflect" if min(grid) > 1 else "replicate"  # a single row has nothing to reflect
    padded = F.pad(maps.unflatten(1, grid).unsqueeze(1), (1, 1, 1, 1), mode=mode)  # [P, 1, g + 2, g' + 2]
    rows = centre * padded[..., 1:-1, :] + side * (padded[..., :-2, :] + padded[..., 2:, :])
    both = centre * rows[..., 1:-1] + side * (rows[..., :-2] + rows[..., 2:])
    return both.flatten(1)


def _sum_over_objects(values: Tensor, mates: Tensor, counted: Tensor) -> Tensor:
    """Sum values `[P]` over objects; all `mates` pairs of an object repeat its value."""
    return (values * (counted / mates.clamp(min=1))).sum()
