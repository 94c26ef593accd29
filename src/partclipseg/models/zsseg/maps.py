"""Label maps: the greatest geometric mean of both stages' scores, at the photo's own size.

Letters in shapes: K object-parts, H x W a photo, h x w the photo as stage 1 sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.maps.label_maps import BACKGROUND, LabelMaps, no_object
from partclipseg.models.clip_towers import admitted
from partclipseg.models.interface import Words
from partclipseg.models.zsseg.config import ZSSegConfig
from partclipseg.models.zsseg.outputs import ZSSegOutput
from partclipseg.models.zsseg.regions import class_scores

CLASSES_AT_ONCE = 16
"""Number of classes that are enlarged to the photo's size together, to save memory."""


def best_maps(
    config: ZSSegConfig,
    output: ZSSegOutput,
    inputs: Mapping[str, Tensor],
    words: Words,
    sizes: Sequence[tuple[int, int]],
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> list[LabelMaps]:
    """Label B photos, whose `output` is given; other arguments as in `PartModel.label_maps`."""
    maps = []
    device = words.class_to_object.device
    owners = F.pad(words.class_to_object, (0, 1), value=BACKGROUND)  # label -1 reads the last entry
    for index, size in enumerate(sizes):
        present = None if present_objects is None else present_objects[index]
        rivals = _rivals(config, words, present)
        if not len(rivals):
            maps.append(no_object(size, device))
            continue
        height, width = inputs["photo_sizes"][index].tolist()
        masks, classes, regions = output.photo(index)
        first = class_scores(masks, classes, (height, width))
        best, labels = torch.full(size, -1.0, device=device), torch.full(size, BACKGROUND, device=device)
        for chosen in rivals.split(CLASSES_AT_ONCE):
            value, winner = _enlarged(final_scores(first, regions, rivals, chosen), size).max(0)
            labels = torch.where(value > best, chosen[winner], labels)
            best = torch.maximum(best, value)
        if present is None or with_background:
            none = _enlarged(first[-1:], size)[0]
            labels, best = labels.masked_fill(none > best, BACKGROUND), torch.maximum(none, best)
        maps.append(LabelMaps(labels, owners[labels], best.clamp(0, 1)))
    return maps


def final_scores(first: Tensor, regions: Tensor, rivals: Tensor, chosen: Tensor) -> Tensor:
    """Return the final scores `[n, h, w]` of the `chosen` classes.

    They are the geometric mean of both stages'. Stage 2's are probabilities among the `rivals`, of the word that wins
    stage 1 at each pixel, and 0 where that word wins nowhere on the object.

    Args:
        first: scores of stage 1, `[K + 1, h, w]`, background last.
        regions: logits of stage 2, `[K, K]`; see `regions.region_logits`.
        rivals: classes that compete, int64 `[m]`.
        chosen: classes to score, int64 `[n]`, which are among the `rivals`.
    """
    labels = first[:-1].argmax(0)  # [h, w]
    second = regions[:, rivals].softmax(-1)[:, torch.isin(rivals, chosen)]  # [K, n]
    second = second * regions.any(1, keepdim=True)
    return (first[chosen] * second.T[:, labels]).sqrt()


def _rivals(config: ZSSegConfig, words: Words, present: Sequence[int] | None) -> Tensor:
    """Return the classes that compete, int64 `[m]`: all, or those of the objects that are present."""
    owners = words.class_to_object
    if present is None:
        return torch.arange(len(owners), device=owners.device)
    return owners.new_tensor(admitted(config, words.vocabulary, present))


def _enlarged(scores: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
