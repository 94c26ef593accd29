"""Recipes of the towers of PartShapes, which are trained from random weights; no module here needs PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from partclipseg.checks import (
    check_fields,
    check_seed,
    check_side,
    require,
    require_at_least,
    require_not_negative,
    require_positive,
)
from partclipseg.counts import count_of
from partclipseg.shapes.scene import SceneSplit

PATCH = 8
"""Edge of a patch of the towers, in pixels."""


@dataclass(frozen=True)
class TowerRecipe:
    """Settings that all towers trained on PartShapes share."""

    name: ClassVar[str] = ""
    """Name of the tower in the log; ``partclipseg train partshapes-NAME`` trains it alone."""
    split: ClassVar[SceneSplit] = "base"
    """Split of PartShapes whose scenes are trained on."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Names of the towers that this one is trained on, each a field of the recipe, in the order of their training."""

    steps: int = 16_500
    """Number of updates of the weights."""
    batch_size: int = 128
    """Number of scenes in a step."""
    scenes: int = 80_000
    """Number of scenes that are rendered ahead and trained on."""
    image_size: int = 128
    """Side of the square scenes, in pixels."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 300
    """Number of steps over which the learning rate rises to its peak; then it falls to 0 along a cosine."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, on matrices only."""
    max_gradient_norm: float = 1.0
    """Greatest norm of the gradient of the whole model; a greater one is scaled down to it."""
    seed: int = 0
    """Seed of the initial weights, the order of the scenes and all random choices."""
    checkpoint_every: int = 1000
    """Number of steps between two checkpoints."""
    log_every: int = 100
    """Number of steps between two lines of the log."""

    def __post_init__(self) -> None:
        check_fields(self)
        require_positive(self, "learning_rate", "max_gradient_norm")
        require_not_negative(self, "weight_decay")
        check_seed(self.seed)
        check_side(self.image_size)
        require_at_least(1, self, "steps", "batch_size", "scenes", "checkpoint_every", "log_every")
        require(
            self.image_size % PATCH == 0 and self.image_size >= 2 * PATCH,
            f"image_size {self.image_size} must be a multiple of {PATCH}, at least {2 * PATCH}",
        )
        require(
            0 <= self.warmup_steps < self.steps,
            f"warmup_steps {self.warmup_steps:,} must be less than the {count_of(self.steps, 'step')}",
        )

    def learning_rate_factor(self, step: int) -> float:
        """Return the learning rate factor at `step`, from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)))


@dataclass(frozen=True)
class BackboneRecipe(TowerRecipe):
    """Train PartShapes' own backbone, a tiny CLIP with a CLIPSeg decoder, from random weights."""

    name: ClassVar[str] = "backbone"

    phrases: int = 4
    """Number of object words asked for in each scene: those in it, filled up with words of absent objects."""
    caption_weight: float = 0.1
    """Weight of the contrastive loss of whole photos beside the mask loss."""
    patch_weight: float = 0.5
    """Weight of the contrastive loss of patches beside the mask loss."""
    part_weight: float = 0.5
    """Weight of the contrastive loss of patches and part words on objects whose parts are trained later, so that CLIP
    knows part words before the part stage. 0: the words of objects alone."""
    compile: bool = False
    """Compile the layers (GPU only): a minute at the start, then faster steps. Sums may round differently."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "caption_weight", "patch_weight", "part_weight")
        require_at_least(1, self, "phrases")


@dataclass(frozen=True)
class GuidanceRecipe(TowerRecipe):
    """Train PartShapes' own guidance tower, a tiny DINOv2, from random weights without any label."""

    name: ClassVar[str] = "guidance"

    steps: int = 6_000
    """Number of updates of the weights."""
    batch_size: int = 64
    """Number of scenes in a step; each is seen in two large and `small_crops` small crops."""
    small_crops: int = 4
    """Number of small crops of each scene, half the side of a large one."""
    prototypes: int = 1024
    """Number of directions among which each crop and each patch is distributed."""
    student_temperature: float = 0.1
    """Temperature of the student's distributions."""
    teacher_temperature: float = 0.06
    """Temperature of the teacher's distributions; lower than the student's, so that they are sharper."""
    teacher_momentum: float = 0.99
    """Share of itself that the teacher keeps at the first step; it rises to 1 along a cosine."""
    most_masked: float = 0.5
    """Greatest share of the patches of a large crop that is hidden from the student."""
    patch_weight: float = 1.0
    """Weight of the loss of patches beside that of crops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.image_size % (2 * PATCH) == 0, f"image_size {self.image_size} must be a multiple of {2 * PATCH}")
        require_not_negative(self, "small_crops", "patch_weight")
        require_at_least(2, self, "prototypes")
        require_positive(self, "student_temperature", "teacher_temperature")
        require(0 <= self.teacher_momentum < 1, f"teacher_momentum {self.teacher_momentum} must lie from 0 to below 1")
        require(0 < self.most_masked < 1, f"most_masked {self.most_masked} must lie between 0 and 1")

    def momentum(self, step: int) -> float:
        """Return the share of itself that the teacher keeps at `step`, from 0."""
        return 1 - (1 - self.teacher_momentum) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class AggregationRecipe(TowerRecipe):
    """Train PartShapes' own cost aggregation, a tiny CAT-Seg, on the masks of whole objects.

    A backbone or guidance tower that is not given is trained first, into the output's folder of that name.
    """

    name: ClassVar[str] = "aggregation"
    needs: ClassVar[tuple[str, ...]] = ("backbone", "guidance")

    steps: int = 3_000
    """Number of updates of the weights."""
    batch_size: int = 32
    """Number of scenes in a step, each compared with the words of all objects."""
    backbone: str = ""
    """Directory of the backbone, whose CLIP compares patches with words; it is not changed."""
    guidance: str = ""
    """Directory of the guidance tower, which is not changed either."""
    patch_attention: bool = True
    """Keep the attention of CLIP's last block, through which the backbone's patches were trained; False leaves it out,
    as published. What starts from the aggregation does the same."""
    compile: bool = False
    """Compile the layers (GPU only): a minute at the start, then faster steps. Sums may round differently."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.image_size % (2 * PATCH) == 0, f"image_size {self.image_size} must be a multiple of {2 * PATCH}")


@dataclass(frozen=True)
class DetectorRecipe(TowerRecipe):
    """Train PartShapes' own detector, a tiny OWLv2, from random weights on the boxes of whole objects."""

    name: ClassVar[str] = "detector"
    split: ClassVar[SceneSplit] = "detection"

    steps: int = 16_000
    """Number of updates of the weights."""
    distance_weight: float = 5.0
    """Weight of the distance between boxes beside the loss of words."""
    overlap_weight: float = 2.0
    """Weight of the generalised IoU of boxes beside the loss of words."""
    threshold: float = 0.5
    """Minimum score of an object, which the saved detector brings along; a score is the IoU that is expected."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "distance_weight", "overlap_weight")
        require(0 <= self.threshold <= 1, f"threshold {self.threshold} must lie from 0 to 1")


TOWER_RECIPES: dict[str, type[TowerRecipe]] = {
    f"partshapes-{recipe.name}": recipe
    for recipe in (BackboneRecipe, GuidanceRecipe, AggregationRecipe, DetectorRecipe)
}
"""Recipe of each tower, by its name on the command line."""
