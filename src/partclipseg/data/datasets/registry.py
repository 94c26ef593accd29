"""List the data sets, and open one."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Unpack

from partclipseg.data.datasets.roots import has_any_of_split, has_split, require_split
from partclipseg.data.datasets.spec import SPLITS, DatasetSpec, OwnOptions, Split
from partclipseg.data.problem import DataError
from partclipseg.data.source import FileDataset, Source
from partclipseg.errors import UsageError
from partclipseg.files import expanded
from partclipseg.vocabulary import Catalog, ObjectPart, Vocabulary, plain_word

DATASETS = {
    "pascal-part-116": "partclipseg.data.datasets.pascal_part_116:DATASET",
    "ade20k-part-234": "partclipseg.data.datasets.ade20k_part_234:DATASET",
    "part-imagenet": "partclipseg.data.datasets.part_imagenet:DATASET",
    "part-imagenet-ood": "partclipseg.data.datasets.part_imagenet_ood:DATASET",
    "part-imagenet-pp": "partclipseg.data.datasets.part_imagenet_pp:DATASET",
    "instructpart": "partclipseg.data.datasets.instructpart:DATASET",
    "partonomy-core": "partclipseg.data.datasets.partonomy_core:DATASET",
    "paco": "partclipseg.data.datasets.paco:DATASET",
    "partshapes": "partclipseg.data.datasets.partshapes:DATASET",
    "partshapes-coarse": "partclipseg.data.datasets.partshapes_coarse:DATASET",
    "coco": "partclipseg.data.datasets.own:COCO",
    "index-png": "partclipseg.data.datasets.own:INDEX_PNG",
}
"""Name of each data set: import path of its `DatasetSpec`. Choices and help texts are made from it."""

_log = logging.getLogger(__name__)


def dataset_spec(name: str) -> DatasetSpec:
    """Import the `DatasetSpec` of a name. Raises `UsageError` for a name that is not in `DATASETS`."""
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    return resolve_name(DATASETS[name])


def dataset_specs() -> Iterator[DatasetSpec]:
    """Import each data set in turn."""
    return (dataset_spec(name) for name in DATASETS)


def open_dataset(
    name: str,
    root: str | Path,
    split: Split = "test",
    vocabulary: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str | Path | None = None,
    **own: Unpack[OwnOptions],
) -> FileDataset:
    """Open one split of a data set.

    The train split has one record for each photo. The test split has the records of the published protocol: on
    Pascal-Part-116 one for each photo and each object with parts in it, on ADE20K-Part-234 one for each object
    instance of the validation file and each instance of an unseen object in the training file, elsewhere one for
    each photo.

    Args:
        name: one of `DATASETS` that lies in files.
        root: the data set's folder; for ``coco`` also the JSON file itself.
        split: ``train`` or ``test``.
        vocabulary: the words in use: ``"seen"``, ``"all"``, or anything that `Vocabulary.load` takes. The default
            is a benchmark's seen classes to train and all of them to test, and all classes of own data.
        **own: see `OwnOptions`.

    Raises:
        UsageError: a name is unknown, or the root is not this data set's; the message proposes the right one.
        DataError: an annotation file is missing or wrong.
    """
    root = expanded(root)
    spec = file_spec(name, split, own)
    sources = [open_source(spec, root, one, own) for one in _splits_to_open(spec, root, split)]
    if defects := [defect for source in sources for defect in source.defects]:
        raise DataError(defects[0])
    words = _vocabulary(spec, split, sources[0], vocabulary)
    seen_pairs = {ObjectPart(*map(plain_word, pair)) for pair in sources[0].object_parts}
    if spec.catalog is not None:
        catalog = Catalog.load(spec.catalog)
        seen_pairs = {catalog.object_parts[index] for index in catalog.seen}
    seen = [index for index, pair in enumerate(words.object_parts) if pair in seen_pairs]
    records = spec.records(sources, words, split)
    if not records:
        raise UsageError(f"{root}: the {split} split of {name} has no record of an object of the vocabulary")
    if vocabulary is not None:
        _check_shared(name, words, [ObjectPart(*map(plain_word, pair)) for one in sources for pair in one.object_parts])
    return FileDataset(name, split, words, records, seen)


def _check_shared(name: str, words: Vocabulary, labelled: Collection[ObjectPart]) -> None:
    """Raise `UsageError` where none of the words is a class of the data set: nothing could be trained or scored."""
    asked, known = ({pair.name.casefold() for pair in pairs} for pairs in (words.object_parts, labelled))
    if known and not asked & known:
        raise UsageError(
            f"no object-part of the vocabulary, such as {words.names[0]}, is a class of {name}, such as "
            f"{min(labelled).name}: write the words as the data set does"
        )


def file_spec(name: str, split: str, own: OwnOptions) -> DatasetSpec:
    """Return the data set of a name if it lies in files and has the split and the options; else raise `UsageError`."""
    spec = dataset_spec(name)
    if spec.open_split is None:
        names = ", ".join(spec.name for spec in dataset_specs() if spec.open_split is not None)
        raise UsageError(f"{name} is rendered and has no files: choose one of {names}")
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: choose {' or '.join(SPLITS)}")
    for option, value in own.items():
        if value is not None and option not in spec.options:
            raise UsageError(f"--{option} does not apply to {name}: leave it out")
    return spec


def open_source(spec: DatasetSpec, root: Path, split: Split, own: OwnOptions) -> Source:
    """Open the files of one split; raises as `open_dataset` does."""
    assert spec.open_split is not None
    if spec.layout:
        require_split(root, spec, split, dataset_specs())
    return spec.open_split(root, split, own)


def _splits_to_open(spec: DatasetSpec, root: Path, split: Split) -> Sequence[Split]:
    """Return the splits that the records come from and whose files are there; warn of missing ones."""
    wanted: Sequence[Split] = spec.test_splits if split == "test" else ("train",)
    if not spec.layout:
        return wanted
    present: list[Split] = [one for one in wanted if has_split(root, spec, one)]
    if split not in present and (not present or has_any_of_split(root, spec, split)):
        require_split(root, spec, split, dataset_specs())
    for one in wanted:
        if one not in present:
            _log.warning(
                "%s has no %s files: their instances are missing from the test records, so the scores cannot be "
                "compared with published ones",
                root,
                spec.folder(one),
            )
    return present


def _vocabulary(
    spec: DatasetSpec,
    split: Split,
    source: Source,
    words: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str | Path | None,
) -> Vocabulary:
    if words is None:
        words = "seen" if split == "train" else "all"
    if words == "seen" and spec.catalog is not None:
        return Vocabulary.from_catalog(spec.catalog, "seen")
    if words in ("seen", "all"):
        return Vocabulary(source.object_parts).with_objects("a data set")
    return Vocabulary.load(words).with_objects("a data set")
