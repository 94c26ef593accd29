"""PartImageNet's OOD split: 158 ImageNet classes, of which none is in two splits, labelled with 40 parts of 11 kinds.

He et al., *PartImageNet: A Large, High-Quality Dataset of Parts*, ECCV 2022. The release names kinds of objects, not
the objects, in its categories ("Quadruped Head"), so a class here is ``quadruped's head``: it can be asked of photos of
objects that no split shares. ``train`` has 109 of the ImageNet classes and ``test`` 30; ``val`` (19) is not read.
"""

from __future__ import annotations

from pathlib import Path

from partclipseg.data.coco import Category, CocoPhoto, read_coco, repeated_photo
from partclipseg.data.datasets.part_imagenet import PartImageNetNames
from partclipseg.data.datasets.spec import DatasetSpec, Preparation, Split
from partclipseg.data.painted import PaintedPhoto, PaintedSource, PartMask
from partclipseg.data.paths import LookAlikes, inside
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.source import SourcePhoto
from partclipseg.data.values import quoted
from partclipseg.files import is_file
from partclipseg.vocabulary import ObjectPart

NAME = "part-imagenet-ood"
_SPLITS: tuple[Split, ...] = ("train", "test")


def part_of(category: str) -> ObjectPart:
    """Return the object-part of a category such as ``Car Side Mirror``: its first word is the kind of object."""
    kind, _, part = category.strip().lower().partition(" ")
    return ObjectPart(kind, part.strip())


def open_split(root: Path, split: str) -> PaintedSource:
    """Open ``train`` or ``test``: its annotation file in the root, and photos in the folder of its name."""
    file, folder = root / f"{split}.json", root / split
    content = read_coco(file)
    pairs = tuple(map(part_of, PartImageNetNames.load().part_categories))
    index = {pair: label for label, pair in enumerate(pairs)}
    defects = list(content.defects)
    labels = {category.number: _label(category, index, file, defects) for category in content.categories}
    photos: list[SourcePhoto] = []
    painted: dict[str, PaintedPhoto] = {}
    entries: dict[str, CocoPhoto] = {}
    look_alikes = LookAlikes()
    for entry in content.photos:
        try:
            path = _photo(folder, entry, file)
        except DataError as error:
            defects.append(error.problem)
            continue
        key = path.stem
        if key in entries:
            defects.append(repeated_photo(entries[key], entry, key, file))
            continue
        alike = None if is_file(path) else look_alikes.find(folder, path.relative_to(folder).as_posix())
        photos.append(SourcePhoto(key, path, alike))
        entries[key] = entry
        masks = (PartMask(labels.get(a.category, -1), a.segmentation, str(a)) for a in entry.annotations)
        painted[key] = PaintedPhoto(tuple(mask for mask in masks if mask.label >= 0), entry.size, file)
    return PaintedSource(
        root=root,
        split=split,
        object_parts=pairs,
        objects=tuple(dict.fromkeys(pair.object for pair in pairs)),
        photos=tuple(photos),
        folders=(folder,),
        defects=tuple(defects),
        painted=painted,
        file=file,
    )


def _label(category: Category, index: dict[ObjectPart, int], file: Path, defects: list[Problem]) -> int:
    label = index.get(part_of(category.name), -1)
    if label < 0:
        message = (
            f"the category {quoted(category.name)} is none of PartImageNet's 40, such as 'Quadruped Head': fetch the "
            "file again"
        )
        defects.append(Problem("class list", file, message))
    return label


def _photo(folder: Path, entry: CocoPhoto, file: Path) -> Path:
    """Return the photo's path: as the file writes it, or in the folder of its synset, where the release has it."""
    path = inside(folder, entry.file_name or "", file)
    by_synset = path.parent / path.stem.split("_")[0] / path.name
    return by_synset if is_file(by_synset) or (not is_file(path) and path.parent == folder) else path


DATASET = DatasetSpec(
    name=NAME,
    summary="a benchmark",
    open_split=lambda root, split, own: open_split(root, split),
    layout={split: (f"{split}.json", split) for split in _SPLITS},
    raw=("PartImageNet_OOD*", "train.zip", "annotations/val.json", "annotations/val/val.json"),
    preparation=Preparation(
        recipe="partclipseg.data.prepare.part_imagenet_ood:PartImageNetOODRecipe",
        source="PartImageNet_OOD.zip, or its folder with the archives in it unpacked",
    ),
)
