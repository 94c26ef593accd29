"""PartCLIPSeg's decoder: the composition of parts with objects.

Letters in shapes: B photos, N conditions (words and background), K classes (object-parts and background), D word
width, C decoder width, g x g' patches, h x w logits.
Source: Choi et al., "Understanding Multi-Granularity for Open-Vocabulary Part Segmentation" (NeurIPS 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from partclipseg.models.clipseg_config import CLIPSegTowersConfig
from partclipseg.models.clipseg_decoder import ConditionDecoder, FiLM, UpsamplingHead, upsampled


class PartDecoder(ConditionDecoder):
    """Decoder of object-parts: features and words of a part and an object are merged, then modulated again."""

    def __init__(self, config: CLIPSegTowersConfig) -> None:
        super().__init__(config)
        width, word_width = config.reduce_dim, config.projection_dim
        self.merge_features = nn.Linear(2 * width, width)
        """Linear layer from [part features ; object features] to class features."""
        self.merge_words = nn.Linear(2 * word_width, word_width)
        """Linear layer from [object word ; part word] to class word."""
        self.class_film = FiLM(word_width, width)
        self.class_upsample = UpsamplingHead(config)

    def class_logits(
        self,
        features: Tensor,
        conditions: Tensor,
        part_rows: Tensor,
        object_rows: Tensor,
        object_word_rows: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """Compute logits of K classes, each a pair of conditions.

        Args:
            features: `[B, N, g·g', C]` from `condition_features`.
            conditions: `[N, D]`, perhaps followed by words that stand for objects.
            part_rows, object_rows: int64 `[K]`, the two conditions of each class.
            object_word_rows: int64 `[K]`, the condition whose word stands for the object; `object_rows` in the
                intended method.

        Returns `[B, K, h, w]`.
        """
        words = self.class_words(conditions, part_rows, object_word_rows)
        return self.pair_logits(self.merge_halves(features), words, part_rows, object_rows, grid)

    # Both merges are linear, so each condition goes through its half once and pairs are sums of halves.

    def merge_halves(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute each condition's share in its classes, as a part and as an object, `[B, N, g·g', C]` each."""
        of_part, of_object = self.merge_features.weight.chunk(2, dim=1)
        return F.linear(features, of_part, self.merge_features.bias), F.linear(features, of_object)

    def class_words(self, conditions: Tensor, part_rows: Tensor, object_word_rows: Tensor) -> Tensor:
        """Return the words of K classes, `[K, D]`, from conditions `[N, D]` and their rows, int64 `[K]`."""
        of_object, of_part = self.merge_words.weight.chunk(2, dim=1)
        return (
            F.linear(conditions, of_object, self.merge_words.bias)[object_word_rows]
            + F.linear(conditions, of_part)[part_rows]
        )

    def pair_logits(
        self,
        halves: tuple[Tensor, Tensor],
        words: Tensor,
        part_rows: Tensor,
        object_rows: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """Compute logits `[B, K, h, w]` of K pairs from `merge_halves`, `[B, N, g·g', C]` each, and words `[K, D]`."""
        merged = halves[0].index_select(1, part_rows) + halves[1].index_select(1, object_rows)  # [B, K, g·g', C]
        return upsampled(self.class_upsample, self.class_film(merged, words), grid)

    def initialise_composition(self) -> None:
        """Start the classes as copies of the conditions' own layers, and the merges as means."""
        self.copy_to_classes()
        self.average_merges()

    @torch.no_grad()
    def copy_to_classes(self) -> None:
        """Start the classes' FiLM and up-sampling head as copies of the conditions' own, as published."""
        for target, source in ((self.class_film, self.film), (self.class_upsample, self.upsample)):
            for copy, original in zip(target.parameters(), source.parameters(), strict=True):
                init.copy_(copy, original)

    @torch.no_grad()
    def reset_class_film(self) -> None:
        """Start the classes' FiLM as the identity for every word: scale 1, shift 0."""
        for layer, value in ((self.class_film.mul, 1.0), (self.class_film.add, 0.0)):
            init.zeros_(layer.weight)
            init.constant_(layer.bias, value)

    @torch.no_grad()
    def average_merges(self) -> None:
        """Start both merges as the mean of their halves: an untrained class is its part and object averaged."""
        for merge in (self.merge_features, self.merge_words):
            half = torch.eye(merge.out_features, dtype=merge.weight.dtype, device=merge.weight.device) / 2
            init.copy_(merge.weight, torch.cat([half, half], dim=1))
            init.zeros_(merge.bias)

    @torch.no_grad()
    def randomise_merges(self) -> None:
        """Start both merges at random, as the reference does."""
        for merge in (self.merge_features, self.merge_words):
            merge.reset_parameters()
