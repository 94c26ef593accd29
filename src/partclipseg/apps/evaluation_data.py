"""Data of ``evaluate``: the data set is opened, its files are checked and described by digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from partclipseg.apps.terminal import count_bar
from partclipseg.data.datasets.spec import Split
from partclipseg.errors import UsageError

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from partclipseg.data.datasets.spec import Rendering
    from partclipseg.data.loader import PartDataset
    from partclipseg.evaluation.cross import SharedWords
    from partclipseg.evaluation.run import PhotoRecords
    from partclipseg.vocabulary import Vocabulary

SplitChoice = Split | Literal["instances"]
"""Split that a caller may name; rendered scenes have one with several objects of a kind."""


@dataclass(frozen=True)
class Subject:
    """Data set to score."""

    dataset: PartDataset
    photos: list[PhotoRecords]
    remark: str = ""
    """Reason why this is not the whole benchmark; empty if it is."""
    shared: SharedWords | None = None
    """Words that the model was trained on, where they are another data set's."""
    digest: Mapping[str, str] = field(default_factory=dict)
    """Digest of the settings of rendered scenes; empty for files, whose digest is computed."""

    def digests(self, verify: bool) -> dict[str, str]:
        """Compute digests of the photos and their annotations, `verify` as in `fingerprint`."""
        from partclipseg.data.fingerprint import fingerprint
        from partclipseg.data.source import FileDataset
        from partclipseg.evaluation.state import text_digest

        keys = {"records": text_digest([key for photo in self.photos for key in photo.record_keys])}
        if not isinstance(self.dataset, FileDataset):
            return {**keys, **self.digest}
        records = [self.dataset.records[photo.indices[0]] for photo in self.photos]
        return {**fingerprint(self.dataset, records, verify), **keys}


def open_scenes(
    name: str, rendering: Rendering, split: SplitChoice, limit: int | None, vocabulary: str | None
) -> Subject:
    """Open rendered scenes; raises `UsageError` for words or a split that they do not have."""
    from partclipseg.evaluation.run import group_records

    words = vocabulary or "all"
    if words not in ("all", "seen"):
        raise UsageError(f"{name} has the words 'seen' and 'all', not {words!r}: leave --vocabulary out")
    if split not in rendering.splits:
        raise UsageError(f"{name} has the splits {', '.join(rendering.splits)}, not {split}")
    scenes, size = rendering.splits[split]
    dataset = rendering.load()(split, limit or scenes, size, words)
    return Subject(dataset, group_records(dataset), digest=dataset.digest)


def open_files(
    name: str,
    root: Path,
    split: SplitChoice,
    limit: int | None,
    vocabulary: str | None,
    own: dict[str, Any],
    with_instances: bool,
    by_object_masks: bool,
    processes: PartialState,
    console: Console,
) -> Subject:
    """Check the files of a data set and open it; raises `PartCLIPSegError` for those that are missing or damaged."""
    from partclipseg.data.check import check_together
    from partclipseg.data.datasets.registry import dataset_spec, open_dataset
    from partclipseg.evaluation.run import group_records

    if split == "instances":
        raise UsageError(f"{name} has no split instances: choose train or test")
    with count_bar(console, "checking files") as show:
        check_together(name, root, split, processes, show, **own)
    dataset = open_dataset(name, root, split, vocabulary, **own)
    remark = dataset_spec(name).remark(dataset)
    if with_instances:
        dataset = dataset.with_instances()
    elif by_object_masks:
        dataset = dataset.by_object_masks()
    return Subject(dataset, group_records(dataset)[:limit], remark)


def training_words(words: str, model: str) -> Vocabulary:
    """Return the words that a model was trained on: those that it came with for ``"model"``, else those of `words`."""
    from partclipseg.models.directory import load_vocabulary
    from partclipseg.models.fetch import find_model
    from partclipseg.vocabulary import Vocabulary

    if words != "model":
        return Vocabulary.load(words)
    training = load_vocabulary(find_model(model))
    if training is None:
        raise UsageError(
            f"{model} came without words: name those that it was trained on with --vocabulary-of-training"
        )
    return training
