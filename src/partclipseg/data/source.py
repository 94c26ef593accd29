"""Read samples from files: a source reads one split in the labels of its files, a data set translates them.

A file format implements `Source`: photos, and two label maps for a photo in the format's own class list.
`FileDataset` is shared by all formats: records, the vocabulary in use, and the labels that a record keeps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from partclipseg.data.label_map import labels_in
from partclipseg.data.paths import files_by_stem, spelling, stray_files
from partclipseg.data.photo import describe_unread, photo_suffixes, read_photo
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.regions import PhotoRegions, regions_of_maps
from partclipseg.data.sample import OUTSIDE, UNLABELLED, PartSample
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_file
from partclipseg.vocabulary import ObjectPart, Vocabulary, plain_word


@dataclass(frozen=True)
class SourcePhoto:
    """One photo of a source."""

    key: str
    """Name of the photo, unique in the source and fit for a file name."""
    path: Path
    look_alike: Path | None = None
    """File whose name differs from `path` only in capitals and the like, if there is no file at `path`."""


@dataclass(frozen=True)
class SourceLabels:
    """Labels of one photo, in the class list of its source."""

    parts: np.ndarray
    """Part labels, int32 `[H, W]`: index into `Source.object_parts`, or `UNLABELLED`."""
    objects: np.ndarray
    """Object labels, int32 `[H, W]`: index into `Source.objects`, or `UNLABELLED`; ignored under a part label."""
    problems: tuple[Problem, ...] = ()
    """Defects of the labels that do not keep them from being read."""

    @cached_property
    def part_classes(self) -> np.ndarray:
        """Part labels that occur, int64, ascending."""
        return labels_in(self.parts)

    @cached_property
    def object_classes(self) -> np.ndarray:
        """Object labels that occur, int64, ascending."""
        return labels_in(self.objects)


@dataclass(frozen=True, kw_only=True, eq=False)
class Source(ABC):
    """One split on disk. Opening it reads lists and annotation files, never photos or label maps."""

    root: Path
    split: str
    """Name of the split in the files, such as ``val``."""
    object_parts: tuple[ObjectPart, ...]
    """Class list, in the order of the part labels."""
    objects: tuple[str, ...]
    """Objects, in the order of the object labels: every object of `object_parts`, and those without parts."""
    photos: tuple[SourcePhoto, ...]
    folders: tuple[Path, ...] = ()
    """Folder in which every photo should have labels, then the folders of the label maps."""
    defects: tuple[Problem, ...] = ()
    """Defects that opening found. `open_dataset` refuses them; a check lists them."""

    @property
    def label_file(self) -> Path:
        """Return the file to name if all labels are wrong: the annotation file, or the root."""
        return self.root

    @abstractmethod
    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """Read the label maps of a photo of the given height and width.

        Raises:
            DataError: a label file is missing, damaged, of another size, or holds unknown labels.
        """

    def part_labels(self, photo: SourcePhoto) -> tuple[int, ...]:
        """Return the part labels that occur in a photo, ascending; here its photo and labels are read.

        Raises:
            DataError: as `read_labels`, or for the photo.
        """
        return tuple(self.read_labels(photo, read_source_photo(photo).shape[:2]).part_classes.tolist())

    @property
    def lacks_instances(self) -> str:
        """Say what to do so that labels tell the objects of one kind apart; empty where they do: `read_instances`."""
        return "annotate the objects as COCO JSON, and name the object of each part by obj_ann_id"

    @property
    def exhaustive(self) -> bool:
        """Whether every object of the class list is labelled in every photo, so that all else is background."""
        return True

    def read_instances(self, photo: SourcePhoto, size: tuple[int, int]) -> np.ndarray:
        """Read the instance map of a photo of the given height and width, int32 `[H, W]`, as in `PartSample`.

        Raises:
            DataError: as `read_labels` does.
        """
        raise NotImplementedError(f"{type(self).__name__} has no instances")

    def read_regions(self, photo: SourcePhoto, size: tuple[int, int]) -> PhotoRegions | None:
        """Read the regions of objects and parts, in the source's class list; None where label maps are all there is.

        Raises:
            DataError: as `read_labels` does.
        """
        return None

    def instance_mask(self, photo: SourcePhoto, instance: int, size: tuple[int, int]) -> np.ndarray:
        """Read the mask of one object instance, bool `[H, W]`, for sources whose records are instances."""
        raise NotImplementedError(f"{type(self).__name__} has no instances")

    def folder_problems(self) -> Iterator[Problem]:
        """Yield problems between the files: photos without labels, lists that disagree."""
        known = {photo.key for photo in self.photos}
        for key, path in files_by_stem(self.folders[0], photo_suffixes()).items() if self.folders else ():
            if key not in known:
                yield Problem("missing label", path, "the photo has no labels: restore them or remove the photo")

    def label_problems(self, photo: SourcePhoto, labels: SourceLabels) -> Iterator[Problem]:
        """Yield problems of label maps that could be read."""
        yield from labels.problems
        if not len(labels.part_classes) and not len(labels.object_classes):
            yield Problem("empty", photo.path, "nothing is labelled in this photo: remove it, or restore its labels")

    def notes(self) -> Iterator[Problem]:
        """Yield harmless findings."""
        for folder in self.folders:
            for path in stray_files(folder):
                yield Problem("stray file", path, "is a leftover of macOS and ignored")

    @cached_property
    def object_of(self) -> np.ndarray:
        """Index into `objects` of each object-part, int32 `[N_c + 1]`; the last, for index -1, is `UNLABELLED`."""
        index = {word: i for i, word in enumerate(self.objects)}
        return np.array([*(index[pair.object] for pair in self.object_parts), UNLABELLED], dtype=np.int32)


@dataclass(frozen=True)
class SampleRecord:
    """Description of one sample: a photo, and the objects of it that count."""

    key: str
    source: Source = field(repr=False)
    photo: SourcePhoto
    object: int | None = None
    """Index into the source's objects; the labels of all others are removed. None keeps every object."""
    instance: int | None = None
    """Place among the photo's annotations of the only instance that counts; None counts all."""
    by_mask: bool = False
    """Whether the labels that count are those in the object's mask as the file has it, parts of other objects among
    them, see `FileDataset.by_object_masks`."""


class FileDataset:
    """Records of a data set on disk, as `PartSample` in the indices of the vocabulary in use.

    A class that is not in the vocabulary gets no part label, and its object's pixels become `OUTSIDE`. A pixel with a
    part label always has the label of that part's object, whatever the object map says (in PASCAL-Part's overlaps the
    two maps differ in a few pixels).

    A record of the test split that stands for one object, or one instance, keeps the labels of that one alone:
    every other labelled object becomes `OUTSIDE`. So neither protocol counts a prediction there as an error, and
    the objects of a record, which Oracle-Obj is told, are those in its `object_labels`: see `sample.objects_in`.
    Records of the same photo follow each other.
    """

    def __init__(
        self,
        name: str,
        split: str,
        vocabulary: Vocabulary,
        records: Iterable[SampleRecord],
        seen: Iterable[int],
        instances: bool = False,
    ) -> None:
        self.name = name
        self.split = split
        self.vocabulary = vocabulary
        self.records = tuple(records)
        self.seen = tuple(seen)
        """Indices into `vocabulary.object_parts` of the published seen classes; all of them for own data."""
        self.instances = instances
        """Whether samples have an instance map: see `with_instances`."""
        self._tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for source in self._sources:
            self._tables[source.split] = _tables(source, vocabulary)

    def with_instances(self) -> FileDataset:
        """Return the data set with one record for each photo, whose samples have an instance map.

        Raises `UsageError` where the labels do not tell the objects apart.
        """
        photos = {(record.source.split, record.photo.key): record for record in self.records}
        for source in self._sources:
            if remedy := source.lacks_instances:
                raise UsageError(f"{source.label_file}: the labels do not tell objects of one kind apart: {remedy}")
        records = [SampleRecord(record.photo.key, record.source, record.photo) for record in photos.values()]
        return FileDataset(self.name, self.split, self.vocabulary, records, self.seen, instances=True)

    def by_object_masks(self) -> FileDataset:
        """Return the data set with the labels of a record of one object cut by its mask alone, as OV-PARTS has them.

        Where the part map and the object map of a photo disagree, parts of other objects within the mask count too,
        and those of the object beside it do not.
        """
        records = [replace(record, by_mask=True) for record in self.records]
        return FileDataset(self.name, self.split, self.vocabulary, records, self.seen, self.instances)

    @property
    def exhaustive(self) -> bool:
        """Whether every object of the vocabulary is labelled in every photo: see `Source.exhaustive`."""
        return all(source.exhaustive for source in self._sources)

    @property
    def _sources(self) -> list[Source]:
        return list({record.source.split: record.source for record in self.records}.values())

    def regions(self, index: int, sample: PartSample) -> PhotoRegions:
        """Read the regions of a record of a data set `with_instances`; `sample` is that record.

        Raises:
            DataError: as `__getitem__` does.
        """
        record = self.records[index]
        found = record.source.read_regions(record.photo, sample.image.shape[:2])
        if found is None:
            assert sample.instances is not None
            return regions_of_maps(sample.part_labels, sample.object_labels, sample.instances, len(self.vocabulary))
        part_table, object_table = self._tables[record.source.split]
        objects = np.where(object_table[:-1] < 0, UNLABELLED, object_table[:-1] + len(self.vocabulary))
        return found.relabelled(np.concatenate([part_table[:-1], objects]).tolist())

    def __len__(self) -> int:
        return len(self.records)

    def keys(self) -> tuple[str, ...]:
        """Return the key of every record, without reading any photo."""
        return tuple(record.key for record in self.records)

    def __getitem__(self, index: int, /) -> PartSample:
        """Read one record.

        Raises:
            DataError: a file is missing, damaged, of the wrong size, or holds unknown labels.
        """
        return self.samples([index])[0]

    def samples(self, indices: Sequence[int]) -> list[PartSample]:
        """Read several records of one photo; the photo and its labels are decoded once.

        Raises:
            DataError: as for a single record.
        """
        records = [self.records[index] for index in indices]
        source, photo = records[0].source, records[0].photo
        image = read_source_photo(photo)
        labels = source.read_labels(photo, image.shape[:2])
        part_table, object_table = self._tables[source.split]
        parts, objects = labels.parts, labels.objects
        # UNLABELLED is -1 and reads the last entry of a table, which is UNLABELLED too.
        objects = np.where(parts == UNLABELLED, objects, np.take(source.object_of, parts))
        all_parts, all_objects = np.take(part_table, parts), np.take(object_table, objects)
        instances = source.read_instances(photo, image.shape[:2]) if self.instances else None
        samples = []
        for record in records:
            part_labels, object_labels = all_parts.copy(), all_objects.copy()
            if record.object is not None:
                counted = (labels.objects if record.by_mask else objects) == record.object
                if record.instance is not None:
                    mask = source.instance_mask(photo, record.instance, image.shape[:2])
                    # Instances may overlap; a pixel with a part of another object is that object's.
                    counted = mask if record.by_mask else mask & (counted | (parts == UNLABELLED))
                object_labels[counted] = object_table[record.object]
                part_labels[~counted] = UNLABELLED
                object_labels[~counted & (objects != UNLABELLED)] = OUTSIDE
            samples.append(PartSample(image, part_labels, object_labels, record.key, instances))
        return samples


def check_photo_size(photo: Path, source: Path, stated: tuple[int | None, int | None], size: tuple[int, int]) -> None:
    """Raise `DataError` where an annotation file states another height or width than the photo has, None aside."""
    height, width = (size[axis] if edge is None else edge for axis, edge in enumerate(stated))
    if (height, width) != size:
        problem = f"is {size[1]}x{size[0]}, but {source.name} says {width}x{height}: one of them was resized or turned"
        raise DataError(Problem("size", photo, problem))


def read_source_photo(photo: SourcePhoto) -> np.ndarray:
    """Read a photo with `read_photo`; every error becomes a `DataError`."""
    if not is_file(photo.path):
        raise DataError(missing_photo(photo))
    try:
        return read_photo(photo.path)
    except PartCLIPSegError as error:
        raise DataError(Problem("unreadable", photo.path, str(error).removeprefix(f"{photo.path}: "))) from None


PHOTO_IS_MISSING = "the photo is missing: restore it or remove its labels"
"""Message about a photo that is not there, nor any file of almost the same name."""


def missing_photo(photo: SourcePhoto) -> Problem:
    """Report a missing photo that labels belong to, and name a file of almost the same name."""
    if (found := photo.look_alike) is None:
        return Problem("missing photo", photo.path, PHOTO_IS_MISSING)
    if found.suffix.lower() not in photo_suffixes():
        return Problem("missing photo", photo.path, f"the photo is missing; there is {describe_unread([found])}")
    wanted, there = photo.path.parts, found.parts
    names = next(((w, t) for w, t in zip(reversed(wanted), reversed(there), strict=False) if w != t), ("", ""))
    hint = f"{found} is there, whose name differs {spelling(*names)}: rename it, or correct the labels"
    return Problem("missing photo", photo.path, f"the photo is missing, but {hint}")


def _tables(source: Source, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Make tables, int32 `[N + 1]`, from the source's part and object indices to the vocabulary's; the last is -1."""
    classes = {pair.folded: index for index, pair in enumerate(vocabulary.object_parts)}
    objects = {word.casefold(): index for index, word in enumerate(vocabulary.objects)}
    plain = (ObjectPart(*map(plain_word, pair)) for pair in source.object_parts)
    parts = [classes.get(pair.folded, UNLABELLED) for pair in plain]
    owners = [objects.get(plain_word(word).casefold(), OUTSIDE) for word in source.objects]
    return np.array([*parts, UNLABELLED], dtype=np.int32), np.array([*owners, UNLABELLED], dtype=np.int32)
