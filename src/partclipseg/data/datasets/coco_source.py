"""One COCO annotation file and its photos, as a source of label maps, instance maps and regions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from partclipseg.data.classes import Meaning, class_indices, class_list, meanings_of
from partclipseg.data.coco import Annotation, CocoFile, CocoPhoto, read_coco, repeated_photo
from partclipseg.data.coco_masks import BrokenMaskError, paint_masks, rle, run_lengths, why_empty
from partclipseg.data.paths import LookAlikes, inside
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.regions import PhotoRegions, TrueRegion, merge_regions
from partclipseg.data.sample import UNLABELLED
from partclipseg.data.source import Source, SourceLabels, SourcePhoto, check_photo_size
from partclipseg.data.values import entry_id, quoted
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file

SPLIT_NAMES = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
"""Usual names of the folders and files of each split; the first that is found counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoSource(Source):
    """One COCO annotation file and its photos.

    Objects and parts are put together by PACO's ``obj_ann_id``; a part without one belongs to the object of its word
    that lies under it.
    """

    file: Path
    entries: dict[str, CocoPhoto] = field(repr=False)
    """Entries of the photos, by key."""
    labels: dict[int | str, tuple[int, int]] = field(repr=False)
    """Index into `object_parts` and index into `objects` of each category id; -1 for none."""
    unites_parts: ClassVar[bool] = True
    """Whether the parts of an object without a mask of its own make its region."""

    @classmethod
    def open(
        cls,
        file: Path,
        root: Path,
        split: str,
        object: str | None = None,
        mapping: Path | Mapping[str, Any] | None = None,
        images: Path | None = None,
    ) -> CocoSource:
        """Open an annotation file.

        Args:
            file: the JSON file.
            root: the photos lie in this folder or below.
            split: what to call it.
            object: whose parts all categories are, where the file does not say.
            mapping: what each category stands for: see `classes.read_mapping`.
            images: where the photos lie; by default they are looked for beside the file and below the root.

        Raises:
            DataError: the file is missing or is no COCO annotation file.
            UsageError: it is not clear whose parts the categories are.
        """
        content = read_coco(file)
        names = [(category.name, category.group) for category in content.categories]
        paco = next((name for name, group in names if ":" in name and (group or "").casefold() == "part"), None)
        if paco is not None and object is None and mapping is None:
            problem = f"has categories in the form of PACO, such as {paco!r}: name it as the data set paco"
            raise DataError(Problem("class list", file, problem))
        # Without any sound category, what is wrong with them says more than that none is a part.
        meanings = meanings_of(names, file, object, mapping) if names else []
        return cls(**cls.fields_of(content, meanings, file, root, split, images))

    @staticmethod
    def fields_of(
        content: CocoFile, meanings: Sequence[Meaning], file: Path, root: Path, split: str, images: Path | None
    ) -> dict[str, Any]:
        """Return the fields of a source from a file's content and the meaning of each of its categories."""
        defects = list(content.defects)
        pairs, objects = class_list(meanings)
        folders = [images] if images else _photo_folders(file, root, split)
        located = _locate(content.photos, folders, file, defects)
        keys = _keys([one.path.relative_to(one.folder) for one in located])
        indices = class_indices(meanings, pairs, objects)
        labels = {category.number: pair for category, pair in zip(content.categories, indices, strict=True)}
        names = {number: pairs[part].name if part >= 0 else objects[word] if word >= 0 else ""
                 for number, (part, word) in labels.items()}
        for photo in content.photos:
            defects += (Problem("annotation", file, problem) for problem in _wrong_owners(photo, labels, names))
        return {
            "root": root,
            "split": split,
            "object_parts": pairs,
            "objects": objects,
            "photos": tuple(
                SourcePhoto(key, one.path, one.look_alike) for key, one in zip(keys, located, strict=True)
            ),
            "defects": tuple(defects),
            "file": file,
            "entries": {key: one.entry for key, one in zip(keys, located, strict=True)},
            "labels": labels,
        }

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """Read as in `Source.read_labels`; small masks lie on top, parts over whole objects."""
        annotations = self.entries[photo.key].annotations
        problems: list[Problem] = []
        maps = []
        for kind, places in enumerate(self._places(photo, size, problems)):
            maps.append(_looked_up([self.labels[annotation.category][kind] for annotation in annotations], places))
        return SourceLabels(*maps, problems=tuple(problems))

    @property
    def lacks_instances(self) -> str:
        """Remedy where neither objects are annotated nor parts name their owner, as in `Source.lacks_instances`."""
        whole = {number for number, (part, word) in self.labels.items() if part < 0 <= word}
        for annotation in (one for entry in self.entries.values() for one in entry.annotations):
            if annotation.owner is not None or annotation.category in whole:
                return ""
        return "annotate whole objects as well, and give each part the obj_ann_id of its object"

    @property
    def exhaustive(self) -> bool:
        """Whether each category is annotated or listed as absent in every photo, as in `Source.exhaustive`."""
        known = {number for number, (_, word) in self.labels.items() if word >= 0}
        return all(
            not entry.not_exhaustive
            and (
                entry.negative is None
                or known <= entry.negative | {annotation.category for annotation in entry.annotations}
            )
            for entry in self.entries.values()
        )

    def read_instances(self, photo: SourcePhoto, size: tuple[int, int]) -> np.ndarray:
        """Read as `Source.read_instances`."""
        entry = self.entries[photo.key]
        words, numbers = [self.labels[annotation.category][1] for annotation in entry.annotations], self._numbers(entry)
        parts, objects = self._places(photo, size, [])
        owned, under = _looked_up(numbers, parts), _looked_up(numbers, objects)
        alike = (parts < 0) | (_looked_up(words, parts) == _looked_up(words, objects))
        return np.where(owned >= 0, owned, np.where(alike, under, UNLABELLED)).astype(np.int32)

    def read_regions(self, photo: SourcePhoto, size: tuple[int, int]) -> PhotoRegions:
        """Read as `Source.read_regions`; the pieces of one part word of one object are one region, as in PACO.

        A region of a single annotation has the area that it states, as in the public evaluators, else that of its mask.
        """
        entry = self.entries[photo.key]
        check_photo_size(photo.path, self.file, entry.size, size)
        pieces: dict[tuple[int, int], list[dict[str, Any]]] = {}
        areas: dict[tuple[int, int], list[float | None]] = defaultdict(list)
        crowds: set[tuple[int, int]] = set()
        words: dict[int, int] = {}
        for place, (annotation, number) in enumerate(zip(entry.annotations, self._numbers(entry), strict=True)):
            if (label := self._label(annotation.category)) is None:
                continue
            # What belongs to no instance stays apart, whatever its word.
            key = (number if number >= 0 else -1 - place, label)
            try:
                run = run_lengths(annotation.segmentation, size)
            except PartCLIPSegError as error:
                problem = f"{annotation} of photo {photo.key}: {error}"
                raise DataError(Problem("annotation", self.file, problem)) from None
            if not rle.area(run):
                continue
            pieces.setdefault(key, []).append(run)
            areas[key].append(annotation.area)
            if annotation.crowd:
                crowds.add(key)
            words.setdefault(key[0], len(self.object_parts) + self.labels[annotation.category][1])
        for number, label in [(number, label) for number, label in words.items() if number >= 0]:
            if self.unites_parts and (number, label) not in pieces:  # an object that is annotated by its parts alone
                pieces[number, label] = [run for (one, _), runs in pieces.items() if one == number for run in runs]
        regions = []
        for (number, label), runs in pieces.items():
            merged, crowd = merge_regions(runs), (number, label) in crowds
            stated = areas[number, label]
            area = stated[0] if len(stated) == 1 and stated[0] is not None else float(rle.area(merged))
            regions.append(TrueRegion(label, merged, area, max(number, UNLABELLED), crowd))
        negative, not_exhaustive = (
            None if numbers is None else frozenset(label for label in map(self._label, numbers) if label is not None)
            for numbers in (entry.negative, entry.not_exhaustive)
        )
        return PhotoRegions(tuple(regions), negative, not_exhaustive or frozenset())

    @property
    def label_file(self) -> Path:
        """Annotation file, as in `Source.label_file`."""
        return self.file

    def label_problems(self, photo: SourcePhoto, labels: SourceLabels) -> Iterator[Problem]:
        """Yield masks that cover no pixel; a photo without any part is an ordinary negative here."""
        return iter(labels.problems)

    def _label(self, category: int | str) -> int | None:
        """Return the label of a category's regions: see `data.regions`."""
        part, word = self.labels[category]
        return part if part >= 0 else len(self.object_parts) + word if word >= 0 else None

    def _numbers(self, entry: CocoPhoto) -> list[int]:
        """Return the number of the instance of each annotation, from 0 in the photo; -1 for none."""
        owners = []
        for annotation in entry.annotations:
            part, word = self.labels[annotation.category]
            own = entry_id(annotation.number) if part < 0 <= word else None
            owners.append(own if annotation.owner is None else annotation.owner)
        crowds = {owner for owner, one in zip(owners, entry.annotations, strict=True) if one.crowd}
        numbers: dict[Any, int] = {}
        return [
            UNLABELLED if owner is None or owner in crowds else numbers.setdefault(owner, len(numbers))
            for owner in owners
        ]

    def _places(
        self, photo: SourcePhoto, size: tuple[int, int], problems: list[Problem]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return two maps, int32 `[H, W]`: the place of the annotation of the part, and of the object, of each pixel.

        Masks that cover no pixel are added to `problems`.
        """
        entry = self.entries[photo.key]
        check_photo_size(photo.path, self.file, entry.size, size)
        maps: list[np.ndarray] = []
        for kind in (0, 1):
            places = [p for p, a in enumerate(entry.annotations) if self.labels[a.category][kind] >= 0]
            if kind == 1:  # whole objects: those of parts follow from their parts
                places = [p for p in places if self.labels[entry.annotations[p].category][0] < 0]
            chosen = [entry.annotations[place] for place in places]
            try:
                empty: list[int] = []
                maps.append(paint_masks(places, [annotation.segmentation for annotation in chosen], size, empty))
            except BrokenMaskError as error:
                problem = f"{chosen[error.place]} of photo {photo.key}: {error.message}"
                raise DataError(Problem("annotation", self.file, problem)) from None
            for annotation in (chosen[place] for place in empty):
                why = why_empty(annotation.segmentation, size)
                problem = f"{annotation} of photo {photo.key} covers no pixel: {why}"
                problems.append(Problem("empty", self.file, problem))
        return maps[0], maps[1]


def _looked_up(values: Sequence[int], places: np.ndarray) -> np.ndarray:
    """Return the value at each place of a list, int32; `UNLABELLED` at the place -1."""
    return np.array([*values, UNLABELLED], dtype=np.int32)[places]


def _wrong_owners(
    photo: CocoPhoto, labels: Mapping[int | str, tuple[int, int]], names: Mapping[int | str, str]
) -> Iterator[str]:
    """Yield a message for each annotation whose owner cannot be its object."""
    by_number: dict[Any, Annotation] = {entry_id(annotation.number): annotation for annotation in photo.annotations}
    for annotation in photo.annotations:
        owner = by_number.get(annotation.owner) if annotation.owner is not None else None
        (part, word) = labels[annotation.category]
        if owner is None or word < 0:
            continue
        owner_part, owner_word = labels[owner.category]
        what = f"{annotation}, a {names[annotation.category]}, has the obj_ann_id {quoted(annotation.owner)}"
        if part < 0:
            if owner is not annotation:
                yield f"{what}: an object names itself, so write its own id"
        elif owner_part >= 0:
            yield f"{what}, which is a {names[owner.category]}: name the annotation of its object"
        elif owner_word >= 0 and owner_word != word:
            yield f"{what}, which is a {names[owner.category]}: name its own object, or correct the category"


def _photo_folders(file: Path, root: Path, split: str) -> list[Path]:
    """Return the folders where photos may lie, the likeliest first."""
    folders = [file.parent, file.parent / "images"]
    for base in (root if root.is_dir() else root.parent, root / "images"):
        folders += [base, *(base / name for name in SPLIT_NAMES.get(split, ()))]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


class _Located(NamedTuple):
    entry: CocoPhoto
    folder: Path
    path: Path
    """Path of the photo in the folder; where it is not there, where it was looked for last."""
    look_alike: Path | None
    """File of almost the same name, where the photo is not there."""


def _locate(
    photos: tuple[CocoPhoto, ...], folders: list[Path], file: Path, defects: list[Problem]
) -> list[_Located]:
    """Find the folder and path of each photo; the place of the last one is tried first.

    A photo that is listed twice is put in `defects`, and given once.
    """
    located: dict[Path, _Located] = {}
    look_alikes = LookAlikes()
    usual: tuple[int, Path] | None = None
    for photo in photos:
        names = [name for name in (photo.path, photo.file_name) if name]
        if not names:
            problem = f"the photo {quoted(photo.number)} has neither file_name nor path: write the file's name"
            defects.append(Problem("annotation", file, problem))
            continue
        try:
            places = [
                (index, folder, inside(folder, name, file)) for folder in folders for index, name in enumerate(names)
            ]
        except DataError as error:
            defects.append(error.problem)
            continue
        places.sort(key=lambda place: (place[0], place[1]) != usual)
        index, folder, path = next((place for place in places if is_file(place[2])), places[-1])
        look_alike = None
        if is_file(path):
            usual = (index, folder)
        else:
            alikes = ((look_alikes.find(place[1], names[place[0]]), place) for place in places)
            look_alike, (index, folder, path) = next((pair for pair in alikes if pair[0]), (None, places[-1]))
        if path in located:
            defects.append(repeated_photo(located[path].entry, photo, quoted(path.name), file))
        else:
            located[path] = _Located(photo, folder, path, look_alike)
    return list(located.values())


def _keys(paths: list[Path]) -> list[str]:
    """Make short names that are unique and fit for files."""
    stems = Counter(path.stem for path in paths)
    longer = [path.stem if stems[path.stem] == 1 else "-".join(path.with_suffix("").parts) for path in paths]
    repeats = Counter(longer)
    keys: dict[str, None] = {}
    for place, key in enumerate(longer):
        name = key if repeats[key] == 1 else f"{key}-{place}"
        while name in keys or (name != key and name in repeats):
            name += "-"
        keys[name] = None
    return list(keys)
