"""Segment a batch of photos: the steps from photos to results, as a call asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from partclipseg.data.sample import label_areas
from partclipseg.formats.segment import Instance
from partclipseg.inference.asked import Asked
from partclipseg.inference.photos import LoadedPhoto, to_host
from partclipseg.inference.probability import Probabilities
from partclipseg.inference.result import PartResult
from partclipseg.instances.components import COMPONENTS, find_components
from partclipseg.instances.found import FoundObject, select
from partclipseg.instances.given import GivenObjects
from partclipseg.instances.owners import GROWTH, OwnedMaps, in_order, look_at_objects, report_empty
from partclipseg.instances.sources import InstanceSource, find_objects, outline_objects
from partclipseg.maps.crops import PredictCrops
from partclipseg.maps.label_maps import LabelMaps, no_object
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter


def segment_batch(
    segmenter: PartSegmenter, asked: Asked, photos: Sequence[LoadedPhoto]
) -> list[Callable[[], PartResult]]:
    """Run the model on a batch of photos; the returned functions make the results of its maps, in any thread."""
    vocabulary = asked.vocabulary
    present = None if asked.present is None else [asked.present] * len(photos)
    sizes = [photo.size for photo in photos]
    first = asked.looks_at_photos and (pairs := vocabulary.paired) is not None
    inputs = segmenter.prepare([photo.resized for photo in photos]) if first or vocabulary.anywhere else {}
    words = segmenter.word_maps(inputs, vocabulary, sizes)
    if first and pairs is not None:
        maps = segmenter.label_maps(inputs, pairs, sizes, present)
        if asked.zoom:
            maps = segmenter.look_again(_pixels(photos), maps, pairs, present)
    else:
        maps = [no_object(size, segmenter.device) for size in sizes]
    owned: list[OwnedMaps] = []
    instances: list[tuple[Instance, ...]] = [()] * len(photos)
    if asked.source is not None:
        owned, instances = _look_at_instances(segmenter, asked, asked.source, photos, maps, present)
        maps = [some.maps for some in owned]
    of_words = [(word_map.int(), scores) for word_map, scores in words] or [()] * len(photos)
    of_owners = [(some.instance_map.int(), some.in_mask) for some in owned] or [()] * len(photos)
    arrays = to_host(
        [
            (m.label_map.int(), m.object_map.int(), m.scores, *w, *o)
            for m, w, o in zip(maps, of_words, of_owners, strict=True)
        ]
    )
    known = None if vocabulary.paired is None else segmenter.words(vocabulary.paired)
    anywhere = segmenter.word_embeddings(vocabulary)
    return [
        partial(
            _result,
            asked,
            photo,
            some,
            found,
            Probabilities(segmenter.model, photo.resized, known, anywhere, photo.size),
        )
        for some, photo, found in zip(arrays, photos, instances, strict=True)
    ]


def _result(
    asked: Asked,
    photo: LoadedPhoto,
    arrays: tuple[np.ndarray, ...],
    instances: tuple[Instance, ...],
    probabilities: Probabilities,
) -> PartResult:
    vocabulary = asked.vocabulary
    words = arrays[3:5] if vocabulary.anywhere else ()
    least: float | np.ndarray = asked.least
    owner = None
    if asked.source is not None:
        owner, in_mask = arrays[-2:]
        if asked.source == COMPONENTS:  # a region in which the look at it finds nothing was no object
            owner, instances = _confirmed(owner, instances)
        if in_mask.any():
            least = np.where(in_mask, np.float32(asked.least_in_masks), np.float32(asked.least))
    label_map, object_map, score_map = arrays[:3]
    made = PartResult.from_maps(
        label_map,
        object_map,
        score_map,
        vocabulary,
        photo.pixels if asked.keep_photo else None,
        photo.name,
        least,
        words,
        probabilities,
        owner,
        instances,
    )
    if owner is not None:
        report_empty(photo.name, [instance.area for instance in made.instances])
    return made


def _confirmed(owner: np.ndarray, instances: Sequence[Instance]) -> tuple[np.ndarray, tuple[Instance, ...]]:
    """Return the instances that own a pixel, numbered anew, and the map, int `[H, W]`, of their indices."""
    areas = label_areas(owner, len(instances))
    kept = [place for place, area in enumerate(areas.tolist()) if area]
    table = np.full(len(instances) + 1, -1, owner.dtype)  # index -1 reads the last entry
    table[kept] = np.arange(len(kept))
    return table[owner], tuple(
        replace(instances[place], number=number) for number, place in enumerate(kept, start=1)
    )


def _look_at_instances(
    segmenter: PartSegmenter,
    asked: Asked,
    source: InstanceSource,
    photos: Sequence[LoadedPhoto],
    first: Sequence[LabelMaps],
    present: Sequence[Sequence[int]] | None,
) -> tuple[list[OwnedMaps], list[tuple[Instance, ...]]]:
    """Find the objects of each photo and look at each; `first` are the maps of the first look, or background."""
    vocabulary = asked.vocabulary.paired
    assert vocabulary is not None
    pixels = _pixels(photos)
    predict = segmenter.predict_crops(vocabulary)
    found = _find(segmenter, asked, source, vocabulary, predict, photos, first, present)
    boxed = found
    if asked.outlines is not None:
        found = outline_objects(asked.outlines, pixels, found)
    growth = 0.0 if isinstance(source, GivenObjects) else GROWTH
    shape = segmenter.model.image_shape
    owned = look_at_objects(predict, pixels, found, vocabulary.object_index, first, shape, growth)
    name = COMPONENTS if source == COMPONENTS else "given" if isinstance(source, GivenObjects) else "detector"
    instances = [
        tuple(
            Instance(
                number,
                some.object,
                vocabulary.object_index(some.object),
                some.score,
                0,
                (0, 0, 0, 0),
                some.box,
                f"{name} and outline" if some.mask is not None and before.mask is None else name,
            )
            for number, (some, before) in enumerate(zip(of_photo, boxes, strict=True), start=1)
        )
        for of_photo, boxes in zip(found, boxed, strict=True)
    ]
    return owned, instances


def _find(
    segmenter: PartSegmenter,
    asked: Asked,
    source: InstanceSource,
    vocabulary: Vocabulary,
    predict: PredictCrops,
    photos: Sequence[LoadedPhoto],
    first: Sequence[LabelMaps],
    present: Sequence[Sequence[int]] | None,
) -> list[list[FoundObject]]:
    """Return the objects of each photo, in the order of their numbers; only of words that are asked for.

    Given objects keep their order, so that the caller knows them by number.
    """
    objects = vocabulary.objects
    words = objects if asked.present is None else tuple(objects[index] for index in sorted(set(asked.present)))
    if isinstance(source, GivenObjects):
        return [[some for some in photo.objects if some.object in words] for photo in photos]
    pixels = _pixels(photos)
    if isinstance(source, str):
        shape, least = segmenter.model.image_shape, segmenter.model.least_area
        found = find_components(predict, pixels, first, objects, present, shape, least)
    else:
        found = find_objects(source, pixels, words)
    pairs = zip(found, pixels, strict=True)
    return [in_order(select(some, words, (photo.shape[0], photo.shape[1]))) for some, photo in pairs]


def _pixels(photos: Sequence[LoadedPhoto]) -> list[np.ndarray]:
    """Return the photos as they were read, uint8 `[H, W, 3]`; they must have been kept."""
    kept = [photo.pixels for photo in photos if photo.pixels is not None]
    assert len(kept) == len(photos)
    return kept
