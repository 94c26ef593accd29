"""The paper's baseline: CLIPSeg fine-tuned with one prompt for each object-part."""

from __future__ import annotations

import torch
from torch import Tensor

from partclipseg.model.config import CLIPSegBaselineConfig, PartCLIPSegConfig
from partclipseg.model.decoder import ConditionDecoder
from partclipseg.model.towers import CLIPSegTowers, PartCLIPSegOutput
from partclipseg.vocabulary import Vocabulary


class CLIPSegBaseline(CLIPSegTowers):
    """One decoder pass for each object-part and for the background; nothing is composed.

    Same call and output as `PartCLIPSegModel`, so that training, evaluation and prediction treat both alike.
    """

    config_class = CLIPSegBaselineConfig

    def __init__(self, config: PartCLIPSegConfig) -> None:
        super().__init__(config)
        self.decoder = ConditionDecoder(config)
        self.post_init()

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """``dog ear``: the object-part's name without its ``'s``, `N_c` strings."""
        return [f"{pair.object} {pair.part}" for pair in vocabulary.object_parts]

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        class_to_part: Tensor | None = None,
        class_to_object: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        num_parts: int | None = None,
        attention_pairs: Tensor | None = None,
    ) -> PartCLIPSegOutput:
        """Logits `[B, N_c + 1, h, w]` of every object-part, background last.

        `input_ids`, `attention_mask` are int64 `[N_c, L]`, or `text_embeddings [N_c, D]` from `encode_text`. The
        class arrays and `num_parts` are accepted for the common interface; the baseline has no use for them, and
        has no attention of objects: asking for `attention_pairs` raises `TypeError`.
        """
        if attention_pairs is not None:
            raise TypeError("the CLIPSeg baseline has no attention control: leave attention_pairs out")
        if text_embeddings is None:
            text_embeddings = self.encode_text(input_ids, attention_mask)
        conditions = torch.cat([text_embeddings.to(self.dtype), self.background])  # [N_c + 1, D]
        features, _ = self.decoder.condition_features(self.encode_photo(pixel_values), conditions)
        return PartCLIPSegOutput(object_part_logits=self.decoder.logits(features, self.grid(pixel_values)))
