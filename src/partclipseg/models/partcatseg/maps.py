"""Label maps: the greatest probability after resizing, of the classes that may win."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.clip_towers import admitted
from partclipseg.models.interface import Words
from partclipseg.models.partcatseg.aggregator import CLASSES_AT_ONCE, AppearanceGuidance

if TYPE_CHECKING:
    from partclipseg.models.partcatseg.config import CATSegConfig
    from partclipseg.models.partcatseg.model import CATSegModel

PROBABILITIES_AT_ONCE = 1 << 25
"""Number of probabilities at photo size in memory at a time."""


@torch.inference_mode()
def decoded_maps(
    model: CATSegModel,
    inputs: Mapping[str, Tensor],
    words: Words,
    sizes: Sequence[tuple[int, int]],
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> list[LabelMaps]:
    """Label B photos; arguments as in `CATSegModel.label_maps`.

    Classes meet in the aggregation, but are decoded each alone: those that cannot win are left out.
    """
    volume, guidance = model.class_volume(inputs, words)

    def decode(index: int, classes: Tensor) -> Tensor:
        photo = AppearanceGuidance(*(level[index : index + 1] for level in guidance))
        return model.aggregator.decode(volume.embedding[index : index + 1, classes], photo)[0]  # [k, 4g, 4g]

    return chosen_maps(model.config, inputs, words, sizes, present_objects, with_background, decode)


@torch.no_grad()
def chosen_maps(
    config: CATSegConfig,
    inputs: Mapping[str, Tensor],
    words: Words,
    sizes: Sequence[tuple[int, int]],
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
    logits_of: Callable[[int, Tensor], Tensor],
) -> list[LabelMaps]:
    """Label B photos by `logits_of`: the logits `[k, h, w]` of a photo's index and classes, int64 `[k]`."""
    owners = F.pad(words.class_to_object, (0, 1), value=-1)  # [N_c + 1]: background has no object
    seen_sizes = [None] * len(sizes) if config.repaired("padding") else inputs["photo_sizes"].tolist()
    results = []
    for index, (size, seen) in enumerate(zip(sizes, seen_sizes, strict=True)):
        if present_objects is None:
            chosen = list(range(len(owners)))
        else:
            chosen = admitted(config, words.vocabulary, present_objects[index])
            chosen += [len(owners) - 1] * with_background
        labels = torch.full(size, len(owners) - 1, device=owners.device)
        best = torch.zeros(size, dtype=torch.float32, device=owners.device)
        at_once = max(1, min(CLASSES_AT_ONCE, PROBABILITIES_AT_ONCE // (size[0] * size[1])))
        for start in range(0, len(chosen), at_once):
            some = torch.tensor(chosen[start : start + at_once], device=owners.device)
            values, winners = resized_probabilities(logits_of(index, some), size, seen).max(0)  # [H, W]
            # Of equal values the class that comes first wins, as in an argmax over all classes.
            better = values > best if start else torch.ones_like(best, dtype=torch.bool)
            labels = torch.where(better, some[winners], labels)
            best = torch.where(better, values, best)
        results.append(LabelMaps(labels.masked_fill(labels == len(owners) - 1, -1), owners[labels], best))
    return results


def resized_probabilities(logits: Tensor, size: tuple[int, int], seen: Sequence[int] | None = None) -> Tensor:
    """Take the sigmoid of logits `[K, h, w]`, then resize it to float32 `[K, H, W]`.

    As released, a photo that was `seen` at less than h x w pixels is taken for the first pixels of the map.
    """
    probabilities = logits.float().sigmoid()
    if seen is not None:
        probabilities = probabilities[:, : seen[0], : seen[1]]
    return F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
