"""Outlines of found objects: SAM 2.1, SAM HQ and SAM turn boxes into masks, and SAM 3 by name.

The models are transformers'; photos are prepared here, so that torchvision is not needed. Each photo runs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partclipseg.instances.found import FoundObject
from partclipseg.instances.pretrained import (
    HALVES,
    IMAGENET,
    Pretrained,
    enlarge,
    load_foreign,
    resized_shape,
    to_values,
)

LEAST_QUALITY = 0.5
"""Minimum IoU that the model predicts of a mask; below it the object keeps its box alone."""

BOXES_AT_ONCE = 32
"""Number of boxes per pass of the mask decoder."""


class _Family(NamedTuple):
    """Class of transformers, and how the photo becomes the model's square input."""

    model_class: str
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    keeps_shape: bool
    """Whether the photo keeps its aspect ratio, with zeros at right or below, or is squeezed to the square."""


_FAMILIES = {
    "sam": _Family("SamModel", IMAGENET, True),
    "sam_hq": _Family("SamHQModel", IMAGENET, True),
    "sam2": _Family("Sam2Model", IMAGENET, False),
    "sam2_video": _Family("Sam2Model", IMAGENET, False),
    "sam3_tracker": _Family("Sam3TrackerModel", HALVES, False),
    "sam3_video": _Family("Sam3TrackerModel", HALVES, False),
}
"""Class and preparation of photos by `model_type`; files of SAM 2.1 and SAM 3 say that they are for videos too."""


class Outliner:
    """A pretrained model that outlines objects whose boxes are known.

        outliner = Outliner.from_pretrained("facebook/sam2.1-hiera-tiny")
        result = segmenter("photo.jpg", words, instances=detector, outlines=outliner)
    """

    def __init__(self, pretrained: Pretrained) -> None:
        """Use a loaded model."""
        self.model = pretrained.model
        self._family = _FAMILIES[pretrained.kind]
        self._statistics = pretrained.statistics(self._family.statistics)

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> Outliner:
        """Load a model.

        Args:
            name_or_dir: name on the hub, such as ``"facebook/sam2.1-hiera-tiny"``, or a directory.
            device: device to run on; None takes CUDA or MPS if available, else the CPU.
            dtype: number type of weights and arithmetic; None is float32.

        Raises:
            UsageError: unknown or absent device, unknown dtype.
            PartCLIPSegError: no such model can be found or loaded, or it is none of SAM, SAM HQ, SAM 2, SAM 3.
        """
        classes = {kind: family.model_class for kind, family in _FAMILIES.items()}
        return cls(load_foreign(name_or_dir, classes, "a model that outlines objects", device, dtype))

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @torch.inference_mode()
    def outline(
        self, photos: Sequence[np.ndarray], found: Sequence[Sequence[FoundObject]]
    ) -> list[list[FoundObject]]:
        """Return the objects of each photo, uint8 `[H, W, 3]`, with masks in their order.

        An object keeps the mask that it has. It stays without one where the box lies outside of the photo or the model
        is not sure of the outline (`LEAST_QUALITY`).
        """
        return [self._outline(photo, list(objects)) for photo, objects in zip(photos, found, strict=True)]

    def _outline(self, photo: np.ndarray, objects: list[FoundObject]) -> list[FoundObject]:
        size = photo.shape[0], photo.shape[1]
        boxes = {place: some.within(size) for place, some in enumerate(objects) if some.mask is None}
        boxes = {place: some for place, some in boxes.items() if min(some.box[2:]) > 0}
        if not boxes:
            return objects
        side = self.model.config.prompt_encoder_config.image_size
        resized = resized_shape(*size, side, side) if self._family.keeps_shape else (side, side)
        features = self._features(photo, resized, side)
        scale = torch.tensor([resized[1] / size[1], resized[0] / size[0]] * 2)
        places = list(boxes)
        for start in range(0, len(places), BOXES_AT_ONCE):
            some = places[start : start + BOXES_AT_ONCE]
            # float32 in a bfloat16 model too: above 512, bfloat16 has every fourth pixel only.
            prompts = (torch.tensor([boxes[place].corners for place in some]) * scale)[None].to(self.device)
            output = self.model(**features, input_boxes=prompts, multimask_output=False)
            quality = output.iou_scores[0, :, 0].float().tolist()
            for place, logits, iou in zip(some, output.pred_masks[0, :, 0], quality, strict=True):
                if iou >= LEAST_QUALITY and (mask := self._mask(logits, resized, side, size)).any():
                    objects[place] = replace(objects[place], mask=mask)
        return objects

    def _features(self, photo: np.ndarray, resized: tuple[int, int], side: int) -> dict[str, Any]:
        """Return features of the photo, as the model's forward pass takes them for any number of boxes."""
        values = to_values(photo, resized, self._statistics)
        values = F.pad(values, (0, side - resized[1], 0, side - resized[0])).to(self.device, self.model.dtype)
        features = self.model.get_image_embeddings(values)
        if isinstance(features, tuple):  # SAM HQ
            return dict(zip(("image_embeddings", "intermediate_embeddings"), features, strict=True))
        return {"image_embeddings": features}

    def _mask(self, logits: Tensor, resized: tuple[int, int], side: int, size: tuple[int, int]) -> np.ndarray:
        """Enlarge logits `[h, w]` of the model's square input to the photo, without what was added to it."""
        if resized != (side, side):
            whole = F.interpolate(logits[None, None].float(), (side, side), mode="bilinear", align_corners=False)
            logits = whole[0, 0, : resized[0], : resized[1]]
        return enlarge(logits, size)
