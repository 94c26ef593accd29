"""Check what a call of the segmenter asks for, before any photo is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from partclipseg.counts import count_of
from partclipseg.data.photo import MAX_PIXELS
from partclipseg.data.values import quoted
from partclipseg.errors import UsageError
from partclipseg.inference.options import SegmentOptions, check_fast_reading, check_names
from partclipseg.inference.photos import LoadedPhoto
from partclipseg.instances.components import COMPONENTS
from partclipseg.instances.found import FoundObject
from partclipseg.instances.given import GivenObjects, check_objects, fitted_object
from partclipseg.instances.sources import InstanceSource, ObjectOutliner, as_source
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
        vocabulary = _vocabulary(segmenter, words)
        present = _object_indices(vocabulary, options.get("objects"))
        least = options.get("min_part_probability")
        instances, outlines, rest = options.get("instances"), options.get("outlines"), options.get("rest", False)
        zoom, fast = options.get("zoom", False), options.get("fast_reading", False)
        asked = cls(
            vocabulary,
            present,
            zoom,
            least=segmenter.least_part_probability(least, present is not None),
            least_in_masks=segmenter.least_part_probability(least, True),
            batch_size=options.get("batch_size", 8),
            max_pixels=options.get("max_pixels", MAX_PIXELS),
            keep_photo=options.get("keep_photo", True) and not fast,
            fast_reading=fast,
        )
        if fast:
            check_fast_reading(zoom, instances is not None, segmenter.model.ahead_shape is None)
        if instances is None:
            if outlines is not None or rest:
                raise UsageError("outlines and rest are for instances: say where objects are by instances")
            return asked
        if zoom:
            raise UsageError("instances look at crops already: leave zoom out")
        if vocabulary.paired is None:
            raise UsageError(
                'the vocabulary names no object, so there are no instances: write "kettle: body, lid, handle"'
            )
        if outlines is not None and (isinstance(outlines, type) or not isinstance(outlines, ObjectOutliner)):
            raise UsageError(f"outlines must be an Outliner, not {quoted(outlines)}")
        source = as_source(instances)
        if isinstance(source, GivenObjects):
            source.announce(vocabulary)
        return replace(asked, source=source, outlines=outlines, rest=rest)

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
            f"instances must be one list of FoundObject for each photo, {count_of(len(photos), 'list')} in all, in the "
            "order of the photos"
        )
    for place, some in enumerate(instances, start=1):
        check_objects(some, f"instances of photo {place}")
    return GivenObjects({}, "instances"), [WithObjects(*pair) for pair in zip(photos, instances, strict=True)]


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
