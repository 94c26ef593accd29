"""A root that is not the data set's: what was probably meant is proposed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from partclipseg.data.datasets.registry import dataset_spec, dataset_specs
from partclipseg.data.datasets.roots import has_split, require_split
from partclipseg.errors import PartCLIPSegError

PASCAL, ADE, PART_IMAGENET = "pascal-part-116", "ade20k-part-234", "part-imagenet"


def build(root: Path, dataset: str = PASCAL, splits: tuple[str, ...] = ("train", "test")) -> Path:
    for split in splits:
        for needed in dataset_spec(dataset).layout[split]:
            path = root / needed
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir()
    return root


def rename(*pairs: tuple[str, str]) -> Callable[[Path], Path]:
    """Build the layout, then give some of its folders other names."""

    def make(root: Path) -> Path:
        build(root)
        for old, new in pairs:
            (root / old).rename(root / new)
        return root

    return make


def only_folder(root: Path, name: str) -> Path:
    (root / name).mkdir(parents=True)
    return root


PARTS, OBJECTS = "annotations_detectron2_part", "annotations_detectron2_obj"


@pytest.mark.parametrize(
    ("dataset", "make", "message"),
    [
        (PASCAL, lambda root: build(root / "PascalPart116").parent, r"probably .*/PascalPart116: use --data"),
        (PASCAL, lambda root: build(root / "a" / "voc").parents[1], "probably .*/a/voc: use --data"),
        (PASCAL, lambda root: build(root) / "images", r"images is not the root .* probably .*/data: use --data"),
        (PASCAL, lambda root: build(root) / "images" / "val", "probably .*/data: use --data"),
        (PASCAL, lambda root: build(root).with_name("Data"), r"no such folder; did you mean .*/data\?"),
        (PASCAL, lambda root: root / "x" / "y", r"no such folder; .*/x is not there either"),
        (PASCAL, lambda root: build(root, ADE), "holds ade20k-part-234, not pascal-part-116"),
        (ADE, lambda root: build(root / "voc").parent, "holds pascal-part-116, not ade20k-part-234: .* --data .*/voc"),
        (PASCAL, rename(("images", "Images")), r"images/val is missing \(found Images/val: rename it to images/val\)"),
        (
            PASCAL,  # other capitals are nearer than another word
            lambda root: only_folder(rename(("images", "Images"))(root), "JPEGImages/val"),
            "found Images/val: rename",
        ),
        (PASCAL, rename((PARTS, "annotations")), f"{PARTS}/val is missing \\(found annotations/val: rename"),
        (PASCAL, rename((PARTS, "anotations_detectron2_part")), r"\(found anotations_detectron2_part/val: rename"),
        (PASCAL, rename((OBJECTS, "annotations_obj")), r"\(found annotations_obj/val: rename"),
        (
            PASCAL,
            rename(("images/val", "images/validation"), ("images/train", "images/training")),
            r"images/val is missing \(found images/validation: rename it to images/val\)",
        ),
        (ADE, lambda root: only_folder(root, "images/val"), "found images/val: rename it to images/validation"),
        (PASCAL, lambda root: only_folder(root, "nothing"), f"images/val is missing; {PARTS}/val is missing;"),
        (PASCAL, lambda root: only_folder(root, "Annotations_Part"), "raw source .* partclipseg prepare pascal"),
        (ADE, lambda root: only_folder(root, "images/ADE"), "raw source .* partclipseg prepare ade20k-part-234"),
        (PASCAL, lambda root: build(root, splits=("train",)), "has the train split of pascal-part-116, but"),
        (PART_IMAGENET, lambda root: only_folder(root, "images/val"), "not the root of part-imagenet: val.json is"),
    ],
)  # fmt: skip
def test_wrong_roots(tmp_path: Path, dataset: str, make: Callable[[Path], Path], message: str) -> None:
    root = make(tmp_path / "data")
    with pytest.raises(PartCLIPSegError, match=message):
        require_split(root, dataset_spec(dataset), "test", dataset_specs())


@pytest.mark.parametrize("dataset", [PASCAL, ADE, PART_IMAGENET])
def test_right_roots(tmp_path: Path, dataset: str) -> None:
    root = build(tmp_path, dataset)
    for split in ("train", "test"):
        require_split(root, dataset_spec(dataset), split)
        assert has_split(root, dataset_spec(dataset), split)
