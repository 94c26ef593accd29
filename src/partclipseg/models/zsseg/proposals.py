"""Stage 1: a MaskFormer proposes masks of the parts of one object, each with an embedding in CLIP's space.

Built of transformers' MaskFormer modules; the decoder's layers are called one by one, since the library has no place
for the object's mask. Letters in shapes: L layers, B photos, Q queries, C width, K words, H x W the padded photo.
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

from partclipseg.models.batch_norms import FixedBatchNorms
from partclipseg.models.zsseg.config import ZSSegConfig

SCALE = 100.0
"""Factor of cosines that become logits, CLIP's."""


class Proposals(FixedBatchNorms):
    """MaskFormer whose queries look at one object."""

    def __init__(self, config: ZSSegConfig) -> None:
        super().__init__()
        self.config = config
        maskformer = config.maskformer()
        width = config.hidden_size
        self.pixel_level = MaskFormerPixelLevelModule(maskformer)
        if config.backbone_norm == "group":
            _use_group_norms(self.pixel_level.encoder)
        self.transformer = MaskFormerTransformerModule(config.backbone_config.hidden_sizes[-1], maskformer)
        self.mask_head = MaskformerMLPPredictionHead(width, width, width)
        self.class_head = MaskformerMLPPredictionHead(
            width, config.class_hidden_size, config.clip_config.projection_dim, num_layers=2
        )

    def forward(
        self, pixels: Tensor, inside: Tensor, texts: Tensor, every_layer: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Propose masks of the parts of one object in each photo.

        Args:
            pixels: `[B, 3, H, W]`, normalised and padded.
            inside: bool `[B, 1, H, W]`: the objects.
            texts: unit vectors `[K, D]` of the words.
            every_layer: give the proposals of every decoder layer, not of the last alone, for which L is 1.

        Returns float32 mask logits `[L, B, Q, H/4, W/4]` and class logits `[L, B, Q, K]`.
        """
        features: Any = self.pixel_level.encoder(pixels).feature_maps
        masks = self.pixel_level.decoder(features).last_hidden_state  # [B, C, H/4, W/4]
        vector = self.object_vector(masks, inside)  # [B, 1, C]
        layers = self.queries(features[-1], inside)
        queries = torch.stack(layers if every_layer else layers[-1:])  # [L, B, Q, C]
        mask_logits = torch.einsum("lbqc,bchw->lbqhw", self.mask_head(queries), masks)
        embeddings = F.normalize(self.class_head(queries + vector).float(), dim=-1)  # [L, B, Q, D]
        with torch.autocast(pixels.device.type, enabled=False):  # a logit of 100 would be rounded to a half
            return mask_logits.float(), SCALE * embeddings @ texts.float().T

    def object_vector(self, masks: Tensor, inside: Tensor) -> Tensor:
        """Average the mask features over the object, `[B, 1, C]`; as released, divide their sum by the photo's area."""
        share = F.avg_pool2d(inside.to(masks.dtype), 4)  # [B, 1, H/4, W/4]: of each place that is the object's
        total = (masks * share).sum((2, 3))
        whole = share[0].numel()
        area = share.sum((2, 3)).clamp(min=1e-6) if self.config.repaired("object_vector") else whole
        return (total / area)[:, None]

    def queries(self, features: Tensor, inside: Tensor) -> list[Tensor]:
        """Decode the queries `[B, Q, C]` of each layer from the last features `[B, C', H/32, W/32]`.

        One norm, the last, is that of every layer's queries.
        """
        module: Any = self.transformer
        if module.input_projection is not None:
            features = module.input_projection(features)
        # In bfloat16 places far from the corner would share a position.
        positions = module.position_embedder(features.shape, features.device, torch.float32)
        if self.training:
            self._positions = positions  # a captured step reads them, and the library's cache keeps the latest alone
        memory, positions = (v.flatten(2).mT for v in (features, positions.to(features.dtype)))  # [B, N, C]
        places = module.queries_embedder.weight[None].to(memory.dtype).expand(len(memory), -1, -1)  # [B, Q, C]
        prompt = self.object_prompt(inside, memory.dtype).expand(-1, -1, places.shape[1], -1)
        hidden, layers = torch.zeros_like(places), []
        for layer in module.decoder.layers:
            hidden = layer(
                hidden,
                spatial_position_embeddings=positions,
                object_queries_position_embeddings=places,
                encoder_hidden_states=memory,
                encoder_attention_mask=prompt,
            )
            layers.append(module.decoder.layernorm(hidden))
        return layers

    def object_prompt(self, inside: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what is added to the scores of every key, `[B, 1, 1, N]`: nothing for places of the object.

        Other places are blocked; as released they get 1.
        """
        away = 1 - F.max_pool2d(inside.to(dtype), 32).flatten(2)[:, :, None]  # [B, 1, 1, N]
        if not self.config.repaired("attention"):
            return away
        blocked = away * torch.finfo(dtype).min
        # An object without a pixel would block every key.
        return torch.where(away.amin(-1, keepdim=True) > 0, torch.zeros_like(blocked), blocked)


def _use_group_norms(backbone: nn.Module) -> None:
    """Replace each batch norm by a group norm of four channels a group, or more."""
    for module in list(backbone.modules()):
        norm = getattr(module, "normalization", None)
        if isinstance(norm, nn.BatchNorm2d):
            module.normalization = nn.GroupNorm(max(1, min(32, norm.num_features // 4)), norm.num_features)
