"""Segment a batch of photos: what a call asks for, checked, and the steps from photos to results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from partclipseg.data.photo import MAX_PIXELS
from partclipseg.data.values import quoted
from partclipseg.errors import UsageError
from partclipseg.formats.segment import Instance
from partclipseg.inference.options import SegmentOptions, check_fast_reading, check_names
from partclipseg.inference.photos import LoadedPhoto, to_host
from partclipseg.inference.probability import Probabilities
from partclipseg.inference.result import PartResult
from partclipseg.instances.components import COMPONENTS, find_components
from partclipseg.instances.found import FoundObject, select
from partclipseg.instances.given import GivenObjects, check_objects, fitted_object
from partclipseg.instances.owners import GROWTH, OwnedMaps, in_order, look_at_objects, report_empty
from partclipseg.instances.sources import InstanceSource, ObjectOutliner, as_source
from partclipseg.maps.crops import PredictCrops
from partclipseg.maps.label_maps import LabelMaps, no_object
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter


class WithObjects(NamedTuple):
    """A photo and the objects that the caller gives for it."""

    photo: Any
    objects: Sequence[FoundObject]


@dataclass(frozen=True, eq=False)
class Asked:
    """Arguments of a call, checked, which hold for each photo."""

    vocabulary: Vocabulary
    present: list[int] | None
    """Indices of the objects that are known to be in the photos (Oracle-Obj), or None (Pred-All)."""
    zoom: bool
    least: float
    """Minimum probability of a part at a pixel."""
    least_in_masks: float
    """Minimum probability where an object's mask is known, so that its parts share the pixels."""
    batch_size: int
    """Number of photos per batch."""
    max_pixels: int
    """Maximum number of pixels of a photo."""
    source: InstanceSource | None = None
    """Source of the objects; None if no instances are asked for."""
    outlines: ObjectOutliner | None = None
    rest: bool = False
    """Whether to keep parts without an owner where no first look would be needed."""
    keep_photo: bool = True
    """Whether the results have the photo."""
    fast_reading: bool = False
    """Whether large JPEG files are decoded at a reduced size, and resized by a faster filter."""

    @classmethod
    def of(cls, segmenter: PartSegmenter, words: Any, options: SegmentOptions) -> Asked:
        """Check the arguments of a call; raises `UsageError` for the first that is wrong."""
        check_names(options)
        min_part_probability, zoom = options.get("min_part_probability"), options.get("zoom", False)
        instances, outlines = options.get("instances"), options.get("outlines")
        rest = options.get("rest", False)
        vocabulary = _vocabulary(segmenter, words)
        present = _object_indices(vocabulary, options.get("objects"))
        least = segmenter.least_part_probability(min_part_probability, present is not None)
        in_masks = segmenter.least_part_probability(min_part_probability, True)
        if fast := options.get("fast_reading", False):
            check_fast_reading(zoom, instances is not None, segmenter.model.ahead_shape is None)
        sizes = options.get("batch_size", 8), options.get("max_pixels", MAX_PIXELS)
        if instances is None:
            if outlines is not None or rest:
                raise UsageError("outlines and rest are for instances: say where objects are by instances")
            keep = options.get("keep_photo", True) and not fast
            return cls(vocabulary, present, zoom, least, in_masks, *sizes, keep_photo=keep, fast_reading=fast)
        if zoom:
            raise UsageError("instances look at crops already: leave zoom out")
        if vocabulary.paired is None:
            raise UsageError(
                'the vocabulary names no object, so there are no instances: write "kettle: body, lid, handle"'
            )
        if outlines is not None and not isinstance(outlines, ObjectOutliner):
            raise UsageError(f"outlines must be an Outliner, not {quoted(outlines)}")
        source = as_source(instances)
        if isinstance(source, GivenObjects):
            source.announce(vocabulary)
        keep = options.get("keep_photo", True)
        return cls(vocabulary, present, False, least, in_masks, *sizes, source, outlines, rest, keep)

    @property
    def looks_at_photos(self) -> bool:
        """Whether the model looks at whole photos first, not at crops alone."""
        return self.source is None or self.source == COMPONENTS or self.rest

    def read(self, source: Any, image_shape: tuple[int, int] | None) -> LoadedPhoto:
        """Read a photo, or a `WithObjects`; raises `PhotoError`, also for objects that do not fit the photo."""
        photo, objects = source if isinstance(source, WithObjects) else (source, None)
        keep = self.keep_photo or self.zoom or self.source is not None
        loaded = LoadedPhoto.read(photo, image_shape, self.max_pixels, keep, self.fast_reading)
        if not isinstance(self.source, GivenObjects):
            return loaded
        size = loaded.size
        if objects is None:
            return loaded.with_objects(self.source.of(loaded.name, size, self.vocabulary))
        return loaded.with_objects(
            fitted_object(some, size, self.vocabulary, f"{loaded.name}: object {place} of instances")
            for place, some in enumerate(objects, start=1)
        )


def given_for_one(instances: Any) -> tuple[Any, Sequence[FoundObject] | None]:
    """Split the `instances` of a call with one photo into the source and the objects that are listed for the photo."""
    if not isinstance(instances, list | tuple):
        return instances, None
    check_objects(instances, "instances")
    return GivenObjects({}, "instances"), instances


def given_for_each(instances: Any, photos: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Split the `instances` of a call with several photos into the source and photos with the objects listed."""
    if not isinstance(instances, list | tuple):
        return instances, photos
    if len(instances) != len(photos) or any(isinstance(some, FoundObject) for some in instances):
        raise UsageError(
            f"instances must be one list of FoundObject for each of the {len(photos)} photos, in their order"
        )
    for place, some in enumerate(instances, start=1):
        check_objects(some, f"instances of photo {place}")
    return GivenObjects({}, "instances"), [WithObjects(*pair) for pair in zip(photos, instances, strict=True)]


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
    areas = np.bincount(owner.ravel() + 1, minlength=len(instances) + 1)[1:]
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
        found = [list(some) for some in asked.outlines.outline(pixels, found)]
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
        found = source.find(pixels, words)
    pairs = zip(found, pixels, strict=True)
    return [in_order(select(some, words, (photo.shape[0], photo.shape[1]))) for some, photo in pairs]


def _pixels(photos: Sequence[LoadedPhoto]) -> list[np.ndarray]:
    """Return the photos as they were read, uint8 `[H, W, 3]`; they must have been kept."""
    kept = [photo.pixels for photo in photos if photo.pixels is not None]
    assert len(kept) == len(photos)
    return kept


def _vocabulary(segmenter: PartSegmenter, words: Any) -> Vocabulary:
    if words is not None:
        return Vocabulary.load(words)
    if segmenter.vocabulary is not None:
        return segmenter.vocabulary
    raise UsageError('the model has no words of its own: give a vocabulary:  "dog: head, torso, leg, tail"')


def _object_indices(vocabulary: Vocabulary, objects: Iterable[str] | None) -> list[int] | None:
    if objects is None:
        return None
    if isinstance(objects, str):
        raise UsageError(f"objects must be a list of words, not the single string {objects!r}")
    indices = [vocabulary.object_index(word) for word in objects]
    if not indices:
        raise UsageError("the list of objects is empty: name those in the photo, or leave it out")
    return indices
