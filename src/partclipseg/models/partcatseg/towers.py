"""The towers: CLIP's text features, and the guidance features of DINOv2 or a ResNet.

Letters in shapes: B photos, K prompts, D joint width of CLIP, V width of CLIP's vision tower, A guidance channels,
g feature grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, Dinov2Model, ResNetConfig, ResNetModel

from partclipseg.maps.precision import full_precision
from partclipseg.models.batch_norms import FixedBatchNorms
from partclipseg.models.partcatseg.config import CATSegConfig
from partclipseg.models.positions import ResizedPositions, resize_bicubic

PROMPTS_AT_ONCE = 256
"""Number of prompts per batch of the text tower: a vocabulary has 80 for each word."""


def text_features(clip: CLIPModel, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Compute unit vectors `[K, D]` of `K` prompts, int64 ids and mask `[K, L]`, `PROMPTS_AT_ONCE` at a time.

    Padding that no prompt of a chunk uses is cut off, unless the mask lies on a GPU, which would have to be waited
    for, or the pass is compiled. The mask is not handed on: causal attention never looks behind the end token, where
    padding would be.
    """
    chunks = []
    cuts = attention_mask is not None and attention_mask.device.type == "cpu" and not torch.compiler.is_compiling()
    for start in range(0, len(input_ids), PROMPTS_AT_ONCE):
        ids = input_ids[start : start + PROMPTS_AT_ONCE]
        if cuts and attention_mask is not None:
            ids = ids[:, : int(attention_mask[start : start + PROMPTS_AT_ONCE].sum(1).max())]
        chunks.append(text_vectors(clip, ids))
    return torch.cat(chunks)


def text_vectors(clip: CLIPModel, input_ids: Tensor) -> Tensor:
    """Compute unit vectors `[K, D]` of `K` prompts, int64 `[K, L]`, in one pass."""
    text: Any = clip.text_model(input_ids=input_ids)
    return F.normalize(clip.text_projection(text.pooler_output), dim=-1)


class Guidance(nn.Module):
    """Base class of the towers that compute photo features at 1, 2 and 4 times the feature grid."""

    tower: Any

    def layers(self) -> list[nn.Module]:
        """Return the layers that repeat."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map `pixels [B, 3, H, W]` to `[B, A, g, g]`, `[B, A', 2g, 2g]`, `[B, A'', 4g, 4g]`."""
        raise NotImplementedError

    @staticmethod
    def build(config: CATSegConfig) -> Guidance:
        """Build the guidance tower that the configuration names."""
        if isinstance(config.guidance_config, ResNetConfig):
            return ResNetGuidance(config.guidance_config)
        return DINOGuidance(config)


class DINOGuidance(Guidance):
    """Resizes DINOv2's patch features to the three grids."""

    def __init__(self, config: CATSegConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = Dinov2Model(config.guidance_config)
        self.resized = ResizedPositions()

    def layers(self) -> list[nn.Module]:
        return list(self.tower.encoder.layer)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.patch_features(pixels)
        coarse, middle, fine = (
            F.interpolate(features, (edge, edge), mode="bilinear", align_corners=False)
            for edge in (self.config.grid, 2 * self.config.grid, 4 * self.config.grid)
        )
        return coarse, middle, fine

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Map `pixels [B, 3, H, W]` to the patch tokens after the last norm, `[B, A, H / 14, W / 14]`."""
        tower = self.tower
        rows, columns = (edge // tower.config.patch_size for edge in pixels.shape[-2:])
        patches = tower.embeddings.patch_embeddings(pixels)  # [B, rows·columns, A]
        tokens = torch.cat([tower.embeddings.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        tokens = tokens + self.positions(rows, columns)
        tokens = tower.layernorm(tower.encoder(tokens).last_hidden_state)  # [B, 1 + rows·columns, A]
        # Unflatten first: then the maps of one photo, too, have strides that resizing takes for channels last.
        return tokens[:, 1:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)  # [B, A, rows, columns]

    def positions(self, rows: int, columns: int) -> Tensor:
        """Resize the position embeddings to `[1, 1 + rows·columns, A]`, class token first; bicubic in float32."""
        embeddings: Tensor = self.tower.embeddings.position_embeddings  # [1, 1 + s·s, A]
        side = int((embeddings.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return embeddings
        return self.resized(embeddings, (rows, columns), lambda: self._resize(embeddings, side, rows, columns))

    def _resize(self, embeddings: Tensor, side: int, rows: int, columns: int) -> Tensor:
        square = embeddings[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # [1, A, s, s]
        square = full_precision(square)
        if not self.config.repaired("positions"):
            # 0.1 guards the released code against rounding; torch samples at the inverse of the factor given.
            factors = ((rows + 0.1) / side, (columns + 0.1) / side)
            patches = resize_bicubic(square, scale_factor=factors)
        else:
            patches = resize_bicubic(square, size=(rows, columns))
        return torch.cat([embeddings[:, :1], patches.flatten(2).transpose(1, 2).to(embeddings.dtype)], dim=1)


class ResNetGuidance(FixedBatchNorms, Guidance):
    """Computes res4, res3 and res2 of a ResNet; its batch norms keep their statistics, scales and shifts."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.tower = ResNetModel(config)
        self.freeze_batch_norms()

    def layers(self) -> list[nn.Module]:
        return [block for stage in self.tower.encoder.stages for block in stage.layers]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tower = self.tower
        hidden = tower.embedder(pixels)  # [B, 64, 4g, 4g]
        res2, res3, res4 = (hidden := stage(hidden) for stage in tower.encoder.stages)
        return res4, res3, res2
