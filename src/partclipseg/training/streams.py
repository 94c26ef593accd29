"""Streams of batches: files through the loader, or scenes in memory on the training device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partclipseg.counts import count_of
from partclipseg.data.augment import Augmentation, Mirror, sample_generator
from partclipseg.data.loader import Batch, Draw, StepSampler
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.maps.crops import Edges, crop_around
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
    boxes: np.ndarray | None = None
    """Boxes of the objects, int32 `[N, M, 4]`: left, top, right, bottom, -1 for none; for crops around objects."""

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        part_labels: np.ndarray,
        object_labels: np.ndarray,
        vocabulary: Vocabulary,
        boxes: np.ndarray | None = None,
    ) -> Scenes:
        """Make scenes from arrays of the same shapes; labels of any integer type."""
        arrays = (images, part_labels.astype(np.int16), object_labels.astype(np.int16))
        # torch cannot use read-only arrays mapped from files: those are copied.
        tensors = (torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in arrays)
        return cls(*tensors, vocabulary=vocabulary, boxes=boxes)

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
            scenes = count_of(len(self), "scene needs", "scenes need")
            raise PartCLIPSegError(
                f"{scenes} {needed:.1f} GiB on {device}, which it does not have: ask for fewer scenes"
            ) from error


class SceneStream:
    """Batches drawn from `Scenes` and augmented on their device; nothing waits for the device.

    The order is the loader's, so the same seed gives the same scenes whatever the number of processes. Possible here
    are flip, colours, and crops around objects of scenes that have boxes.

    Raises `UsageError` for an augmentation that does something else, or that needs boxes that are not there.
    """

    def __init__(
        self,
        scenes: Scenes,
        sampler: StepSampler,
        augmentation: Augmentation | None,
    ) -> None:
        if augmentation is not None and (augmentation.crop_edge or augmentation.shortest_edge):
            raise UsageError("scenes in memory are not cropped or scaled: set crop_edge and shortest_edge to None")
        if augmentation is not None and (augmentation.fit != "stretch" or augmentation.hue or augmentation.ssd):
            raise UsageError("scenes in memory are not cut, nor their hues changed: leave fit, hue and ssd out")
        if augmentation is not None and augmentation.object_crop and scenes.boxes is None:
            raise UsageError("object_crop needs the boxes of the objects, which these scenes do not have: set it to 0")
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
                f"the run was started on {count_of(state['size'], 'scene')} and there are now {self._sampler.size}: "
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
        if config.object_crop:
            windows = [self._window(draw, g, config.object_crop) for draw, g in zip(draws, generators, strict=True)]
            photos, parts, objects = _cut(photos, parts, objects, windows, flipped)
        amounts = (config.brightness, config.contrast, config.saturation)
        if any(amounts):
            factors = [[g.uniform(1 - amount, 1 + amount) for amount in amounts] for g in generators]
            photos = _change_colours(photos, _put(factors, photos.device))
        return photos, parts, objects

    def _window(self, draw: Draw, generator: np.random.Generator, probability: float) -> tuple[int, int, int] | None:
        """Return left, top and side of the window around an object of a scene, before a flip; None for the whole."""
        boxes = self._scenes.boxes
        if boxes is None or generator.random() >= probability:
            return None
        boxes = boxes[draw.index]
        boxes = boxes[boxes[:, 0] >= 0]
        if not len(boxes):
            return None
        left, top, right, bottom = boxes[generator.integers(len(boxes))].tolist()
        size = self._scenes.images.shape[1]
        crop = crop_around(0, Edges(top, left, bottom, right), (size, size), (size, size))
        return crop.left, crop.top, crop.height


def _cut(
    photos: Tensor,
    parts: Tensor,
    objects: Tensor,
    windows: list[tuple[int, int, int] | None],
    flipped: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Enlarge the window of each photo that has one to the photo's size; `flipped [B, 1, 1]` mirrors it first.

    Photos are interpolated (bilinear), labels take the nearest pixel.
    """
    size = photos.shape[-1]
    places = [(0, 0, size) if window is None else window for window in windows]
    left, top, side = _put(places, photos.device).float().view(-1, 3, 1).unbind(1)  # each [B, 1]
    left = torch.where(flipped.view(-1, 1), size - left - side, left)
    steps = (torch.arange(size, device=photos.device) + 0.5) / size  # [S]
    columns, rows = (2 * (start + steps * side) / size - 1 for start in (left, top))  # [B, S], -1 to 1
    grid = torch.stack((columns[:, None].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)), -1)
    labels = torch.stack((parts, objects), 1).to(photos.dtype)  # 16-bit numbers, which a float holds exactly
    cut = F.grid_sample(photos, grid, mode="bilinear", padding_mode="border", align_corners=False)
    cut_labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="border", align_corners=False).long()
    whole = _put([window is None for window in windows], photos.device).view(-1, 1, 1)
    parts, objects = (
        torch.where(whole, before, after) for before, after in zip((parts, objects), cut_labels.unbind(1), strict=True)
    )
    return torch.where(whole[:, None], photos, cut), parts, objects


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
