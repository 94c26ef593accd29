"""PartCLIPSeg: a photo and words in, logits of generalized parts, objects and object-parts out."""

from __future__ import annotations

import torch
from torch import Tensor

from partclipseg.model.config import PartCLIPSegConfig
from partclipseg.model.decoder import PartDecoder
from partclipseg.model.towers import CLIPSegTowers, PartCLIPSegOutput
from partclipseg.vocabulary import Vocabulary

__all__ = ["PartCLIPSegModel", "PartCLIPSegOutput"]


class PartCLIPSegModel(CLIPSegTowers):
    """Object-parts composed of generalized parts and objects (Choi et al., NeurIPS 2024).

    Conditions are ordered part words, object words, background: `N = N_p + N_o + 1`.
    """

    decoder: PartDecoder

    def __init__(self, config: PartCLIPSegConfig) -> None:
        super().__init__(config)
        self.decoder = PartDecoder(config)
        self.post_init()

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """The bare words, parts first, then objects: `N_p + N_o` strings."""
        return [*vocabulary.parts, *vocabulary.objects]

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        class_to_part: Tensor,
        class_to_object: Tensor,
        text_embeddings: Tensor | None = None,
        num_parts: int | None = None,
        attention_pairs: Tensor | None = None,
    ) -> PartCLIPSegOutput:
        """Logits of every part, object and object-part for every photo.

        Args:
            pixel_values: float `[B, 3, H, W]`, RGB, normalised with the configuration's mean and std.
            input_ids, attention_mask: int64 `[N_p + N_o, L]`, the tokens of `prompts(vocabulary)`.
            class_to_part, class_to_object: int64 `[N_c]`, from the vocabulary.
            text_embeddings: `[N_p + N_o, D]` from `encode_text`, in place of the tokens.
            num_parts: `N_p`; saves reading it off `class_to_part`, which a compiled graph cannot do.
            attention_pairs: int64 `[P, 2]`, (photo, k): class k where `k < N_c`, else object `k - N_c`.
        """
        # 1. Words: [N, D], background last.
        if text_embeddings is None:
            text_embeddings = self.encode_text(input_ids, attention_mask)
        conditions = torch.cat([text_embeddings.to(self.dtype), self.background])
        num_parts = int(class_to_part.max()) + 1 if num_parts is None else num_parts

        # 2. Photo: three activations [B, T, V].
        grid = self.grid(pixel_values)
        activations = self.encode_photo(pixel_values)

        # 3. One decoder pass for each condition: features [B, N, g·g', C].
        part_rows, object_rows, object_word_rows = self.class_rows(
            class_to_part, class_to_object, num_parts, len(conditions)
        )
        attention_rows = None
        if attention_pairs is not None:
            attention_rows = _condition_rows(
                attention_pairs, part_rows[:-1], object_rows[:-1], num_parts, len(conditions)
            )
        features, attention = self.decoder.condition_features(activations, conditions, attention_rows)

        # 4. Logits of the words themselves: [B, N, h, w].
        word_logits = self.decoder.logits(features, grid)

        # 5. Logits of the object-parts: [B, N_c + 1, h, w].
        class_logits = self.decoder.class_logits(
            features, conditions, part_rows, object_rows, object_word_rows, grid
        )

        # 6. Attention of the asked pairs: mean of the part's and the object's.
        if attention is not None:
            attention = attention.unflatten(0, (2, -1)).mean(0)  # [2P, T, T] -> [P, T, T]
        return PartCLIPSegOutput(
            object_part_logits=class_logits,
            object_logits=word_logits[:, num_parts:],
            part_logits=word_logits[:, :num_parts],
            attention=attention,
        )

    def class_rows(
        self, class_to_part: Tensor, class_to_object: Tensor, num_parts: int, num_conditions: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The conditions that every class is made of, three times int64 `[N_c + 1]`, background last.

        They are the part, the object, and the one whose word stands for the object; background pairs with itself.
        """
        background = class_to_part.new_full((1,), num_conditions - 1)
        part_rows = torch.cat([class_to_part, background])
        object_rows = torch.cat([class_to_object + num_parts, background])
        if not self.config.reference_object_lookup:
            return part_rows, object_rows, object_rows
        # The offset of the part words is missing: reference defect D1.
        return part_rows, object_rows, torch.cat([class_to_object, background])


def _condition_rows(
    pairs: Tensor, part_rows: Tensor, object_rows: Tensor, num_parts: int, num_conditions: int
) -> Tensor:
    """Rows of the flattened `B·N` conditions that the pairs need: first each pair's part, then its object, `[2P]`.

    An object's pair names its row twice, and so do pairs of one object; to find that out would wait for the device.
    """
    photo, index = pairs.unbind(1)  # [P]
    objects = torch.arange(num_parts, num_conditions - 1, device=pairs.device)  # [N_o]
    rows = torch.stack([torch.cat([part_rows, objects])[index], torch.cat([object_rows, objects])[index]])  # [2, P]
    return (rows + photo * num_conditions).flatten()
