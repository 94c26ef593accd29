"""Explained results: the model's generalized parts, and the probability and attention of every class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partclipseg.apps.serve.engine import named_result
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.label_maps import LabelMaps, no_object
from partclipseg.maps.upsample import upsample
from partclipseg.vocabulary import Vocabulary

MapKind = Literal["object-part", "object", "part"]

LONGEST_SIDE = 1280
"""Longest side of the displayed maps, in pixels."""
MAX_HEAT_SIDE = 128
"""Longest side of the probability maps: they are smooth, and there is one for each class, object and part."""
MAX_HEAT_MAPS = 400
MAX_ATTENTION = 32
"""Maximum number of classes for attention: each class costs a map of every token to every other."""


@dataclass(frozen=True)
class HeatMap:
    """Probability or attention map of one word or class."""

    kind: MapKind
    name: str
    values: np.ndarray
    """uint8 `[h, w]`: probability times 255, or attention as a share of its maximum."""
    peak: float
    """Maximum probability, or share of the attention, over all places."""


@dataclass(frozen=True)
class Explained:
    """A result with the maps that led to it."""

    result: PartResult
    part_map: np.ndarray
    """int32 `[h, w]`, longest side `LONGEST_SIDE`: index into `Vocabulary.parts`, −1 outside of the objects found.

    The map of the model's generalized parts alone, without the objects; the baseline has none, and its object-parts
    are grouped by their part words instead.
    """
    part_scores: np.ndarray
    """float32 `[N_p]`: mean probability of each part over its pixels in `part_map`, 0 where it has none."""
    probabilities: tuple[HeatMap, ...]
    attention: tuple[HeatMap, ...]
    """Attention of each class; empty for models without class attention and for more than `MAX_ATTENTION` classes."""

    def renamed(self, name: str | None) -> Explained:
        """Return the same under the name of the photo's file, see `named_result`."""
        return replace(self, result=named_result(self.result, name))


@torch.inference_mode()
def explain(
    segmenter: PartSegmenter,
    photo: np.ndarray,
    vocabulary: Vocabulary,
    objects: Iterable[str] | None = None,
    zoom: bool = False,
    min_part_probability: float | None = None,
) -> Explained:
    """Segment one photo, uint8 `[H, W, 3]`, and keep the maps that led to the result.

    With `zoom` the result, and the objects in `part_map`, come from both passes; all other maps from the first.
    """
    present = None if objects is None else [[vocabulary.object_index(word) for word in objects]]
    inputs, sizes = segmenter.prepare([photo]), [(photo.shape[0], photo.shape[1])]
    found = [tensor.cpu().numpy() for maps in segmenter.word_maps(inputs, vocabulary, sizes) for tensor in maps]
    least = segmenter.least_part_probability(min_part_probability, objects is not None)

    def result(maps: LabelMaps) -> PartResult:
        labels, objects, scores = (tensor.cpu().numpy() for tensor in maps)
        return PartResult.from_maps(labels, objects, scores, vocabulary, photo, "photo", least, found)

    if (pairs := vocabulary.paired) is None:
        nothing = np.full(nearest(photo[:, :, 0], LONGEST_SIDE).shape, -1, np.int32)
        return Explained(result(no_object(sizes[0], segmenter.device)), nothing, np.zeros(0, np.float32), (), ())
    with_attention = segmenter.model.has_attention and len(pairs) <= MAX_ATTENTION
    asked = torch.tensor([[0, index] for index in range(len(pairs))], device=segmenter.device)
    words = segmenter.words(pairs)
    output = segmenter.model(inputs, words, attention_pairs=asked if with_attention else None)
    [maps] = segmenter.model.maps_of(output, inputs, words, sizes, present)
    if zoom:
        [maps] = segmenter.look_again([photo], [maps], pairs, present)
    return Explained(
        result(maps),
        *_part_map(output, maps, pairs),
        tuple(_probabilities(output, pairs)),
        tuple(_attention(output, pairs)) if with_attention else (),
    )


def nearest(array: np.ndarray, longest_side: int) -> np.ndarray:
    """Reduce `[H, W]` to a longest side by taking the pixel under each centre; smaller arrays are left unchanged."""
    scale = min(1.0, longest_side / max(array.shape))
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old in array.shape for new in [max(1, round(old * scale))]
    )
    return array[rows[:, None], columns]


def _part_map(output: Any, maps: LabelMaps, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Compute `part_map` and `part_scores`."""
    labels, scores = (torch.from_numpy(nearest(maps[i].cpu().numpy(), LONGEST_SIDE)) for i in (0, 2))  # [h, w]
    if output.part_logits is None:
        winner = torch.from_numpy(np.append(vocabulary.class_to_part, -1))[labels]  # label -1 reads the last entry
    else:
        size = (labels.shape[0], labels.shape[1])
        winner, best = torch.zeros(size, dtype=torch.long), torch.full(size, -torch.inf)
        for index, logits in enumerate(output.part_logits[0]):  # one by one: memory does not grow with the words
            values = upsample(logits[None], size)[0].cpu()
            winner = torch.where(values > best, index, winner)
            best = torch.maximum(best, values)
        winner, scores = torch.where(labels >= 0, winner, -1), best.sigmoid()
    bins, count = winner.flatten() + 1, len(vocabulary.parts) + 1
    areas = torch.bincount(bins, minlength=count)[1:]
    sums = torch.bincount(bins, weights=scores.flatten(), minlength=count)[1:]
    return winner.numpy().astype(np.int32), (sums / areas.clamp(min=1)).numpy().astype(np.float32)


def _probabilities(output: Any, vocabulary: Vocabulary) -> Iterable[HeatMap]:
    groups: list[tuple[MapKind, tuple[str, ...], Tensor | None]] = [
        ("object-part", vocabulary.names, output.object_part_logits),
        ("object", vocabulary.objects, output.object_logits),
        ("part", vocabulary.parts, output.part_logits),
    ]
    made: list[HeatMap] = []
    for kind, names, logits in groups:
        if logits is None:
            continue
        values = logits[0, : len(names)].float().sigmoid()  # [K, h, w], without background
        peaks = values.flatten(1).amax(1).tolist()
        if (longest := max(values.shape[1:])) > MAX_HEAT_SIDE:
            values = F.interpolate(values[None], scale_factor=MAX_HEAT_SIDE / longest, mode="area")[0]
        pixels = (values * 255).round().to(torch.uint8).cpu().numpy()
        made += [HeatMap(kind, *entry) for entry in zip(names, pixels, peaks, strict=True)]
    if len(made) <= MAX_HEAT_MAPS:
        return made
    limit = sorted((heat.peak for heat in made), reverse=True)[MAX_HEAT_MAPS]
    return [heat for heat in made if heat.peak > limit]


def _attention(output: Any, vocabulary: Vocabulary) -> Iterable[HeatMap]:
    """Yield the attention of each class: rows of its attention map, weighted by the class's probability."""
    logits = output.object_part_logits[0, : len(vocabulary)].float()  # [N_c, h, w]
    attention = output.attention[:, 1:, 1:]  # [N_c, T - 1, T - 1], without the class token
    grid = _grid(attention.shape[1], logits.shape[1:])
    weights = F.interpolate(logits.sigmoid()[None], size=grid, mode="area")[0].flatten(1)  # [N_c, T - 1]
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
    looked_at = torch.einsum("ct,cts->cs", weights, attention.float()).unflatten(1, grid)
    peaks = looked_at.flatten(1).amax(1)
    values = (looked_at / peaks.clamp(min=1e-12)[:, None, None] * 255).round().to(torch.uint8).cpu().numpy()
    return [
        HeatMap("object-part", name, pixels, peak)
        for name, pixels, peak in zip(vocabulary.names, values, peaks.tolist(), strict=True)
    ]


def _grid(tokens: int, shape: torch.Size) -> tuple[int, int]:
    """Return rows and columns of the tokens, whose cells tile the logits evenly."""
    rows = round((tokens * shape[0] / shape[1]) ** 0.5)
    return rows, tokens // rows
