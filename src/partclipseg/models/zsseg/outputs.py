"""Outputs of ZSSeg+: those of a prediction, and those of a training step.

Letters in shapes: L layers, B photos, K object-parts, Q queries, C side of the square canvas, D joint width of CLIP,
g patches of a side of the crop, s side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from partclipseg.models.interface import PartOutput


@dataclass
class ZSSegOutput(PartOutput):
    """Results of both stages, from which label maps are made at full size; an entry for each photo."""

    mask_logits: tuple[Tensor, ...] | None = None
    """float32 `[Q, H/4, W/4]` each, of the padded photo."""
    class_logits: tuple[Tensor, ...] | None = None
    """float32 `[Q, K + 1]` each, background last."""
    region_logits: tuple[Tensor, ...] | None = None
    """float32 `[K, K]` each; see `regions.region_logits`."""

    def photo(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return masks, classes and regions of one photo."""
        fields: Any = (self.mask_logits, self.class_logits, self.region_logits)
        masks, classes, regions = (values[index] for values in fields)
        return masks, classes, regions


@dataclass
class ZSSegTrainingOutput(PartOutput):
    """Tensors of a training step, from which `loss.ZSSegLoss` is computed."""

    mask_logits: Tensor | None = None
    """float32 `[L, B, Q, C/4, C/4]` of every decoder layer."""
    class_logits: Tensor | None = None
    """float32 `[L, B, Q, K + 1]`, background last."""
    most_parts: int | None = None
    """Greatest number of parts of an object in the vocabulary."""
    texts: Tensor | None = None
    """Unit vectors `[K, D]` of the prompts, and with the next three fields only where the prompts are trained."""
    patches: Tensor | None = None
    """Unit vectors `[B, D, g·g]` of the patches of a crop around each object."""
    crops: Tensor | None = None
    """float32 `[B, s, s, 2]`: the grid that samples the crops."""
    object_masks: Tensor | None = None
    """bool `[B, C, C]`."""
    fuse_weight: Tensor | None = None
    """Weight of a region's features beside its object's, a scalar."""
