"""Batches for training, in an order that can be stopped and continued exactly.

The records of all epochs form one endless sequence: epoch after epoch, each in its own order drawn from
(seed, epoch). A step takes the next `batch_size` records of it, whatever the number of processes, and every
process takes its stride of them. No record is dropped or repeated at the end of an epoch; a batch may reach into
the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from partclipseg.counts import count_of
from partclipseg.data.augment import Augmentation, Mirror, augment, sample_generator
from partclipseg.data.sample import PartSample
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.vocabulary import Vocabulary

_REDRAWN = 100
"""Maximum number of photos drawn until a cut shows a labelled part; data without any label end here."""


class PartDataset(Protocol):
    """Interface of a data set that can be trained on."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> PartSample: ...


@dataclass(frozen=True)
class Batch:
    """Photos of one step and their labels, at the model's image size `S`."""

    photos: torch.Tensor
    """`[B, 3, S, S]`, RGB, uint8 or float32 in 0..1; the model normalises them."""
    part_labels: torch.Tensor
    """int64 `[B, S, S]`, as in `PartSample`."""
    object_labels: torch.Tensor
    """int64 `[B, S, S]`, as in `PartSample`."""
    keys: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """Copy to another device, without waiting for the copy if the batch lies in pinned memory."""
        tensors = (self.photos, self.part_labels, self.object_labels)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors), keys=self.keys)

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory; torch's `DataLoader` calls this method by its name."""
        tensors = (self.photos, self.part_labels, self.object_labels)
        return Batch(*(tensor.pin_memory() for tensor in tensors), keys=self.keys)


class Draw(NamedTuple):
    """One record of the endless sequence; the three numbers also fix its augmentation."""

    seed: int
    epoch: int
    index: int


@dataclass(frozen=True)
class StepSampler:
    """Endless sequence of the steps of one process, each a list of draws."""

    size: int
    """Number of records in the data set."""
    batch_size: int
    """Number of records of a step, over all processes."""
    seed: int
    position: int = 0
    """Number of records of the whole sequence that were taken before the first step."""
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise PartCLIPSegError("the data set is empty: there is nothing to train on; add photos or other words")
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise UsageError(
                f"the batch size {self.batch_size} cannot be shared by {count_of(self.world_size, 'process')}: "
                f"use a multiple of {self.world_size}"
            )
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank {self.rank} does not exist among {count_of(self.world_size, 'process')}")
        if self.seed < 0:
            raise UsageError(f"the seed must not be negative: {self.seed}")

    def __iter__(self) -> Iterator[list[Draw]]:
        position, shuffled, order = self.position, -1, np.empty(0, dtype=np.int64)
        while True:
            step = []
            for place in range(position + self.rank, position + self.batch_size, self.world_size):
                epoch, offset = divmod(place, self.size)
                if epoch != shuffled:
                    order, shuffled = _epoch_order(self.seed, epoch, self.size), epoch
                step.append(Draw(self.seed, epoch, int(order[offset])))
            yield step
            position += self.batch_size


class TrainingStream(Iterator[Batch]):
    """Endless batches, with a state that belongs to the last batch that was returned.

    Batches that workers prepared ahead are not part of the state: after `load_state_dict` the next batch is the
    one that would have followed. Workers live as long as the stream; `close` ends them early.

    Raises `PartCLIPSegError`, in the reader's words, for a record that cannot be read.
    """

    def __init__(self, records: _TrainingRecords, sampler: StepSampler, workers: int, pin_memory: bool) -> None:
        self._records = records
        self._sampler = sampler
        self._workers = workers
        self._pin_memory = pin_memory
        self._position = sampler.position
        self._batches: Iterator[Batch | PartCLIPSegError] | None = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._start()
        batch = next(self._batches)
        if isinstance(batch, PartCLIPSegError):
            self.close()
            raise batch
        self._position += self._sampler.batch_size
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return the state, equal in every process: `seed`, `epoch`, `position` within it, the data set's `size`."""
        epoch, position = divmod(self._position, self._sampler.size)
        return {"seed": self._sampler.seed, "epoch": epoch, "position": position, "size": self._sampler.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; number of processes, workers and batch size may differ.

        Raises `PartCLIPSegError` where the data set has another number of records than then.
        """
        current = self._sampler
        if state["size"] != current.size:
            raise PartCLIPSegError(
                f"the run was started on {count_of(state['size'], 'record')} and the data set now has {current.size}: "
                "continue on the same data, or start a new run"
            )
        self._position = state["epoch"] * state["size"] + state["position"]
        self._sampler = replace(current, seed=state["seed"])
        self.close()

    def close(self) -> None:
        """End the workers; the next batch starts new ones."""
        self._batches = None

    def _start(self) -> Iterator[Any]:
        loader = DataLoader(
            self._records,
            batch_sampler=replace(self._sampler, position=self._position),  # pyright: ignore[reportArgumentType]
            num_workers=self._workers,
            collate_fn=_collate,
            pin_memory=self._pin_memory,
            # Its own generator: the default one would draw from torch's global state at every start.
            generator=torch.Generator(),
        )
        return iter(loader)


def build_loader(
    dataset: PartDataset,
    *,
    batch_size: int,
    augmentation: Augmentation | None,
    seed: int,
    image_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> TrainingStream:
    """Make endless training batches of `dataset`.

    `batch_size` counts the photos of a step over all `world_size` processes; each gets its share. `augmentation`
    None only resizes. The same `seed` gives the same batches whatever `workers` and `world_size`.

    Raises `UsageError` for a batch size that the processes cannot share and `PartCLIPSegError` for an empty
    data set.
    """
    sampler = StepSampler(len(dataset), batch_size, seed, rank=rank, world_size=world_size)
    records = _TrainingRecords(dataset, augmentation, image_size)
    return TrainingStream(records, sampler, workers, pin_memory)


class _TrainingRecords(Dataset):
    """Data set from a draw to one augmented sample as tensors, or to the error that a person can mend."""

    def __init__(
        self,
        dataset: PartDataset,
        augmentation: Augmentation | None,
        image_size: int,
    ) -> None:
        self._dataset = dataset
        self._augmentation = Augmentation.none() if augmentation is None else augmentation
        self._mirror = Mirror.of(dataset.vocabulary)
        self._size = (image_size, image_size)

    def __getitem__(self, draw: Draw) -> Any:
        generator, index = sample_generator(*draw), draw.index
        for _ in range(_REDRAWN):
            try:
                sample = self._dataset[index]
            except PartCLIPSegError as error:
                # An error raised in a worker would reach the user as a page of traceback.
                return error
            sample = augment(sample, generator, self._augmentation, self._mirror, self._size)
            if self._augmentation.fit != "crop" or (sample.part_labels >= 0).any():
                break
            index = int(generator.integers(len(self._dataset)))
        photo = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))  # [3, S, S]
        return (
            photo,
            torch.from_numpy(sample.part_labels.astype(np.int64)),
            torch.from_numpy(sample.object_labels.astype(np.int64)),
            sample.key,
        )


def _collate(items: list[Any]) -> Batch | PartCLIPSegError:
    for item in items:
        if isinstance(item, PartCLIPSegError):
            return item
    photos, parts, objects, keys = zip(*items, strict=True)
    return Batch(torch.stack(photos), torch.stack(parts), torch.stack(objects), keys)


def _epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(size)
