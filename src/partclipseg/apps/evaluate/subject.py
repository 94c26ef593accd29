"""Data set of ``evaluate``: it is opened, its files are checked and described by digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from partclipseg.apps.terminal import count_bar
from partclipseg.counts import count_of
from partclipseg.data.check import check_together
from partclipseg.data.datasets.registry import dataset_spec, open_dataset
from partclipseg.data.datasets.spec import Rendering
from partclipseg.data.few_shot import split_of_model
from partclipseg.data.fingerprint import fingerprint
from partclipseg.data.loader import PartDataset
from partclipseg.data.source import FileDataset
from partclipseg.errors import UsageError
from partclipseg.evaluation.cross import SharedWords
from partclipseg.evaluation.photos import PhotoRecords, group_records
from partclipseg.evaluation.state import text_digest
from partclipseg.evaluation.tasks import zero_shot_words
from partclipseg.models.directory import load_vocabulary
from partclipseg.models.fetch import find_model
from partclipseg.models.registry import is_built_in
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from partclipseg.apps.evaluate.command import Evaluate


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
        keys = {"records": text_digest([key for photo in self.photos for key in photo.record_keys])}
        if not isinstance(self.dataset, FileDataset):
            return {**keys, **self.digest}
        records = [self.dataset.records[photo.indices[0]] for photo in self.photos]
        return {**fingerprint(self.dataset, records, verify), **keys}


def open_subject(options: Evaluate, processes: PartialState, console: Console) -> Subject:
    """Open the data set that options name, and compare its words with those of the training if they are named.

    Raises `UsageError` for options that it does not have, `PartCLIPSegError` for files that are missing or damaged.
    """
    if (rendering := dataset_spec(options.dataset).rendering) is not None:
        subject = _open_scenes(options, rendering)
    else:
        subject = _open_files(options, processes, console)
    if options.vocabulary_of_training is None:
        return subject
    training = _training_words(options.vocabulary_of_training, options.model)
    return replace(subject, shared=SharedWords.of(training, subject.dataset.vocabulary))


def _open_scenes(options: Evaluate, rendering: Rendering) -> Subject:
    name = options.dataset
    if unused := ["data"] * (options.root is not None) + list(options.own.given()):
        raise UsageError(f"--{unused[0]} does not apply to {name}: leave it out")
    words = options.vocabulary or "all"
    if words not in ("all", "seen"):
        raise UsageError(f"{name} has the words 'seen' and 'all', not {words!r}: leave --vocabulary out")
    if options.split not in rendering.splits:
        raise UsageError(f"{name} has the splits {', '.join(rendering.splits)}, not {options.split}")
    scenes, size = rendering.splits[options.split]
    dataset = rendering.load()(options.split, options.limit or scenes, size, words)
    return Subject(dataset, group_records(dataset), digest=dataset.digest)


def _open_files(options: Evaluate, processes: PartialState, console: Console) -> Subject:
    name, root, split, own = options.dataset, options.root, options.split, options.own.given()
    if root is None:
        raise UsageError(f"--data is missing: name the folder of {name}")
    if split == "instances":
        raise UsageError(f"{name} has no split instances: choose train or test")
    with count_bar(console, "checking files") as show:
        check_together(name, root, split, processes, show, **own)
    dataset = open_dataset(name, root, split, options.vocabulary, **own)
    remark = ", ".join(filter(None, (dataset_spec(name).remark(dataset), _trained_on(options.model, dataset))))
    if options.metric != "iou":
        dataset = dataset.with_instances()
    elif options.rule == "ov-parts":
        dataset = dataset.by_object_masks()
    return Subject(dataset, group_records(dataset)[: options.limit], remark)


def _trained_on(model: str, dataset: FileDataset) -> str:
    """Return how many photos of a few-shot model's list are scored, as ADE20K's training photos are; empty for none."""
    if (split := split_of_model(model)) is None:
        return ""
    photos = {record.photo.key for record in dataset.records}
    both = len(photos.intersection(split.files))
    return f"the model was trained on {both} of {count_of(len(photos), 'photo')}, by its few-shot list" if both else ""


def _training_words(words: str, model: str) -> Vocabulary:
    """Return the words that a model was trained on: those that it came with for ``"model"``, else those of `words`."""
    if words in ("seen", "all"):  # as of --vocabulary
        raise UsageError(
            f"--vocabulary-of-training {words} does not say of which data set: write model for the words that the "
            "model came with, or a catalogue such as ade20k-part-234"
        )
    if words != "model":
        return Vocabulary.load(words).with_objects("a training")
    training = load_vocabulary(find_model(model))
    if training is None:
        raise UsageError(f"{model} came without words: name those that it was trained on with --vocabulary-of-training")
    # The built-in model was trained on the seen ones of the words that it came with.
    return zero_shot_words(training) if is_built_in(model) else training
