"""Every data set on disk behind one function."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from partclipseg.data import ade20k_part, part_imagenet, pascal_part
from partclipseg.data.ade20k_part import ADE20KPart
from partclipseg.data.layout import LAYOUTS, has_any_of_split, has_split, require_split
from partclipseg.data.own import CocoSource, IndexPngSource, find_annotations
from partclipseg.data.part_imagenet import PartImageNet
from partclipseg.data.pascal_part import PascalPart
from partclipseg.data.problem import DataError
from partclipseg.data.source import FileDataset, Record, Source
from partclipseg.errors import UsageError
from partclipseg.vocabulary import Catalog, ObjectPart, Vocabulary, plain_word

DATASETS = (*LAYOUTS, "coco", "index-png")

Split = Literal["train", "test"]

_log = logging.getLogger(__name__)


class OwnOptions(TypedDict, total=False):
    """What has to be said about photos annotated by yourself."""

    object: str | None
    """The object whose parts all classes are."""
    mapping: str | Path | Mapping[str, Any] | None
    """What each class stands for: see `classes.read_mapping`."""
    annotations: str | Path | None
    """``coco``: the annotation file, where it has no usual name."""
    images: str | Path | None
    """``coco``: the folder of the photos, where they lie neither beside the file nor below the root."""
    classes: str | Path | None
    """``index-png``: the class list, where it is not ``classes.txt``, ``.yaml`` or ``.json`` in the root."""


def open_dataset(
    name: str,
    root: str | Path,
    split: Split = "test",
    vocabulary: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str | Path | None = None,
    **own: Unpack[OwnOptions],
) -> FileDataset:
    """Open one split of a data set.

    The train split has one record a photo, the test split the records of the published protocol: on
    Pascal-Part-116 one for each photo and each object with parts in it, on ADE20K-Part-234 one for each object
    instance of the validation file and each instance of an unseen object in the training file, elsewhere one a photo.

    Args:
        name: one of `DATASETS`.
        root: the data set's folder; of ``coco`` also the JSON file itself.
        split: ``train`` or ``test``.
        vocabulary: the words in use: ``"seen"``, ``"all"``, or anything that `Vocabulary.load` takes. By default
            a benchmark's seen classes to train and all of them to test; all classes of own data.
        **own: see `OwnOptions`.

    Raises:
        UsageError: unknown names, or a root that is not this data set's; the message proposes the right one.
        DataError: an annotation file is missing or wrong.
    """
    root = Path(root).expanduser()
    check_options(name, split, own)
    if (name, split) == (ade20k_part.NAME, "test"):
        sources = _ade20k_test(root)
    else:
        sources = [open_source(name, root, split, own)]
    for defect in (defect for source in sources for defect in source.defects):
        raise DataError(defect)
    words = _vocabulary(name, split, sources[0], vocabulary)
    seen_pairs = {ObjectPart(*map(plain_word, pair)) for pair in sources[0].object_parts}
    if name in LAYOUTS:
        catalog = Catalog.load(name)
        seen_pairs = {catalog.object_parts[index] for index in catalog.seen}
    seen = [index for index, pair in enumerate(words.object_parts) if pair in seen_pairs]
    records = _records(split, sources, words)
    if not records:
        raise UsageError(f"{root}: the {split} split of {name} has no record of an object of the vocabulary")
    return FileDataset(name, split, words, records, seen)


def check_options(name: str, split: str, own: OwnOptions) -> None:
    """Raise `UsageError` for names that there are not, and for options that do not go together."""
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    if split not in ("train", "test"):
        raise UsageError(f"unknown split {split!r}: choose train or test")
    allowed = {"coco": {"object", "mapping", "annotations", "images"}, "index-png": {"object", "mapping", "classes"}}
    for option, value in own.items():
        if value is not None and option not in allowed.get(name, ()):
            raise UsageError(f"--{option} does not apply to {name}: leave it out")


def open_source(name: str, root: Path, split: Split, own: OwnOptions) -> Source:
    """The files of one split; raises as `open_dataset` does."""
    if name in LAYOUTS:
        require_split(root, name, split)
    if name == pascal_part.NAME:
        return PascalPart.open(root, pascal_part.FOLDERS[split])
    if name == ade20k_part.NAME:
        return ADE20KPart.open(root, ade20k_part.FOLDERS[split])
    if name == part_imagenet.NAME:
        return PartImageNet.open(root, part_imagenet.FOLDERS[split])
    object, mapping = own.get("object"), own.get("mapping")
    meanings = mapping if mapping is None or isinstance(mapping, Mapping) else Path(mapping)
    if name == "coco":
        file = _path(own.get("annotations")) or find_annotations(root, split)
        return CocoSource.open(file, root, split, object, meanings, _path(own.get("images")))
    return IndexPngSource.open(root, split, object, meanings, _path(own.get("classes")))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def _ade20k_test(root: Path) -> list[Source]:
    """The validation files and, for instances of unseen objects, the training files, as far as they are there."""
    name = ade20k_part.NAME
    splits: tuple[Split, ...] = ("test", "train")
    present = [split for split in splits if has_split(root, name, split)]
    if "test" not in present and (not present or has_any_of_split(root, name, "test")):
        require_split(root, name, "test")
    for split in splits:
        if split not in present:
            _log.warning(
                "%s has no %s files: their instances are missing from the test records, so the scores cannot be "
                "compared with published ones",
                root,
                ade20k_part.FOLDERS[split],
            )
    return [ADE20KPart.open(root, ade20k_part.FOLDERS[split]) for split in present]


def _vocabulary(
    name: str,
    split: Split,
    source: Source,
    words: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str | Path | None,
) -> Vocabulary:
    if words is None:
        words = "seen" if split == "train" else "all"
    if words == "seen" and name in LAYOUTS:
        return Vocabulary.from_catalog(name, "seen")
    if words in ("seen", "all"):
        return Vocabulary(source.object_parts)
    return Vocabulary.load(words)


def _records(split: Split, sources: list[Source], vocabulary: Vocabulary) -> list[Record]:
    if split == "test" and isinstance(sources[0], ADE20KPart):
        return ade20k_part.test_records([s for s in sources if isinstance(s, ADE20KPart)], vocabulary)
    if split == "test" and isinstance(sources[0], PascalPart):
        return pascal_part.test_records(sources[0], vocabulary)
    if isinstance(sources[0], PartImageNet):
        return part_imagenet.records(sources[0], vocabulary)
    return [Record(photo.key, source, photo) for source in sources for photo in source.photos]
