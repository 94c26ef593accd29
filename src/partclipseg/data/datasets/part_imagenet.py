"""PartImageNet: photos named after their ImageNet synset, part masks as COCO JSON.

He et al., *PartImageNet: A Large, High-Quality Dataset of Parts*, ECCV 2022; split of objects into seen and unseen:
Choi et al., NeurIPS 2024.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from partclipseg.counts import count_of, noun
from partclipseg.data.coco import CocoPhoto, read_coco, repeated_photo
from partclipseg.data.coco_masks import BrokenMaskError, paint_masks
from partclipseg.data.datasets.spec import DatasetSpec, Preparation, Split
from partclipseg.data.paths import LookAlikes, inside
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.sample import UNLABELLED
from partclipseg.data.source import SampleRecord, Source, SourceLabels, SourcePhoto, check_photo_size
from partclipseg.files import is_file
from partclipseg.vocabulary import Catalog, ObjectPart, Vocabulary

NAME = "part-imagenet"
_FOLDERS: dict[Split, str] = {"train": "train", "test": "val"}


@dataclass(frozen=True)
class PartImageNetNames:
    """Names of parts and objects in the files."""

    part_categories: tuple[str, ...]
    """Name of each category, by its id."""
    part_words: tuple[str, ...]
    """Part word of each category id: the category's name without its first word, in lower case."""
    synset_to_object: dict[str, str]

    @classmethod
    def load(cls) -> PartImageNetNames:
        """Read the built-in list."""
        content = json.loads(files("partclipseg").joinpath("data/catalog/part-imagenet-files.json").read_text("utf-8"))
        return cls(
            tuple(content["part_categories"]),
            tuple(category.split(" ", 1)[1].lower() for category in content["part_categories"]),
            {synset: word for word, synset in content["object_synsets"].items()},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PartImageNet(Source):
    """One split of PartImageNet. Its photos are those of the annotation file whose synset is one of the 40 objects."""

    entries: dict[str, CocoPhoto] = field(repr=False)
    """Entries of the photos in the annotation file, by key."""
    object_index: dict[str, int] = field(repr=False)
    """Index into `objects` of each photo, by key."""
    part_words: tuple[str, ...]
    """Part word of each category id."""
    other_synsets: dict[str, int]
    """Number of photos that are left out because their synset is not among the 40 objects, by synset."""

    @classmethod
    def open(cls, root: Path, folder: str) -> PartImageNet:
        """Open the split ``train`` or ``val`` below the root."""
        catalog, names = Catalog.load(NAME), PartImageNetNames.load()
        content = read_coco(root / f"{folder}.json", categories=range(len(names.part_words)))
        objects = {word: index for index, word in enumerate(catalog.objects)}
        defects = list(content.defects)
        photos: list[SourcePhoto] = []
        entries: dict[str, CocoPhoto] = {}
        object_index: dict[str, int] = {}
        others: Counter[str] = Counter()
        look_alikes = LookAlikes()
        for entry in content.photos:
            try:
                path = inside(root / "images" / folder, entry.file_name or "", root / f"{folder}.json")
            except DataError as error:
                defects.append(error.problem)
                continue
            synset = _synset(path)
            word = names.synset_to_object.get(synset)
            if word is None:
                others[synset] += 1
            elif path.stem in entries:
                defects.append(repeated_photo(entries[path.stem], entry, path.stem, root / f"{folder}.json"))
            else:
                alike = None if is_file(path) else look_alikes.find(root / "images" / folder, entry.file_name or "")
                photos.append(SourcePhoto(path.stem, path, alike))
                entries[path.stem] = entry
                object_index[path.stem] = objects[word]
        return cls(
            root=root,
            split=folder,
            object_parts=catalog.object_parts,
            objects=catalog.objects,
            photos=tuple(photos),
            folders=(root / "images" / folder,),
            defects=tuple(defects),
            entries=entries,
            object_index=object_index,
            part_words=names.part_words,
            other_synsets=dict(others),
        )

    @property
    def label_file(self) -> Path:
        """Annotation file, as in `Source.label_file`."""
        return self.root / f"{self.split}.json"

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """Read as in `Source.read_labels`; the object is the union of its parts, and small parts lie on top."""
        file, entry = self.label_file, self.entries[photo.key]
        check_photo_size(photo.path, file, entry.size, size)
        word = self.objects[self.object_index[photo.key]]
        classes = {pair: index for index, pair in enumerate(self.object_parts)}
        labels = []
        for annotation in entry.annotations:
            pair = ObjectPart(word, self.part_words[int(annotation.category)])
            if pair not in classes:
                problem = f"{annotation} of photo {photo.key}: {pair.name} is not in the class list"
                raise DataError(Problem("unknown label", file, problem))
            labels.append(classes[pair])
        try:
            parts = paint_masks(labels, [annotation.segmentation for annotation in entry.annotations], size)
        except BrokenMaskError as error:
            problem = f"{entry.annotations[error.place]} of photo {photo.key}: {error.message}"
            raise DataError(Problem("annotation", file, problem)) from None
        return SourceLabels(parts, np.full_like(parts, UNLABELLED))

    def folder_problems(self) -> Iterator[Problem]:
        """Yield the problems of `Source.folder_problems`; photos of other synsets need no labels."""
        synsets = PartImageNetNames.load().synset_to_object
        return (problem for problem in super().folder_problems() if _synset(problem.file) in synsets)

    def notes(self) -> Iterator[Problem]:
        """Yield the notes of `Source.notes`, and a count of the photos of other synsets."""
        yield from super().notes()
        if self.other_synsets:
            count = sum(self.other_synsets.values())
            photos, synsets = count_of(count, "photo"), count_of(len(self.other_synsets), "synset")
            problem = f"{photos} of {synsets} outside the 40 objects {noun(count, 'is', 'are')} left out"
            yield Problem("left out", self.label_file, problem)


def _synset(photo: Path) -> str:
    return photo.stem.split("_")[0]


def _records(sources: Sequence[Source], vocabulary: Vocabulary, split: Split) -> list[SampleRecord]:
    """Make one record for each photo whose object is in the vocabulary, to train and to test."""
    wanted = {word.casefold() for word in vocabulary.objects}
    return [
        SampleRecord(photo.key, source, photo)
        for source in sources
        if isinstance(source, PartImageNet)
        for photo in source.photos
        if source.objects[source.object_index[photo.key]].casefold() in wanted
    ]


DATASET = DatasetSpec(
    name=NAME,
    summary="a benchmark",
    open_split=lambda root, split, own: PartImageNet.open(root, _FOLDERS[split]),
    layout={split: (f"images/{folder}", f"{folder}.json") for split, folder in _FOLDERS.items()},
    folders=_FOLDERS,
    raw=("PartImageNet_Seg", "annotations/train_whole", "LOC_synset_mapping.txt"),
    records=_records,
    catalog=NAME,
    preparation=Preparation(
        recipe="partclipseg.data.prepare.part_imagenet:PartImageNetRecipe", source="PartImageNet_Seg"
    ),
)
