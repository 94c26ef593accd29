"""Label maps: the greatest probability after resizing, of the classes that may win.

Classes meet in the aggregation, but are decoded each alone: those that cannot win are left out. On a CUDA device the
passes of small batches are captured as CUDA graphs, and that of the towers at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.maps.label_maps import BACKGROUND, LabelMaps
from partclipseg.maps.upsample import PhotoPixels, keep_best, upload
from partclipseg.models.clip_towers import admitted
from partclipseg.models.interface import Words
from partclipseg.models.partcatseg.aggregator import AppearanceGuidance, Volume
from partclipseg.models.partcatseg.filters import Patches

if TYPE_CHECKING:
    from partclipseg.models.partcatseg.config import CATSegConfig
    from partclipseg.models.partcatseg.model import CATSegModel, Features

CAPTURED_PAIRS = 512
"""Maximum number of (photo, class) pairs of a captured graph: with more, kernels run longer than their launch. The pass
of the towers, whose work does not grow with the classes, is captured with any number of pairs."""

EQUALISED = 8
"""On a GPU the number of classes that Oracle-Obj decodes for a photo is rounded up to a multiple of this: so a few
passes, each of many photos, take the place of one for each photo, whose kernels are shorter than their launch."""


class Rows(NamedTuple):
    """Logits of some photos and classes, in order of the photos."""

    photos: np.ndarray
    """int64 `[K]`."""
    classes: np.ndarray
    """int64 `[K]`."""
    logits: Tensor
    """`[K, h, w]`."""


@torch.inference_mode()
def decoded_maps(
    model: CATSegModel,
    inputs: Mapping[str, Tensor],
    words: Words,
    sizes: Sequence[tuple[int, int]],
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> list[LabelMaps]:
    """Label B photos; arguments as in `CATSegModel.label_maps`."""
    pairs = len(sizes) * len(words.embeddings) // len(model.config.templates)
    graphs, few = model.graphs(), pairs <= CAPTURED_PAIRS
    pixels = inputs["pixel_values"], inputs["guidance_pixels"]
    tensors = *pixels, *word_tensors(words)
    with nullcontext() if graphs is None else graphs.lock:
        if graphs is not None and few and present_objects is None:
            # Parts are counted in the key: all words are one tensor.
            key = "logits", model.pass_key, len(words.vocabulary.parts)
            [logits] = graphs(lambda *x: [all_logits(model, words, *x)], key, *tensors)
            rows = iter([of_all(logits, 0)])
        else:
            if graphs is not None and few:
                key = "volume", model.pass_key, len(words.vocabulary.parts)
                embedding, *levels = graphs(class_volume(model, words), key, *tensors)
            elif graphs is not None:
                features = graphs(photo_features(model), ("features", model.pass_key), *pixels)
                embedding, *levels = class_volume(model, words, _from_tensors(features))(*tensors)
            else:
                embedding, *levels = class_volume(model, words)(*tensors)
            rows = decoded(model, embedding, AppearanceGuidance(*levels), words, present_objects, with_background)
        return best_maps(model.config, inputs, words, sizes, rows)


def word_tensors(words: Words) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors of a vocabulary, which a captured pass takes as its inputs."""
    return words.embeddings, words.class_to_part, words.class_to_object


def photo_features(model: CATSegModel) -> Callable[..., list[Tensor]]:
    """Return the pass of the towers as a function of tensors: guidances and vectors, and the affinity if there is."""

    def compute(pixels: Tensor, guidance_pixels: Tensor) -> list[Tensor]:
        photo, guidance = model.features({"pixel_values": pixels, "guidance_pixels": guidance_pixels})
        return [*guidance, photo.vectors, *([] if photo.affinity is None else [photo.affinity])]

    return compute


def _from_tensors(features: Sequence[Tensor]) -> Features:
    grid, decoder1, decoder2, vectors, *affinity = features
    return Patches(vectors, *(affinity or [None])), AppearanceGuidance(grid, decoder1, decoder2)


def class_volume(model: CATSegModel, words: Words, features: Features | None = None) -> Callable[..., list[Tensor]]:
    """Return the pass to the aggregated classes as a function of tensors: embedding, then the three guidances.

    `features` are those of the photos, if they have been computed.
    """

    def compute(*tensors: Tensor) -> list[Tensor]:
        volume, guidance = _volume(model, words, *tensors, features=features)
        return [volume.embedding, *guidance]

    return compute


def all_logits(model: CATSegModel, words: Words, pixels: Tensor, guidance_pixels: Tensor, *tensors: Tensor) -> Tensor:
    """Compute the logits `[B, N_c + 1, 4g, 4g]` of every class by a pass that may be captured."""
    volume, guidance = _volume(model, words, pixels, guidance_pixels, *tensors)
    return model.aggregator.decode(volume.embedding, guidance)


def _volume(
    model: CATSegModel,
    words: Words,
    pixels: Tensor,
    guidance_pixels: Tensor,
    *tensors: Tensor,
    features: Features | None = None,
) -> tuple[Volume, AppearanceGuidance]:
    embeddings, class_to_part, class_to_object = tensors
    given = replace(words, embeddings=embeddings, class_to_part=class_to_part, class_to_object=class_to_object)
    return model.class_volume({"pixel_values": pixels, "guidance_pixels": guidance_pixels}, given, features)


def decoded(
    model: CATSegModel,
    embedding: Tensor,
    guidance: AppearanceGuidance,
    words: Words,
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> Iterator[Rows]:
    """Decode the classes that may win, a few at a time: `embedding [B, N_c + 1, g, g, C]`."""
    aggregator, count = model.aggregator, embedding.shape[1]
    at_once = max(1, aggregator.at_once(embedding, scale=4))
    if present_objects is None:
        for first in range(0, count, at_once):
            yield of_all(aggregator.decode(embedding[:, first : first + at_once], guidance), first)
        return
    asked = [_asked(model.config, words, present, with_background) for present in present_objects]
    for photos, classes in _of_equal_counts(asked, 1 if embedding.device.type == "cpu" else EQUALISED):
        rows = upload(photos, embedding.device)
        own = AppearanceGuidance(*(level.index_select(0, rows) for level in guidance))
        step = at_once * len(embedding) // len(photos)
        for first in range(0, classes.shape[1], step):
            some = classes[:, first : first + step]  # [b, k]
            places = upload((photos[:, None] * count + some).flatten(), embedding.device)
            chosen = embedding.flatten(0, 1).index_select(0, places).unflatten(0, some.shape)  # [b, k, g, g, C]
            yield Rows(photos.repeat(some.shape[1]), some.flatten(), aggregator.decode(chosen, own).flatten(0, 1))


def _of_equal_counts(asked: Sequence[np.ndarray], multiple: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Group photos that ask for as many classes: yield photos, int64 `[b]`, and the classes of each, int64 `[b, k]`.

    Counts are rounded up to a `multiple` by the last class again, which changes no label. Photos that ask for none are
    left out.
    """
    counts = np.array([-(-len(classes) // multiple) * multiple for classes in asked])
    for count in np.unique(counts[counts > 0]):
        photos = np.flatnonzero(counts == count)
        some = (asked[photo] for photo in photos.tolist())
        yield photos, np.stack([np.pad(classes, (0, count - len(classes)), "edge") for classes in some])


def of_all(logits: Tensor, first: int) -> Rows:
    """Return the rows of logits `[B, k, h, w]` of all photos and the classes from `first` on."""
    photos, classes = logits.shape[:2]
    return Rows(np.arange(photos).repeat(classes), np.tile(first + np.arange(classes), photos), logits.flatten(0, 1))


def chosen_rows(
    config: CATSegConfig,
    logits: Tensor,
    words: Words,
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> Iterator[Rows]:
    """Yield the rows that may win of logits `[B, N_c + 1, h, w]`."""
    if present_objects is None:
        yield of_all(logits, 0)
        return
    for index, present in enumerate(present_objects):
        some = _asked(config, words, present, with_background)
        yield Rows(np.full(len(some), index), some, logits[index].index_select(0, upload(some, logits.device)))


def _asked(config: CATSegConfig, words: Words, present: Sequence[int], with_background: bool) -> np.ndarray:
    """Return the classes that Oracle-Obj admits for a photo, background last where it competes: int64."""
    background = [len(words.class_to_object)] * with_background
    return np.array([*admitted(config, words.vocabulary, present), *background], np.int64)


@torch.no_grad()
def best_maps(
    config: CATSegConfig,
    inputs: Mapping[str, Tensor],
    words: Words,
    sizes: Sequence[tuple[int, int]],
    rows: Iterator[Rows],
) -> list[LabelMaps]:
    """Label B photos by the greatest of the rows' probabilities; a photo without any row is background."""
    device = words.class_to_object.device
    background = len(words.class_to_object)
    seen = None if config.repaired("padding") else inputs["photo_sizes"].tolist()
    pixels = PhotoPixels(sizes, device)
    # The first class wins among equal values, as in an argmax over all classes; every value is more than -1.
    best, labels = pixels.full(-1.0), pixels.full(background)
    for photos, classes, logits in rows:
        values, on_device = logits.float().sigmoid(), upload(classes, device)
        if seen is None or all(height >= values.shape[1] and width >= values.shape[2] for height, width in seen):
            keep_best(pixels, best, labels, photos, values, on_device)
            continue
        for index in np.unique(photos):
            # The released code takes a photo that was seen at less than h x w pixels for the first pixels of the map.
            own = slice(*np.searchsorted(photos, [index, index + 1]).tolist())
            height, width = seen[index]
            keep_best(pixels, best, labels, photos[own], values[own, :height, :width], on_device[own])
    owners = F.pad(words.class_to_object, (0, 1), value=BACKGROUND)[labels]
    flat = labels.masked_fill(labels == background, BACKGROUND), owners, best.clamp(min=0)
    return [LabelMaps(*maps) for maps in zip(*map(pixels.split, flat), strict=True)]
