"""Pascal-Part-116: photos, part maps and object maps as 8-bit PNG, in the layout of the released archive.

Wei, Yue, Zhang et al., *OV-PARTS: Towards Open-Vocabulary Part Segmentation*, NeurIPS 2023.

`prepare` adds instance maps, which the archive does not have: 8-bit PNG, number of the object, 255 for none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from partclipseg.data.datasets.spec import DatasetSpec, Preparation, Split, one_a_photo
from partclipseg.data.label_map import labels_in, numbered_table, read_label_map
from partclipseg.data.paths import files_by_stem
from partclipseg.data.photo import PHOTO_SUFFIXES, photo_formats
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.source import SampleRecord, Source, SourceLabels, SourcePhoto
from partclipseg.data.values import quoted, whole_number
from partclipseg.errors import PartCLIPSegError
from partclipseg.json_file import read_json
from partclipseg.vocabulary import Catalog, Vocabulary

NAME = "pascal-part-116"
PARTS, OBJECTS, INSTANCES = "annotations_detectron2_part", "annotations_detectron2_obj", "annotations_instances"
"""Folders of the part maps, the object maps and the instance maps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PascalPart(Source):
    """One split of Pascal-Part-116. Its photos are those with a part map."""

    part_table: np.ndarray = field(repr=False)
    object_table: np.ndarray = field(repr=False)
    part_counts: dict[str, tuple[int, ...]] | None = field(repr=False)
    """Part labels of each photo, by key, from ``*_part_label_count.json``; None without that file."""
    object_counts: dict[str, tuple[int, ...]] | None = field(repr=False)

    @classmethod
    def open(cls, root: Path, folder: str) -> PascalPart:
        """Open the split ``train`` or ``val`` below the root."""
        catalog = Catalog.load(NAME)
        defects: list[Problem] = []
        photos = files_by_stem(root / "images" / folder, PHOTO_SUFFIXES, defects)
        maps = files_by_stem(root / PARTS / folder, frozenset({".png"}))
        pictures = (PARTS, OBJECTS, *((INSTANCES,) if (root / INSTANCES / folder).is_dir() else ()))
        return cls(
            root=root,
            split=folder,
            object_parts=catalog.object_parts,
            objects=catalog.objects,
            photos=tuple(SourcePhoto(key, photos.get(key, root / "images" / folder / f"{key}.jpg")) for key in maps),
            folders=tuple(root / name / folder for name in ("images", *pictures)),
            part_table=numbered_table(len(catalog.object_parts), catalog.ignore_label),
            object_table=numbered_table(len(catalog.objects), catalog.ignore_label),
            part_counts=_read_counts(root / PARTS / f"{folder}_part_label_count.json", defects),
            object_counts=_read_counts(root / PARTS / f"{folder}_obj_label_count.json", defects),
            defects=tuple(defects),
        )

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """Read as `Source.read_labels`."""
        return SourceLabels(
            read_label_map(self._map(PARTS, photo.key), self.part_table, 8, size),
            read_label_map(self._map(OBJECTS, photo.key), self.object_table, 8, size),
        )

    @property
    def lacks_instances(self) -> str:
        """Remedy where there are no instance maps, as in `Source.lacks_instances`."""
        if self.root / INSTANCES / self.split in self.folders:
            return ""
        return (
            f"there is no folder {INSTANCES}/{self.split}, which partclipseg prepare {NAME} makes from PASCAL-Part: "
            "prepare the data set into a new folder"
        )

    def read_instances(self, photo: SourcePhoto, size: tuple[int, int]) -> np.ndarray:
        """Read as `Source.read_instances`."""
        return read_label_map(self._map(INSTANCES, photo.key), numbered_table(255, 255), 8, size)

    def _map(self, folder: str, key: str) -> Path:
        return self.root / folder / self.split / f"{key}.png"

    def part_labels(self, photo: SourcePhoto) -> tuple[int, ...]:
        """See `Source.part_labels`.

        They stand in ``*_part_label_count.json``; where that file or the photo's entry is missing the part map is
        read, which takes longer.
        """
        if self.part_counts is not None and photo.key in self.part_counts:
            return tuple(sorted(self.part_counts[photo.key]))
        return tuple(self._labels_in_map(photo))

    def objects_with_parts(self, photo: SourcePhoto) -> tuple[int, ...]:
        """Return the indices of the objects that have a part label in the photo; see `part_labels`."""
        return tuple(sorted({int(self.object_of[label]) for label in self.part_labels(photo)}))

    def _labels_in_map(self, photo: SourcePhoto) -> list[int]:
        from PIL import Image

        path = self._map(PARTS, photo.key)
        try:
            with Image.open(path, formats=photo_formats()) as image:
                size = (image.height, image.width)
        except Exception as error:  # damaged headers make the format readers raise almost anything
            raise DataError(Problem("unreadable", path, f"cannot be read ({error}): replace it")) from None
        return labels_in(read_label_map(path, self.part_table, 8, size)).tolist()

    def folder_problems(self) -> Iterator[Problem]:
        """Yield photos without labels, labels without photos, and photos that the label lists lack."""
        yield from super().folder_problems()
        known = {photo.key for photo in self.photos}
        for counts, kind in ((self.part_counts, "part"), (self.object_counts, "obj")):
            for key in sorted(known.symmetric_difference(known if counts is None else counts)):
                lacking = "does not list" if key in known else "lists, without a label map,"
                yield self._disagreement(kind, f"{lacking} {key}.png")

    def label_problems(self, photo: SourcePhoto, labels: SourceLabels) -> Iterator[Problem]:
        """Yield maps without any label, lists that disagree with their map, and instance maps that cannot be read."""
        yield from super().label_problems(photo, labels)
        if not self.lacks_instances:
            try:
                self.read_instances(photo, (labels.parts.shape[0], labels.parts.shape[1]))
            except DataError as error:
                yield error.problem
        for counts, classes, kind in (
            (self.part_counts, labels.part_classes, "part"),
            (self.object_counts, labels.object_classes, "obj"),
        ):
            held = set(classes.tolist())
            listed = counts.get(photo.key) if counts else None
            if listed is not None and held != set(listed):
                yield self._disagreement(
                    kind, f"lists {sorted(listed)} for {photo.key}.png, but the map holds {sorted(held)}"
                )

    def _disagreement(self, kind: str, message: str) -> Problem:
        file = self.root / PARTS / f"{self.split}_{kind}_label_count.json"
        return Problem("label count", file, f"{message}: {_COUNT_REMEDY}")


_COUNT_REMEDY = "delete the list, and the maps themselves are read instead"


def _read_counts(path: Path, defects: list[Problem]) -> dict[str, tuple[int, ...]] | None:
    if not os.path.lexists(path):
        return None
    try:
        content = read_json(path)
    except PartCLIPSegError as error:
        defects.append(Problem("unreadable", path, f"is not a list of labels, since it {error}; or {_COUNT_REMEDY}"))
        return None
    catalog = Catalog.load(NAME)
    limit = len(catalog.object_parts if "_part_label" in path.name else catalog.objects)
    if not isinstance(content, dict) or not all(isinstance(labels, list) for labels in content.values()):
        problem = f"is not a list of labels for each label map: {_COUNT_REMEDY}"
        defects.append(Problem("unreadable", path, problem))
        return None
    counts: dict[str, tuple[int, ...]] = {}
    for name, labels in content.items():
        numbers = [number for number in map(whole_number, labels) if number != catalog.ignore_label]
        if not all(number is not None and 0 <= number < limit for number in numbers):
            problem = f"lists labels for {quoted(name)} that the class list does not have: {_COUNT_REMEDY}"
            defects.append(Problem("unknown label", path, problem))
        elif not name.startswith("._"):
            counts[Path(name).stem] = tuple(number for number in numbers if number is not None)
    return counts


def _records(sources: Sequence[Source], vocabulary: Vocabulary, split: Split) -> list[SampleRecord]:
    """Make one record for each photo to train, and one for each photo and object with a part label to test."""
    if split == "train":
        return one_a_photo(sources, vocabulary, split)
    wanted = {word.casefold() for word in vocabulary.objects}
    return [
        SampleRecord(f"{photo.key}-{source.objects[index]}", source, photo, object=index)
        for source in sources
        if isinstance(source, PascalPart)
        for photo in source.photos
        for index in source.objects_with_parts(photo)
        if source.objects[index].casefold() in wanted
    ]


_FOLDERS: dict[Split, str] = {"train": "train", "test": "val"}

DATASET = DatasetSpec(
    name=NAME,
    summary="a benchmark",
    open_split=lambda root, split, own: PascalPart.open(root, _FOLDERS[split]),
    layout={
        split: (f"images/{folder}", f"{PARTS}/{folder}", f"{OBJECTS}/{folder}") for split, folder in _FOLDERS.items()
    },
    folders=_FOLDERS,
    raw=("Annotations_Part", "annotations/*.mat", "*.mat"),
    records=_records,
    catalog=NAME,
    preparation=Preparation(
        recipe="partclipseg.data.prepare.pascal_part:PascalPartRecipe",
        source="PASCAL-Part's Annotations_Part and VOC2010",
        options=("val_list",),
    ),
)
