"""Objects that the user gives: in Python, in a COCO or PACO file, or in a JSON file of boxes."""

from __future__ import annotations

import logging
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from partclipseg.counts import count_of
from partclipseg.data.classes import BACKGROUND_NAMES
from partclipseg.data.coco import Annotation, CocoPhoto, read_coco, repeated_photo
from partclipseg.data.coco_masks import IN_SHARES, decode_mask
from partclipseg.data.photo import PhotoError
from partclipseg.data.problem import DataError
from partclipseg.data.values import entry_id, quoted
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.instances.found import FoundObject
from partclipseg.json_file import read_json
from partclipseg.vocabulary import Vocabulary, plain_word

log = logging.getLogger(__name__)


class GivenObjectError(PhotoError, UsageError):
    """Raised for a given object that does not fit its photo; the message names the photo and the entry."""


class _Entry(NamedTuple):
    """An object of a file, checked when the size of its photo is known."""

    name: str
    """Name in messages, such as ``annotation 7``."""
    word: str
    box: Any
    """x, y, width, height; None where only the outline is known."""
    segmentation: Any = None
    score: Any = None
    size: tuple[int | None, int | None] = (None, None)
    """Height and width of the photo that the file states; None where it does not."""


class GivenObjects:
    """Objects of photos by the photos' names."""

    def __init__(
        self, photos: Mapping[str, Sequence[FoundObject | _Entry]], source: str, skips_unknown: bool = False
    ) -> None:
        """Index the objects by the photos' paths.

        Args:
            photos: objects of each photo, by its path or name.
            source: what messages call it, such as the file's path.
            skips_unknown: whether objects of words that are not in the vocabulary are left out, as those of the other
                categories of a COCO file, instead of refused.

        Raises `UsageError` where two names are one path, as ``a.jpg`` and ``./a.jpg``.
        """
        self.source = source
        self._photos: dict[str, list[FoundObject | _Entry]] = {}
        spelled: dict[str, str] = {}
        for name, some in photos.items():
            path = _normal(name)
            if path in spelled:
                raise UsageError(
                    f"{source}: {quoted(spelled[path])} and {quoted(name)} name one photo: put its objects together"
                )
            spelled[path], self._photos[path] = name, list(some)
        self._skips_unknown = skips_unknown
        self._announced: Vocabulary | None = None
        self._taken: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in self._photos:
            path = PurePath(name)
            self._by_name.setdefault(path.name, []).append(name)
            self._by_stem.setdefault(path.stem, []).append(name)

    @classmethod
    def of_mapping(cls, photos: Mapping[Any, Sequence[FoundObject]]) -> GivenObjects:
        """Take a mapping from path or name to the objects of the photo; raises `UsageError` for other values."""
        for name, some in photos.items():
            if not isinstance(name, str | os.PathLike):
                raise UsageError(f"instances: a photo is named by its path, not by {quoted(name)}")
            check_objects(some, f"instances of {os.fspath(name)}")
        return cls({os.fsdecode(name): list(some) for name, some in photos.items()}, "instances")

    @classmethod
    def read(cls, path: str | Path) -> GivenObjects:
        """Read a file: COCO or PACO annotations, or ``{"photo.jpg": [["dog", x0, y0, x1, y1], …]}`` with corners.

        Raises `UsageError` for a file that cannot be read or that has neither form.
        """
        path = Path(path)
        try:
            content = read_json(path)
        except PartCLIPSegError as error:
            raise UsageError(f"the objects' file {path} {error}") from None
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            return cls(_read_coco(path), str(path), skips_unknown=True)
        if isinstance(content, dict) and content and all(isinstance(some, list) for some in content.values()):
            return cls({name: list(_boxes(some, path, name)) for name, some in content.items()}, str(path))
        raise UsageError(
            f'{path} says where no objects are: it must be a COCO file, or JSON as {{"photo.jpg": '
            '[["dog", x0, y0, x1, y1]]}'
        )

    def announce(self, vocabulary: Vocabulary) -> None:
        """Name the words of a file that are not in the vocabulary, in one line of the log, once for a vocabulary.

        Raises `UsageError` where none of them is in it: every photo would be without objects.
        """
        if not self._skips_unknown or vocabulary == self._announced:
            return
        words = {entry.word for some in self._photos.values() for entry in some if isinstance(entry, _Entry)}
        unknown = [quoted(word) for word in sorted(words) if _index(word, vocabulary) is None]
        if unknown and len(unknown) == len(words):
            raise UsageError(
                f"{self.source}: its categories ({_some(unknown)}) are no objects of the vocabulary "
                f"({_some(vocabulary.objects)}): name the same objects in both"
            )
        self._announced = vocabulary
        if unknown:
            log.warning("%s: left out, since no parts of it are asked for: %s", self.source, _some(unknown))

    def of(self, name: str, size: tuple[int, int], vocabulary: Vocabulary) -> list[FoundObject]:
        """Return the objects of a photo of `size` (H, W), in the words of the vocabulary, boxes cut to the photo.

        Raises `GivenObjectError` for a photo that is not listed, and for an object that does not fit it.
        """
        found = []
        key = self._key(name)
        try:
            self._take(self._taken, key, name)
        except UsageError as error:
            raise GivenObjectError(f"{name}: {error}") from None
        for place, entry in enumerate(self._photos[key], start=1):
            if isinstance(entry, FoundObject):
                some, called = entry, f"object {place}"
            else:
                called = entry.name
                if self._skips_unknown and _index(entry.word, vocabulary) is None:
                    continue
                try:
                    some = _object(entry, size)
                except PartCLIPSegError as error:
                    raise GivenObjectError(f"{name}: {called} of {self.source}: {error}") from None
            found.append(fitted_object(some, size, vocabulary, f"{name}: {called} of {self.source}"))
        return found

    def check_photos(self, names: Iterable[str]) -> None:
        """Raise `UsageError` where the objects of one entry would be taken for two photos of a run."""
        taken: dict[str, str] = {}
        for name in names:
            with suppress(GivenObjectError):  # of that photo alone, which is told with it
                key = self._key(name)
                self._take(taken, key, name)

    def _take(self, taken: dict[str, str], key: str, name: str) -> None:
        """Note that an entry's objects are those of the photo; raises `UsageError` if they are another's."""
        other = taken.setdefault(key, name)
        if other != name and os.path.realpath(other) != os.path.realpath(name):
            raise UsageError(
                f"the entry {quoted(key)} of {self.source} fits two photos, {other} and {name}: give the paths from "
                "one folder on in both places"
            )

    def _key(self, name: str) -> str:
        path = PurePath(_normal(name))
        if path.as_posix() in self._photos:
            return path.as_posix()
        named = self._by_name.get(path.name, []) or self._by_stem.get(path.stem, [])
        tails = [key for key in named if path.as_posix().endswith(f"/{key}") or key.endswith(f"/{path.as_posix()}")]
        candidates = tails or named
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise GivenObjectError(
                f"{name}: {self.source} has {len(candidates)} photos of that name, such as {candidates[0]}: give the "
                "paths from one folder on in both places"
            )
        raise GivenObjectError(
            f"{name} is not among the photos of {self.source}: add it, with an empty list if it shows no object"
        )


def fitted_object(some: FoundObject, size: tuple[int, int], vocabulary: Vocabulary, called: str) -> FoundObject:
    """Return a given object in the vocabulary's spelling, its box cut to a photo of `size` (H, W).

    Raises `GivenObjectError`, which begins with `called`, for a box in shares of the photo's sides, an unknown word, a
    mask of another size, and a box or mask without a pixel in the photo.
    """
    if some.mask is None and min(some.corners) >= 0 and max(some.corners) <= 1:
        raise GivenObjectError(
            f"{called}: the box lies between 0 and 1: give pixels of the photo, not shares of its sides"
        )
    index = _index(some.object, vocabulary)
    if index is None:
        known = _some(vocabulary.objects) or "it names none"
        raise GivenObjectError(f"{called}: {quoted(some.object)} is not an object of the vocabulary ({known})")
    if some.mask is not None and some.mask.shape != size:
        stated, photo = (f"{shape[1]}x{shape[0]}" for shape in (some.mask.shape, size))
        raise GivenObjectError(f"{called}: the mask has {stated} pixels, the photo {photo}: give one of that size")
    if some.mask is not None and not some.mask.any():
        raise GivenObjectError(f"{called}: the mask has no pixel: leave the object out, or give its box alone")
    cut = some.within(size)
    if some.mask is None and min(cut.box[2:]) <= 0:
        x0, y0, x1, y1 = some.corners
        raise GivenObjectError(
            f"{called}: the box from {x0:g}, {y0:g} to {x1:g}, {y1:g} has no pixel in the photo, which has "
            f"{size[1]}x{size[0]}: correct it"
        )
    return replace(cut, object=vocabulary.objects[index])


def _some(words: Sequence[str]) -> str:
    """Return words for a message: the first eight, and the number of the others."""
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


def check_objects(some: Any, where: str) -> None:
    """Raise `UsageError`, which begins with `where`, for what is no list of `FoundObject`."""
    if isinstance(some, str) or not isinstance(some, Sequence):
        raise UsageError(f"{where} must be a list of FoundObject, not {quoted(some)}")
    for place, entry in enumerate(some, start=1):
        if not isinstance(entry, FoundObject):
            raise UsageError(f"{where}: object {place} must be a FoundObject, not {quoted(entry)}")


def _index(word: str, vocabulary: Vocabulary) -> int | None:
    """Return the index of an object word as files spell it; LVIS adds remarks to words, as in ``car_(automobile)``."""
    spellings = (word, word.replace("_", " "), word.partition("_(")[0].replace("_", " "))
    folded = [plain_word(spelling).casefold() for spelling in spellings]
    known = {word.casefold(): index for index, word in enumerate(vocabulary.objects)}
    return next((known[spelling] for spelling in folded if spelling in known), None)


def _object(entry: _Entry, size: tuple[int, int]) -> FoundObject:
    """Make the object of an entry; raises `PartCLIPSegError` for a photo of another size, no box, score or mask."""
    if any(stated not in (None, side) for stated, side in zip(entry.size, size, strict=True)):
        stated, photo = (f"{width}x{height}" for height, width in (entry.size, size))
        raise PartCLIPSegError(
            f"its photo is {stated} there, and the photo here {photo}: one of them was resized or turned; give the "
            "photo that was annotated"
        )
    score = 1.0 if entry.score is None else entry.score
    if entry.segmentation:
        mask = decode_mask(entry.segmentation, size)
        if mask.any():
            made = FoundObject.from_mask(entry.word, mask, score)
            if isinstance(entry.segmentation, list) and max(made.corners) <= 1:  # 0 and 1 alone: the whole photo
                raise PartCLIPSegError(IN_SHARES)
            if entry.box is None:
                return made
            boxed = replace(made, box=entry.box)
            x0, y0, x1, y1 = boxed.corners
            left, top, right, bottom = made.corners
            if x0 > right or x1 < left or y0 > bottom or y1 < top:
                raise PartCLIPSegError("its box and its outline do not meet: correct one of them, or remove the box")
            return boxed
    if entry.box is None:
        raise PartCLIPSegError("it has neither a box nor an outline with a pixel: give one, or remove it")
    return FoundObject(entry.word, entry.box, score)


def _boxes(some: list[Any], path: Path, photo: str) -> Iterable[_Entry]:
    for place, entry in enumerate(some, start=1):
        word, corners = (entry[0], entry[1:]) if isinstance(entry, list) and entry else (None, [])
        if not isinstance(word, str) or len(corners) != 4:
            raise UsageError(
                f'{path}: box {place} of {photo} must be ["dog", x0, y0, x1, y1], a word and two corners, not '
                f"{quoted(entry)}"
            )
        numbers = np.array([_number(value) for value in corners])
        if not np.isfinite(numbers).all() or (numbers[2:] <= numbers[:2]).any():
            raise UsageError(
                f"{path}: box {place} of {photo} must have its upper left corner first, then its lower right one, in "
                f"pixels, not {quoted(corners)}"
            )
        x0, y0, x1, y1 = numbers.tolist()
        yield _Entry(f"box {place}", word, (x0, y0, x1 - x0, y1 - y0))


def _number(value: Any) -> float:
    """Return the value of a JSON number, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _normal(name: str) -> str:
    """Return a photo's path with slashes, without those and dots that say nothing.

    Accents are in the composed form of Unicode: files that come from a Mac have the decomposed one.
    """
    return PurePath(unicodedata.normalize("NFC", name.replace("\\", "/"))).as_posix()


def _read_coco(path: Path) -> dict[str, list[_Entry]]:
    try:
        file = read_coco(path, boxes=True)
    except DataError as error:
        raise UsageError(str(error)) from None
    defects = [str(defect) for defect in file.defects]
    if defects:
        more = f" (and {count_of(len(defects) - 1, 'more fault')})" if len(defects) > 1 else ""
        raise UsageError(f"{defects[0]}{more}")
    names = {category.number: category.name for category in file.categories}
    photos: dict[str, list[_Entry]] = {}
    first: dict[str, CocoPhoto] = {}
    for photo in file.photos:
        if photo.file_name is None:
            raise UsageError(f"{path}: the photo {quoted(photo.number)} has no file_name: name its file")
        if (other := first.setdefault(_normal(photo.file_name), photo)) is not photo:
            raise UsageError(str(repeated_photo(other, photo, photo.file_name, path)))
        photos[photo.file_name] = [
            _Entry(str(some), names[some.category], some.box, some.segmentation, some.score, photo.size)
            for some in photo.annotations
            if _is_object(some, names[some.category])
        ]
    return photos


def _is_object(annotation: Annotation, name: str) -> bool:
    """Whether an annotation is one object: no crowd, no background, and no part of another annotation as in PACO."""
    is_part = annotation.owner is not None and entry_id(annotation.owner) != entry_id(annotation.number)
    return not (annotation.crowd or is_part or name.strip().casefold() in BACKGROUND_NAMES)
