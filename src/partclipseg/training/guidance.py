"""The guidance tower of PartShapes: a tiny DINOv2, trained by self-distillation without any label.

DINOv2 (Oquab et al., 2023) was made in the same way on photos. A student and a teacher look at crops of the same
scene. Crops are distributed among prototypes, and the student learns to give what the teacher gives:

- for a crop as a whole, the teacher's answer for another, large crop of the scene (DINO, Caron et al., 2021);
- for a patch that is hidden from it, the teacher's answer for that patch (iBOT, Zhou et al., 2022).

The teacher is the moving average of the student. Its answers are balanced over the prototypes of a batch by
Sinkhorn's iterations (SwAV, Caron et al., 2020), so that not all crops can get the same one. The result is
the teacher's `Dinov2Model`, as PartCATSeg takes it for guidance.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model

from partclipseg.models.partcatseg.config import CATSegConfig
from partclipseg.shapes.cache import SceneArrays
from partclipseg.training.pretraining import pretrain
from partclipseg.training.towers import PATCH, GuidanceRecipe

LARGE_AREA = (0.4, 1.0)
SMALL_AREA = (0.1, 0.4)
"""Least and greatest share of a scene's area that a large and a small crop show."""


def guidance_config(image_size: int) -> Dinov2Config:
    """Return a configuration of some 1.2 million parameters: 6 blocks of width 128 on 8-pixel patches."""
    return Dinov2Config(
        hidden_size=128, num_hidden_layers=6, num_attention_heads=4, image_size=image_size, patch_size=PATCH
    )


def train_guidance(
    recipe: GuidanceRecipe,
    output: str | Path,
    scenes: SceneArrays | None = None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Path | None:
    """Train the tower from random weights, or continue the run that `output` holds.

    ``model/`` in `output`, which is returned, is a `Dinov2Model` in half precision. The other arguments, None and the
    errors are those of `pretraining.pretrain`.
    """
    return pretrain(recipe, output, SelfDistillation, scenes, report)


class SelfDistillation:
    """The guidance tower in training; see `pretraining.Pretraining`."""

    def __init__(self, recipe: GuidanceRecipe, scenes: SceneArrays, device: torch.device) -> None:
        self.recipe = recipe
        student = Projected(guidance_config(scenes.size), recipe.prototypes)
        teacher = copy.deepcopy(student).requires_grad_(False)
        self.module = nn.ModuleDict({"student": student, "teacher": teacher}).to(device)
        self.student, self.teacher = student, teacher
        self.parameters = list(student.parameters())
        self.photos = torch.from_numpy(np.array(scenes.images)).to(device)  # uint8 [N, S, S, 3]
        normalisation = CATSegConfig.guidance_mean, CATSegConfig.guidance_std
        self.mean, self.std = (torch.tensor(values, device=device).view(3, 1, 1) / 255 for values in normalisation)

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute both losses of the scenes `rows [B]`."""
        recipe = self.recipe
        photos = self.photos[rows].permute(0, 3, 1, 2).float() / 255  # [B, 3, S, S]
        edge = photos.shape[-1]
        large = torch.cat([self._view(photos, edge, LARGE_AREA) for _ in range(2)])  # [2·B, 3, S, S]
        small = [self._view(photos, edge // 2, SMALL_AREA) for _ in range(recipe.small_crops)]
        hidden = self._hidden(2 * len(rows), (edge // PATCH) ** 2)  # bool [2·B, N]
        with torch.autocast(photos.device.type, torch.bfloat16, enabled=photos.is_cuda):
            with torch.no_grad():
                crops_of_teacher, patches_of_teacher = self.teacher(large)  # [2·B, K], [2·B, N, K]
            crops, patches = self.student(large, hidden)
            small_crops = [self.student(torch.cat(small))[0]] if small else []  # [small_crops·B, K]

        # Crops: the target of each of the student's is the teacher's answer for every other large crop.
        targets = balanced(crops_of_teacher, recipe.teacher_temperature).chunk(2)  # 2 × [B, K]
        students = [*crops.chunk(2), *(one for many in small_crops for one in many.chunk(recipe.small_crops))]
        terms = [
            self._cross_entropy(student, target)
            for number, target in enumerate(targets)
            for other, student in enumerate(students)
            if number != other
        ]
        of_crops = torch.stack([term.mean() for term in terms]).mean()

        # Patches: those that were hidden.
        target = balanced(patches_of_teacher.flatten(0, 1), recipe.teacher_temperature).view_as(patches_of_teacher)
        of_patches = (self._cross_entropy(patches, target) * hidden).sum() / hidden.sum().clamp(min=1)
        return {"crops": of_crops, "patches": of_patches, "total": of_crops + recipe.patch_weight * of_patches}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        momentum = self.recipe.momentum(step)
        for mean, value in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(value, 1 - momentum)

    def save(self, directory: Path) -> None:
        self.teacher.tower.half().cpu().save_pretrained(directory)

    def _cross_entropy(self, student: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy of `[..., K]` logits and probabilities, `[...]`."""
        return -(target * F.log_softmax(student.float() / self.recipe.student_temperature, dim=-1)).sum(-1)

    def _view(self, photos: Tensor, edge: int, area: tuple[float, float]) -> Tensor:
        """Crop, mirror and recolour `[B, 3, S, S]` in 0..1 at random: normalised `[B, 3, edge, edge]`."""
        batch, device = len(photos), photos.device
        side = (area[0] + (area[1] - area[0]) * torch.rand(batch, device=device)).sqrt()  # of the scene's, [B]
        centre = (1 - side)[:, None] * (2 * torch.rand(batch, 2, device=device) - 1)  # in -1..1, [B, 2]
        sign = torch.where(torch.rand(batch, device=device) < 0.5, -1.0, 1.0)
        zero = torch.zeros_like(side)
        matrix = torch.stack([side * sign, zero, centre[:, 0], zero, side, centre[:, 1]], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(matrix, [batch, 3, edge, edge], align_corners=False)
        crops = F.grid_sample(photos, grid, padding_mode="border", align_corners=False)
        gain = 1 + 0.6 * (torch.rand(batch, 3, 1, 1, device=device) - 0.5)
        shift = 0.4 * (torch.rand(batch, 1, 1, 1, device=device) - 0.5)
        return ((crops * gain + shift).clamp(0, 1) - self.mean) / self.std

    def _hidden(self, crops: int, patches: int) -> Tensor:
        """Draw which patches are hidden, bool `[crops, patches]`: of every other crop none, on average."""
        device = self.photos.device
        share = self.recipe.most_masked * (2 * torch.rand(crops, 1, device=device) - 1).clamp(min=0)
        return torch.rand(crops, patches, device=device) < share


class Projected(nn.Module):
    """A tower with one head for crops and one for patches, each ending in cosines to prototypes."""

    def __init__(self, config: Dinov2Config, prototypes: int) -> None:
        super().__init__()
        self.tower = Dinov2Model(config)
        self.crops = PrototypeHead(config.hidden_size, prototypes)
        self.patches = PrototypeHead(config.hidden_size, prototypes)

    def forward(self, pixels: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map `[B, 3, H, W]`, of which the patches `hidden` bool `[B, N]` are not shown, to `[B, K]`, `[B, N, K]`."""
        tokens = self.tower(pixels, bool_masked_pos=hidden).last_hidden_state  # [B, 1 + N, A]
        return self.crops(tokens[:, 0]), self.patches(tokens[:, 1:])


class PrototypeHead(nn.Module):
    """Maps tokens `[..., A]` to cosines with prototypes `[..., K]`."""

    BOTTLENECK = 64

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, self.BOTTLENECK))
        self.prototypes = nn.Parameter(torch.randn(prototypes, self.BOTTLENECK))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.layers(tokens), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


def balanced(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Turn logits `[M, K]` into float32 probabilities `[M, K]` that use all K nearly equally often."""
    scaled = logits.float() / temperature
    shares = (scaled - scaled.max()).exp()
    for _ in range(iterations):
        shares = shares / shares.sum(0, keepdim=True).clamp(min=1e-12) / shares.shape[1]
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-12)
    return shares
