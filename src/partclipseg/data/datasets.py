"""Every data set on disk behind one function."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from partclipseg.data import ade20k_part, part_imagenet, pascal_part
from partclipseg.data.ade20k_part import ADE20KPart
from partclipseg.data.layout import has_any_of_split, has_split, require_split
from partclipseg.data.own import CocoSource, IndexPngSource, find_annotations
from partclipseg.data.part_imagenet import PartImageNet
from partclipseg.data.pascal_part import PascalPart
from partclipseg.data.source import FileDataset, Record, Source
from partclipseg.errors import UsageError
from partclipseg.vocabulary import CATALOGS, Catalog, Vocabulary

DATASETS = (*CATALOGS, "coco", "index-png")

Split = Literal["train", "test"]

_log = logging.getLogger(__name__)


def open_dataset(
    name: str,
    root: str | Path,
    split: Split = "test",
    vocabulary: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str | Path | None = None,
    *,
    object: str | None = None,
    mapping: str | Path | Mapping[str, Any] | None = None,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    classes: str | Path | None = None,
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
        object: own data: the object whose parts all classes are.
        mapping: own data: what each class stands for, see `classes.read_mapping`.
        annotations: ``coco``: the annotation file, where it has no usual name.
        images: ``coco``: the folder of the photos, where they do not lie beside the file or below the root.
        classes: ``index-png``: the class list, where it is not ``classes.txt``, ``.yaml`` or ``.json`` in the root.

    Raises:
        UsageError: unknown names, or a root that is not this data set's; the message proposes the right one.
        DataError: an annotation file is missing or wrong.
    """
    root = Path(root).expanduser()
    sources = open_sources(
        name, root, split, object=object, mapping=mapping, annotations=annotations, images=images, classes=classes
    )
    words = _vocabulary(name, split, sources[0], vocabulary)
    if name in CATALOGS:
        catalog = Catalog.load(name)
        seen_pairs = {catalog.object_parts[index] for index in catalog.seen}
        seen = [index for index, pair in enumerate(words.object_parts) if pair in seen_pairs]
    else:
        seen = list(range(len(words)))
    records = _records(name, split, sources, words)
    if not records:
        raise UsageError(f"{root}: the {split} split of {name} has no record of an object of the vocabulary")
    return FileDataset(name, split, words, records, seen)


def open_sources(
    name: str,
    root: Path,
    split: Split,
    *,
    object: str | None = None,
    mapping: str | Path | Mapping[str, Any] | None = None,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    classes: str | Path | None = None,
) -> list[Source]:
    """The files behind one split, see `open_dataset`; ADE20K-Part-234's test split draws on two sources."""
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    if split not in ("train", "test"):
        raise UsageError(f"unknown split {split!r}: choose train or test")
    given = {"object": object, "mapping": mapping, "annotations": annotations, "images": images, "classes": classes}
    allowed = {"coco": {"object", "mapping", "annotations", "images"}, "index-png": {"object", "mapping", "classes"}}
    for option, value in given.items():
        if value is not None and option not in allowed.get(name, ()):
            raise UsageError(f"--{option} does not apply to {name}: leave it out")
    table = mapping if mapping is None or isinstance(mapping, Mapping) else Path(mapping)
    if name == "coco":
        file = Path(annotations) if annotations is not None else find_annotations(root, split)
        folder = Path(images) if images is not None else None
        return [CocoSource.open(file, root, split, object, table, folder)]
    if name == "index-png":
        return [IndexPngSource.open(root, split, object, table, Path(classes) if classes is not None else None)]
    if name == ade20k_part.NAME and split == "test":
        return _ade20k_test(root)
    require_split(root, name, split)
    if name == ade20k_part.NAME:
        return [ADE20KPart.open(root, ade20k_part.FOLDERS[split])]
    if name == part_imagenet.NAME:
        return [PartImageNet.open(root, part_imagenet.FOLDERS[split])]
    return [PascalPart.open(root, pascal_part.FOLDERS[split])]


def _ade20k_test(root: Path) -> list[Source]:
    """The validation files and, for instances of unseen objects, the training files, as far as they are there."""
    present = [split for split in ("test", "train") if has_split(root, ade20k_part.NAME, split)]
    if "test" not in present and (not present or has_any_of_split(root, ade20k_part.NAME, "test")):
        require_split(root, ade20k_part.NAME, "test")
    for split in {"test", "train"} - set(present):
        _log.warning(
            "%s has no %s files: its instances are missing from the test records, and scores cannot be compared "
            "with published ones",
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
    if words == "all" or (words == "seen" and name not in CATALOGS):
        return Vocabulary(source.object_parts)
    if words == "seen":
        return Vocabulary.from_catalog(name, "seen")
    return Vocabulary.load(words)


def _records(name: str, split: Split, sources: list[Source], vocabulary: Vocabulary) -> list[Record]:
    if name == ade20k_part.NAME and split == "test":
        return ade20k_part.test_records([s for s in sources if isinstance(s, ADE20KPart)], vocabulary)
    (source,) = sources
    if isinstance(source, PascalPart) and split == "test":
        return pascal_part.test_records(source, vocabulary)
    if isinstance(source, PartImageNet):
        return part_imagenet.records(source, vocabulary)
    return [Record(photo.key, source, photo) for photo in source.photos]
