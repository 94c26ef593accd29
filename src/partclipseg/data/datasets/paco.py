"""PACO: objects and their parts as instances, in photos of COCO (PACO-LVIS) or frames of Ego4D (PACO-EGO4D).

Ramanathan et al., *PACO: Parts and Attributes of Common Objects*, CVPR 2023.

    ROOT/paco_lvis_v1_train.json, paco_lvis_v1_test.json    or in ROOT/annotations
    ROOT/train2017/*.jpg, ROOT/val2017/*.jpg                photos of COCO

The files are COCO JSON with categories such as ``dog`` and ``dog:ear``. A part names its object by ``obj_ann_id``, and
each photo lists the categories that are known to be absent and those of which not everything is annotated. PACO has no
published split into seen and unseen classes. A model trained on COCO's or LVIS's train2017 has seen its photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from partclipseg.counts import count_of
from partclipseg.data.coco import read_coco
from partclipseg.data.datasets.coco_source import CocoSource
from partclipseg.data.datasets.roots import MissingSplitError
from partclipseg.data.datasets.spec import DatasetSpec, OwnOptions, Split
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.source import FileDataset
from partclipseg.errors import UsageError
from partclipseg.files import expanded
from partclipseg.vocabulary import ObjectPart

_OBJECT_PARTS = 456
"""Number of object-parts of PACO-LVIS."""

_FOLDERS = ("", "annotations", "paco_lvis_v1", "annotations/paco_lvis_v1")


@dataclass(frozen=True, kw_only=True, eq=False)
class PacoSource(CocoSource):
    """One file of PACO. Annotations without a mask are left out, as its own reader does, objects too."""

    unites_parts = False

    without_mask: int
    """Number of annotations whose ``segmentation`` is empty."""

    @classmethod
    def open_paco(cls, file: Path, root: Path, split: str, images: Path | None = None) -> PacoSource:
        """Open an annotation file; the photos lie in `images`, or in `root` or beside the file.

        Raises:
            DataError: the file is missing or is no COCO file, or no category is an object's part.
        """
        content = read_coco(file)
        meanings = [_meaning(category.name) for category in content.categories]
        if content.categories and not any(isinstance(meaning, ObjectPart) for meaning in meanings):
            problem = 'has no category such as "dog:ear", so it is not PACO\'s: name it as the data set coco'
            raise DataError(Problem("class list", file, problem))
        masked = tuple(
            replace(photo, annotations=tuple(one for one in photo.annotations if one.segmentation != []))
            for photo in content.photos
        )
        kept, all_of_them = (sum(len(photo.annotations) for photo in photos) for photos in (masked, content.photos))
        fields = cls.fields_of(replace(content, photos=masked), meanings, file, root, split, images)
        return cls(**fields, without_mask=all_of_them - kept)

    def notes(self) -> Iterator[Problem]:
        """Yield the notes of `Source.notes`, and a count of the annotations without a mask."""
        yield from super().notes()
        if self.without_mask:
            left_out = count_of(self.without_mask, "annotation is", "annotations are")
            yield Problem("left out", self.file, f"{left_out} left out, without a mask")


def _meaning(name: str) -> ObjectPart | str:
    """Return what a category stands for: ``car_(automobile):wheel`` is the wheel of a car (automobile)."""
    word, colon, part = name.replace("_", " ").partition(":")
    return ObjectPart(word, part) if colon else word


def _open(root: Path, split: Split, own: OwnOptions) -> PacoSource:
    images, file = own.get("images"), own.get("annotations")
    path = _find(root, split) if file is None else expanded(file)
    return PacoSource.open_paco(path, root, split, None if images is None else expanded(images))


def _find(root: Path, split: str) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder: check --data")
    name = f"paco_lvis_v1_{split}.json"
    if found := next((root / folder / name for folder in _FOLDERS if (root / folder / name).is_file()), None):
        return found
    others = sorted(path for pattern in ("paco*.json", "*/paco*.json") for path in root.glob(pattern))
    names = ", ".join(str(path.relative_to(root)) for path in others[:3])
    remedy = f"name {names} with --annotations" if others else "unpack paco_lvis_v1.zip there, or check --data"
    raise MissingSplitError(f"{root} has no {name}, nor has its folder annotations: {remedy}")


def _remark(dataset: FileDataset) -> str:
    number = len(dataset.records[0].source.object_parts)
    has = f"the file has {count_of(number, 'object-part')}, PACO-LVIS has {_OBJECT_PARTS}"
    return "" if number == _OBJECT_PARTS else has


DATASET = DatasetSpec(
    name="paco",
    summary="a benchmark whose parts name their object",
    open_split=_open,
    options=frozenset({"annotations", "images"}),
    remark=_remark,
)
