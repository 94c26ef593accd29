"""Training records and held-out records of a run, both from the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

import numpy as np

from partclipseg.counts import count_of
from partclipseg.data.datasets.registry import dataset_spec, open_dataset
from partclipseg.data.datasets.spec import OwnOptions
from partclipseg.data.few_shot import FewShotSplit, interchange_path
from partclipseg.data.fingerprint import fingerprint
from partclipseg.data.loader import PartDataset
from partclipseg.data.sample import UNLABELLED, PartSample
from partclipseg.data.source import FileDataset
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.state import text_digest
from partclipseg.files import expanded
from partclipseg.training.recipe import Recipe
from partclipseg.training.streams import Scenes
from partclipseg.vocabulary import Vocabulary


@dataclass(frozen=True)
class TrainingData:
    """Training records and held-out ones, of the same vocabulary."""

    train: PartDataset | Scenes
    """Records that are read when needed, or scenes in memory."""
    held_out: PartDataset
    digest: Mapping[str, str] = field(default_factory=dict)
    """Digest of the records' files, as `fingerprint` computes it; empty for data without files."""
    few_shot: FewShotSplit | None = None
    """The few-shot split that the training records are; None where they are all."""
    shot_paths: tuple[str, ...] = ()
    """Paths of the photos of the split, as OV-PARTS writes them: from the folder above the data set's."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes that the model is trained on."""
        return self.train.vocabulary

    @classmethod
    def split(cls, dataset: PartDataset, held_out: int, seed: int, verify: bool = False) -> TrainingData:
        """Set `held_out` records of a training split aside, chosen by `seed` alone; `verify` as in `fingerprint`.

        Raises `PartCLIPSegError` if nothing would be left to train on.
        """
        if held_out >= len(dataset):
            raise PartCLIPSegError(
                f"{held_out} of the {count_of(len(dataset), 'training photo')} would be held out, and none left "
                "to train on: give a smaller --held-out"
            )
        order = _order(len(dataset), seed)
        train, aside = (Subset(dataset, sorted(chosen)) for chosen in (order[held_out:], order[:held_out]))
        return cls(train, aside, fingerprint(dataset, verify=verify))

    @classmethod
    def few(
        cls, dataset: FileDataset, chosen: FewShotSplit, root: Path, held_out: int, seed: int, verify: bool = False
    ) -> TrainingData:
        """Train on the photos of a few-shot split, and hold others out: `held_out` of them, or all that there are."""
        keys, files = [record.photo.key for record in dataset.records], set(chosen.files)
        inside = [index for index, key in enumerate(keys) if key in files]
        outside = [index for index, key in enumerate(keys) if key not in files]
        aside = sorted(outside[place] for place in _order(len(outside), seed)[:held_out])
        digest = fingerprint(dataset, verify=verify)
        if digest:
            digest["few-shot photos"] = text_digest(sorted(keys[index] for index in inside))
        paths = [interchange_path(dataset.records[index].photo.path, root, dataset.name) for index in inside]
        return cls(Subset(dataset, inside), Subset(dataset, aside), digest, chosen, tuple(paths))


def open_training_data(
    recipe: Recipe,
    root: str | Path,
    vocabulary: Vocabulary | str | Path | None = None,
    verify: bool = False,
    **own: Unpack[OwnOptions],
) -> TrainingData:
    """Open the training split of the recipe's data set and hold some of it out; the test split is never opened.

    `vocabulary` and `own` as in `open_dataset`, `verify` as in `fingerprint`. Raises `UsageError` for a wrong root or
    option and `PartCLIPSegError` for unreadable files.
    """
    if recipe.few_shot.wanted:
        dataset = open_dataset(recipe.dataset, root, "train", "all" if vocabulary is None else vocabulary, **own)
        chosen = recipe.few_shot.choose(dataset)
        folder = expanded(root)
        return TrainingData.few(dataset, chosen, folder, recipe.held_out, recipe.seed, verify)
    dataset = open_dataset(recipe.dataset, root, "train", vocabulary, **own)
    if recipe.augmentation.object_crop:
        dataset = dataset.with_instances()
    return TrainingData.split(dataset, recipe.held_out, recipe.seed, verify)


def render_training_data(recipe: Recipe, directory: str | Path | None = None) -> TrainingData:
    """Render the scenes of the recipe's data set ahead, to train on those of its train split.

    The first scenes of the val split, which is like train, are held out. `directory` keeps the rendered scenes for
    the next run. A few-shot split is drawn from the scenes, of all words; their numbers are the names of its photos.
    Raises `UsageError` for a recipe without an image size or of a data set that lies in files.
    """
    rendering = dataset_spec(recipe.dataset).rendering
    if rendering is None:
        raise UsageError(f"{recipe.dataset} is not rendered: open it with open_training_data")
    if recipe.image_size is None:
        raise UsageError(f"{recipe.dataset} has to be told how large to render: give --image-size")
    size, scenes = recipe.image_size, rendering.load()
    few = recipe.few_shot
    words = "all" if few.wanted else "seen"
    rendered = scenes.ahead("train", recipe.scenes, size, words, directory)
    images, parts, objects = rendered.arrays()
    boxes = rendered.boxes() if recipe.augmentation.object_crop else None
    digest, split, paths = dict(rendered.digest), None, ()
    if few.wanted:
        names: Sequence[str] = rendered.keys()
        keys = [name.rpartition("/")[2] for name in names]  # the number of the scene
        if few.shot_list:
            split = few.read(keys, recipe.dataset)
        else:
            shown = (set(np.unique(labels).tolist()) - {UNLABELLED} for labels in parts)
            split = few.draw(dict(zip(keys, shown, strict=True)), rendered.vocabulary.object_parts)
        chosen = [place for place, key in enumerate(keys) if key in set(split.files)]
        images, parts, objects = images[chosen], parts[chosen], objects[chosen]
        boxes = None if boxes is None else boxes[chosen]
        digest["few-shot photos"] = text_digest([keys[place] for place in chosen])
        paths = tuple(f"datasets/{recipe.dataset}/train/{keys[place]}" for place in chosen)
    train = Scenes.from_arrays(images, parts, objects, rendered.vocabulary, boxes)
    if recipe.held_out == 0:
        held_out: PartDataset = Subset(scenes("val", 1, size, words), ())
    else:
        held_out = scenes.ahead("val", recipe.held_out, size, words, directory)
    return TrainingData(train, held_out, digest, split, paths)


def _order(length: int, seed: int) -> np.ndarray:
    """Return an order of records that depends on the seed alone, int64 `[length]`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2**32 - 1,))).permutation(length)


@dataclass(frozen=True)
class Subset:
    """Subset of the records of a data set."""

    dataset: PartDataset
    indices: Sequence[int]

    @property
    def vocabulary(self) -> Vocabulary:
        return self.dataset.vocabulary

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> PartSample:
        return self.dataset[int(self.indices[index])]


@dataclass(frozen=True)
class ReversedColours:
    """Photos with reversed colour channels (BGR), as the reference trains on."""

    dataset: PartDataset

    @property
    def vocabulary(self) -> Vocabulary:
        return self.dataset.vocabulary

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> PartSample:
        sample = self.dataset[index]
        return replace(sample, image=np.ascontiguousarray(sample.image[..., ::-1]))
