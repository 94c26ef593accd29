"""What a run is trained on and what it is scored on, both from the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from partclipseg.data.loader import PartDataset
from partclipseg.data.sample import PartSample
from partclipseg.errors import PartCLIPSegError
from partclipseg.training.streams import Scenes
from partclipseg.vocabulary import Vocabulary


@dataclass(frozen=True)
class TrainingData:
    """Training records and held-out ones, of the same vocabulary."""

    train: PartDataset | Scenes
    """Records that are read as they are needed, or scenes that lie in memory."""
    held_out: PartDataset

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes that the model is trained on."""
        return self.train.vocabulary

    @classmethod
    def split(cls, dataset: PartDataset, held_out: int, seed: int) -> TrainingData:
        """Set `held_out` records of a training split aside, chosen by `seed` alone.

        Raises `PartCLIPSegError` if nothing would be left to train on.
        """
        if held_out >= len(dataset):
            raise PartCLIPSegError(
                f"{held_out} of the {len(dataset)} training photos would be held out, and none left to train on: "
                "give a smaller --held-out"
            )
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2**32 - 1,))).permutation(len(dataset))
        return cls(Subset(dataset, sorted(order[held_out:])), Subset(dataset, sorted(order[:held_out])))


@dataclass(frozen=True)
class Subset:
    """Some records of a data set."""

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
    """Photos with blue first: what the reference trains on."""

    dataset: PartDataset

    @property
    def vocabulary(self) -> Vocabulary:
        return self.dataset.vocabulary

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> PartSample:
        sample = self.dataset[index]
        return replace(sample, image=np.ascontiguousarray(sample.image[..., ::-1]))
