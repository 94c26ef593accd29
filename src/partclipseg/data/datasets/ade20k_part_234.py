"""ADE20K-Part-234: photos, 16-bit part maps and object instances as COCO JSON, in the released layout.

Wei, Yue, Zhang et al., *OV-PARTS: Towards Open-Vocabulary Part Segmentation*, NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from partclipseg.data.coco import Annotation, CocoPhoto, read_coco, repeated_photo
from partclipseg.data.coco_masks import BrokenMaskError, decode_mask, paint_masks
from partclipseg.data.datasets.roots import has_split
from partclipseg.data.datasets.spec import DatasetSpec, Preparation, Split, one_a_photo
from partclipseg.data.label_map import numbered_table, read_label_map
from partclipseg.data.paths import files_by_stem, inside
from partclipseg.data.photo import PHOTO_SUFFIXES
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.source import FileDataset, SampleRecord, Source, SourceLabels, SourcePhoto, check_photo_size
from partclipseg.errors import PartCLIPSegError
from partclipseg.vocabulary import Catalog, Vocabulary

NAME = "ade20k-part-234"
_FOLDERS: dict[Split, str] = {"train": "training", "test": "validation"}
PARTS = "annotations_detectron2_part"
"""Folder of the part maps."""
INSTANCES = {"training": "ade20k_instance_train.json", "validation": "ade20k_instance_val.json"}
"""File of the object instances of each folder of photos."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ADE20KPart(Source):
    """One split of ADE20K-Part-234. Its photos are those with a part map and those of the instance file."""

    part_table: np.ndarray = field(repr=False)
    instances: dict[str, CocoPhoto] = field(repr=False)
    """Entries of the photos in the instance file, by key."""

    @classmethod
    def open(cls, root: Path, folder: str) -> ADE20KPart:
        """Open the split ``training`` or ``validation`` below the root."""
        catalog = Catalog.load(NAME)
        images = root / "images" / folder
        content = read_coco(root / INSTANCES[folder], categories=range(len(catalog.objects)))
        defects = list(content.defects)
        instances: dict[str, CocoPhoto] = {}
        for photo in content.photos:
            try:
                path = inside(images, photo.file_name or "", root / INSTANCES[folder])
            except DataError as error:
                defects.append(error.problem)
            else:
                if (first := instances.setdefault(path.stem, photo)) is not photo:
                    defects.append(repeated_photo(first, photo, path.stem, root / INSTANCES[folder]))
        photos = files_by_stem(images, PHOTO_SUFFIXES, defects)
        keys = sorted({*files_by_stem(root / PARTS / folder, frozenset({".png"})), *instances})
        return cls(
            root=root,
            split=folder,
            object_parts=catalog.object_parts,
            objects=catalog.objects,
            photos=tuple(SourcePhoto(key, photos.get(key, images / f"{key}.jpg")) for key in keys),
            folders=(images, root / PARTS / folder),
            defects=tuple(defects),
            part_table=numbered_table(len(catalog.object_parts), catalog.ignore_label),
            instances=instances,
        )

    def annotations(self, photo: SourcePhoto) -> tuple[Annotation, ...]:
        """Return the object instances of a photo, in the file's order."""
        entry = self.instances.get(photo.key)
        return entry.annotations if entry else ()

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """Read as in `Source.read_labels`; of overlapping instances the smaller lies on top."""
        parts = read_label_map(self._map(photo.key), self.part_table, 16, size)
        if entry := self.instances.get(photo.key):
            check_photo_size(photo.path, self._file, entry.size, size)
        annotations = self.annotations(photo)
        categories = [int(annotation.category) for annotation in annotations]
        try:
            objects = paint_masks(categories, [annotation.segmentation for annotation in annotations], size)
        except BrokenMaskError as error:
            raise self._broken(photo, error.place, error.message) from None
        return SourceLabels(parts, objects)

    def instance_mask(self, photo: SourcePhoto, instance: int, size: tuple[int, int]) -> np.ndarray:
        """Read as `Source.instance_mask`."""
        try:
            return decode_mask(self.annotations(photo)[instance].segmentation, size)
        except PartCLIPSegError as error:
            raise self._broken(photo, instance, str(error)) from None

    @property
    def _file(self) -> Path:
        return self.root / INSTANCES[self.split]

    @property
    def label_file(self) -> Path:
        """Annotation file, as in `Source.label_file`."""
        return self._file

    def _map(self, key: str) -> Path:
        return self.root / PARTS / self.split / f"{key}.png"

    def _broken(self, photo: SourcePhoto, place: int, message: str) -> DataError:
        annotation = self.annotations(photo)[place]
        return DataError(Problem("annotation", self._file, f"{annotation} of photo {photo.key}: {message}"))


def _records(sources: Sequence[Source], vocabulary: Vocabulary, split: Split) -> list[SampleRecord]:
    """Make one record for each photo to train.

    To test, make one for each instance in the validation photos, and for each instance of an unseen object in the
    training photos.
    """
    if split == "train":
        return one_a_photo(sources, vocabulary, split)
    unseen = {word.casefold() for word in Catalog.load(NAME).unseen_objects}
    wanted = {word.casefold() for word in vocabulary.objects}
    records = []
    for source in sources:
        assert isinstance(source, ADE20KPart)
        words = wanted if source.split == _FOLDERS["test"] else wanted & unseen
        for photo in source.photos:
            for place, annotation in enumerate(source.annotations(photo)):
                word = source.objects[int(annotation.category)]
                if word.casefold() in words:
                    key = f"{photo.key}-{word.replace(' ', '_')}-{place}"
                    records.append(SampleRecord(key, source, photo, int(annotation.category), place))
    return records


def _remark(dataset: FileDataset) -> str:
    # By the files: the records of either may all be left out, such as those of photos that a model was trained on.
    root = dataset.records[0].source.root
    if missing := [_FOLDERS[split] for split in DATASET.test_splits if not has_split(root, DATASET, split)]:
        return f"the test records draw on the training and the validation files, and the {missing[0]} ones are missing"
    return ""


DATASET = DatasetSpec(
    name=NAME,
    summary="a benchmark",
    open_split=lambda root, split, own: ADE20KPart.open(root, _FOLDERS[split]),
    layout={split: (f"images/{folder}", f"{PARTS}/{folder}", INSTANCES[folder]) for split, folder in _FOLDERS.items()},
    folders=_FOLDERS,
    raw=("ADE20K_2021_17_01", "images/ADE", "index_ade20k.pkl"),
    records=_records,
    test_splits=("test", "train"),
    catalog=NAME,
    preparation=Preparation(recipe="partclipseg.data.prepare.ade20k_part:ADE20KPartRecipe", source="ADE20K_2021_17_01"),
    remark=_remark,
)
