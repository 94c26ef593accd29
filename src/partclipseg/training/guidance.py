"""The guidance tower of PartShapes: a tiny DINOv2, trained by self-distillation without any label.

DINOv2 (Oquab et al., 2023) was made in the same way on photos. A student and a teacher look at crops of the same
scene. Crops are distributed among prototypes, and the student learns to give what the teacher gives:

- for a crop as a whole, the teacher's answer for another, large crop of the scene (DINO, Caron et al., 2021);
- for each patch, some of which are hidden from it, the teacher's answer for the same place of the scene in the other
  large crop, relative to the mean of that crop's patches.

The second differs from DINOv2's loss of hidden patches (iBOT, Zhou et al., 2022), whose target is the teacher's answer
for the same patch of the same crop. With few crops and many prototypes that is learnt without looking at the patch: all
patches of a crop share an answer, by the crop's colours, and the features say nothing of parts. Here the other crop has
other colours, and the mean takes away what all patches of a crop share.

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
from partclipseg.training.scene_photos import photos_of, recolour
from partclipseg.training.towers import PATCH, GuidanceRecipe

LARGE_AREA = (0.4, 1.0)
SMALL_AREA = (0.1, 0.4)
"""Least and greatest share of a scene's area that a large and a small crop show."""


def guidance_tower_config(image_size: int) -> Dinov2Config:
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
        student = Projected(guidance_tower_config(scenes.size), recipe.prototypes)
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
        photos = photos_of(self.photos, rows)  # [B, 3, S, S]
        edge = photos.shape[-1]
        views = [draw_windows(len(photos), LARGE_AREA, photos.device) for _ in range(2)]  # 2 × [B, 4]
        large = torch.cat([self._view(photos, edge, windows) for windows in views])  # [2·B, 3, S, S]
        small_windows = [draw_windows(len(photos), SMALL_AREA, photos.device) for _ in range(recipe.small_crops)]
        small = [self._view(photos, edge // 2, windows) for windows in small_windows]
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

        # Patches: those whose place the other large crop shows, too.
        target, both = patch_targets(patches_of_teacher, torch.cat(views), recipe.teacher_temperature)
        of_patches = (self._cross_entropy(patches, target) * both).sum() / both.sum().clamp(min=1)
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

    def _view(self, photos: Tensor, edge: int, windows: Tensor) -> Tensor:
        """Cut `windows [B, 4]` out of `[B, 3, S, S]` in 0..1 and recolour: normalised `[B, 3, edge, edge]`."""
        across, down, left, top = windows.unbind(1)
        zero = torch.zeros_like(down)
        matrix = torch.stack([across, zero, left, zero, down, top], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(matrix, [len(photos), 3, edge, edge], align_corners=False)
        crops = F.grid_sample(photos, grid, padding_mode="border", align_corners=False)
        return (recolour(crops, gain=0.6, shift=0.4) - self.mean) / self.std

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


def draw_windows(count: int, area: tuple[float, float], device: torch.device) -> Tensor:
    """Draw the windows of crops, every other one mirrored: `[count, 4]`, for scenes from -1 to 1.

    A place u, v of the crop, both from -1 to 1, is the place across * u + left, down * v + top of the scene, where a
    window is (across, down, left, top). `area` is the least and the greatest share of the scene that a crop shows.
    """
    side = (area[0] + (area[1] - area[0]) * torch.rand(count, device=device)).sqrt()  # of the scene's, [count]
    centre = (1 - side)[:, None] * (2 * torch.rand(count, 2, device=device) - 1)  # [count, 2]
    sign = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    return torch.stack([side * sign, side, *centre.unbind(1)], dim=1)


def patch_targets(logits: Tensor, windows: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Make the targets of the patches of two large crops of each scene, from the teacher's answers for the other one.

    Args:
        logits: `[2·B, N, K]`: the teacher's of the patches, first crops first; K prototypes.
        windows: `[2·B, 4]` of the crops, as `draw_windows` makes them.
        temperature: of the targets.

    Returns float32 probabilities `[2·B, N, K]`, and bool `[2·B, N]`: whether the other crop shows the patch's centre.
    """
    logits = logits.float()
    relative = logits - logits.mean(1, keepdim=True)  # what all patches of a crop share says nothing of parts
    found, both = at_same_places(relative, windows)
    target = balanced(found.flatten(0, 1), temperature, counted=both.flatten())
    return target.view_as(found), both


def at_same_places(values: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Read each crop's values in the other crop of its scene: `[2·B, N, K]`, first crops first, N = g·g patches.

    Returns the values, interpolated (bilinear), at the places of the patches' centres, and bool `[2·B, N]`: whether the
    other crop shows them. `windows [2·B, 4]` are as `draw_windows` makes them.
    """
    half, edge = len(values) // 2, int(values.shape[1] ** 0.5)
    centres = (2 * torch.arange(edge, device=values.device) + 1) / edge - 1  # [g]
    across, down, left, top = windows[:, :, None, None].unbind(1)  # [2·B, 1, 1] each
    columns, rows = across * centres + left, down * centres[:, None] + top  # in the scene
    across, down, left, top = (value.roll(half, 0) for value in (across, down, left, top))
    grid = torch.stack(torch.broadcast_tensors((columns - left) / across, (rows - top) / down), -1)  # [2·B, g, g, 2]
    other = values.roll(half, 0).mT.unflatten(2, (edge, edge))  # [2·B, K, g, g]
    found = F.grid_sample(other, grid, padding_mode="border", align_corners=False).flatten(2).mT
    return found, (grid.abs() <= 1).all(-1).flatten(1)


def balanced(logits: Tensor, temperature: float, iterations: int = 3, counted: Tensor | None = None) -> Tensor:
    """Turn logits `[M, K]` into float32 probabilities `[M, K]` that use all K nearly equally often.

    Rows that are not `counted`, bool `[M]`, become zeros.
    """
    scaled = logits.float() / temperature
    shares = (scaled - scaled.max()).exp()
    if counted is not None:
        shares = shares * counted[:, None]
    for _ in range(iterations):
        shares = shares / shares.sum(0, keepdim=True).clamp(min=1e-12) / shares.shape[1]
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-12)
    return shares
