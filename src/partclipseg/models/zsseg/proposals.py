"""Stage 1: a MaskFormer proposes masks of the parts of one object, each with an embedding in CLIP's space.

Built of transformers' MaskFormer modules; the decoder's layers are called one by one, since the library has no place
for the object's mask. Letters in shapes: Q queries, C width, K words, H x W the padded photo.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.maskformer.modeling_maskformer import (
    MaskformerMLPPredictionHead,
    MaskFormerPixelLevelModule,
    MaskFormerTransformerModule,
)

from partclipseg.models.zsseg.config import ZSSegConfig

SCALE = 100.0
"""Factor of cosines that become logits, CLIP's."""


class Proposals(nn.Module):
    """MaskFormer whose queries look at one object."""

    def __init__(self, config: ZSSegConfig) -> None:
        super().__init__()
        self.config = config
        maskformer = config.maskformer()
        width = config.hidden_size
        self.pixel_level = MaskFormerPixelLevelModule(maskformer)
        self.transformer = MaskFormerTransformerModule(config.backbone_config.hidden_sizes[-1], maskformer)
        self.mask_head = MaskformerMLPPredictionHead(width, width, width)
        self.class_head = MaskformerMLPPredictionHead(
            width, config.class_hidden_size, config.clip_config.projection_dim, num_layers=2
        )

    def forward(self, pixels: Tensor, inside: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Propose masks of one photo.

        Args:
            pixels: `[1, 3, H, W]`, normalised and padded.
            inside: bool `[1, 1, H, W]`: the object.
            texts: unit vectors `[K, D]` of the words.

        Returns mask logits `[Q, H/4, W/4]` and class logits `[Q, K]`.
        """
        features: Any = self.pixel_level.encoder(pixels).feature_maps
        masks = self.pixel_level.decoder(features).last_hidden_state  # [1, C, H/4, W/4]
        vector = self.object_vector(masks, inside)  # [1, 1, C]
        queries = self.queries(features[-1], inside)  # [1, Q, C]
        mask_logits = torch.einsum("bqc,bchw->bqhw", self.mask_head(queries), masks)[0]
        embeddings = F.normalize(self.class_head(queries + vector)[0].float(), dim=-1)  # [Q, D]
        return mask_logits.float(), SCALE * embeddings @ texts.float().T

    def object_vector(self, masks: Tensor, inside: Tensor) -> Tensor:
        """Average the mask features over the object, `[1, 1, C]`; as released, divide their sum by the photo's area."""
        share = F.avg_pool2d(inside.to(masks.dtype), 4)  # [1, 1, H/4, W/4]: of each place that is the object's
        total = (masks * share).sum((2, 3))
        area = share.sum().clamp(min=1e-6) if self.config.repaired("object_vector") else share.numel()
        return (total / area)[:, None]

    def queries(self, features: Tensor, inside: Tensor) -> Tensor:
        """Decode the queries `[1, Q, C]` from the last features `[1, C', H/32, W/32]`, after the last norm."""
        module: Any = self.transformer
        if module.input_projection is not None:
            features = module.input_projection(features)
        positions = module.position_embedder(features.shape, features.device, features.dtype)
        memory, positions = (values.flatten(2).transpose(1, 2) for values in (features, positions))  # [1, N, C]
        places = module.queries_embedder.weight[None].to(memory.dtype)  # [1, Q, C]
        prompt = self.object_prompt(inside, memory.dtype).expand(-1, -1, places.shape[1], -1)
        hidden = torch.zeros_like(places)
        for layer in module.decoder.layers:
            hidden = layer(
                hidden,
                spatial_position_embeddings=positions,
                object_queries_position_embeddings=places,
                encoder_hidden_states=memory,
                encoder_attention_mask=prompt,
            )
        return module.decoder.layernorm(hidden)

    def object_prompt(self, inside: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what is added to the scores of every key, `[1, 1, 1, N]`: nothing for places of the object.

        Other places are blocked; as released they get 1.
        """
        away = 1 - F.max_pool2d(inside.to(dtype), 32).flatten(2)[:, :, None]  # [1, 1, 1, N]
        if not self.config.repaired("attention"):
            return away
        blocked = away * torch.finfo(dtype).min
        # An object without a pixel would block every key.
        return torch.where(away.amin() > 0, torch.zeros_like(blocked), blocked)
