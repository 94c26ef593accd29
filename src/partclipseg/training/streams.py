"""Streams of batches: files through the loader, or scenes in memory on the training device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from partclipseg.data.augment import Augmentation, Mirror, sample_generator
from partclipseg.data.loader import Batch, Draw, StepSampler
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.vocabulary import Vocabulary


class BatchStream(Protocol):
    """Endless batches with a state that belongs to the last returned batch; `TrainingStream` is one."""

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, int]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Scenes:
    """Stacked samples of one size."""

    images: Tensor
    """uint8 `[N, S, S, 3]`, RGB."""
    part_labels: Tensor
    """int16 `[N, S, S]`, as in `PartSample`."""
    object_labels: Tensor
    """int16 `[N, S, S]`, as in `PartSample`."""
    vocabulary: Vocabulary

    @classmethod
    def from_arrays(
        cls, images: np.ndarray, part_labels: np.ndarray, object_labels: np.ndarray, vocabulary: Vocabulary
    ) -> Scenes:
        """Make scenes from arrays of the same shapes; labels of any integer type."""
        arrays = (images, part_labels.astype(np.int16), object_labels.astype(np.int16))
        # torch cannot use read-only arrays mapped from files: those are copied.
        tensors = (torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in arrays)
        return cls(*tensors, vocabulary=vocabulary)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> Scenes:
        """Copy the scenes to another device that has room for all of them.

        Raises `PartCLIPSegError` naming the memory that is needed.
        """
        try:
            return replace(
                self,
                images=self.images.to(device),
                part_labels=self.part_labels.to(device),
                object_labels=self.object_labels.to(device),
            )
        except torch.OutOfMemoryError as error:
            needed = sum(t.nbytes for t in (self.images, self.part_labels, self.object_labels)) / 2**30
            raise PartCLIPSegError(
                f"{len(self)} scenes need {needed:.1f} GiB on {device}, which it does not have: ask for fewer scenes"
            ) from error


class SceneStream:
    """Batches drawn from `Scenes` and augmented on their device; nothing waits for the device.

    The order is the loader's, so the same seed gives the same scenes whatever the number of processes. Only
    changes that keep every pixel's place or mirror it are possible here: flip and colours.

    Raises `UsageError` for an augmentation that crops or scales.
    """

    def __init__(
        self,
        scenes: Scenes,
        sampler: StepSampler,
        augmentation: Augmentation | None,
    ) -> None:
        if augmentation is not None and (augmentation.crop_edge or augmentation.shortest_edge):
            raise UsageError("scenes in memory are not cropped or scaled: set crop_edge and shortest_edge to None")
        self._scenes = scenes
        self._sampler = sampler
        self._augmentation = augmentation
        self._position = sampler.position
        self._steps = iter(sampler)
        device = scenes.images.device
        mirror = Mirror.of(scenes.vocabulary) if augmentation and augmentation.swap_left_right else None
        self._mirror = mirror and tuple(torch.from_numpy(t).to(device) for t in (mirror.classes, mirror.objects))

    def __next__(self) -> Batch:
        draws = next(self._steps)
        self._position += self._sampler.batch_size
        scenes, device = self._scenes, self._scenes.images.device
        index = _put([draw.index for draw in draws], device)
        photos = scenes.images[index].permute(0, 3, 1, 2).float() / 255  # [B, 3, S, S]
        parts, objects = scenes.part_labels[index].long(), scenes.object_labels[index].long()  # [B, S, S]
        if self._augmentation is not None:
            photos, parts, objects = self._augment(draws, self._augmentation, photos, parts, objects)
        return Batch(photos, parts, objects, tuple(str(draw.index) for draw in draws))

    def state_dict(self) -> dict[str, int]:
        """Return the state as `TrainingStream.state_dict`."""
        epoch, position = divmod(self._position, self._sampler.size)
        return {"seed": self._sampler.seed, "epoch": epoch, "position": position, "size": self._sampler.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises `PartCLIPSegError` for another number of scenes."""
        if state["size"] != self._sampler.size:
            raise PartCLIPSegError(
                f"the run was started on {state['size']} scenes and there are now {self._sampler.size}: "
                "continue with as many, or start a new run"
            )
        self._position = state["epoch"] * state["size"] + state["position"]
        self._steps = iter(replace(self._sampler, seed=state["seed"], position=self._position))

    def close(self) -> None:
        """Do nothing: there are no workers."""

    def _augment(
        self, draws: list[Draw], config: Augmentation, photos: Tensor, parts: Tensor, objects: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        generators = [sample_generator(*draw) for draw in draws]
        flipped = _put([g.random() < config.flip for g in generators], photos.device).view(-1, 1, 1)
        photos = torch.where(flipped.unsqueeze(1), photos.flip(-1), photos)
        parts, objects = (torch.where(flipped, labels.flip(-1), labels) for labels in (parts, objects))
        if self._mirror is not None:
            parts, objects = (
                torch.where(flipped & (labels >= 0), table[labels.clamp(min=0)].long(), labels)
                for table, labels in zip(self._mirror, (parts, objects), strict=True)
            )
        amounts = (config.brightness, config.contrast, config.saturation)
        if any(amounts):
            factors = [[g.uniform(1 - amount, 1 + amount) for amount in amounts] for g in generators]
            photos = _change_colours(photos, _put(factors, photos.device))
        return photos, parts, objects


def _change_colours(photos: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation in turn; `photos [B, 3, S, S]` in 0..1, `factors [B, 3]`."""
    brightness, contrast, saturation = factors.float().view(-1, 3, 1, 1, 1).unbind(1)  # each [B, 1, 1, 1]
    photos = (photos * brightness).clamp(0, 1)
    photos = torch.lerp(_grey(photos).mean((-1, -2), keepdim=True), photos, contrast).clamp(0, 1)
    return torch.lerp(_grey(photos), photos, saturation).clamp(0, 1)


def _grey(photos: Tensor) -> Tensor:
    """Convert `[B, 3, S, S]` to grey `[B, 1, S, S]`, ITU-R 601 luma, as Pillow's enhancers do."""
    red, green, blue = photos.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _put(values: list[Any], device: torch.device) -> Tensor:
    """Copy a small tensor to `device` without waiting for it."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
