"""Word retention keeps fine-tuning on some words from forgetting the others.

PartCLIPSeg is trained on the labels of the seen objects. Nothing in its losses asks that an unseen object's word
still finds that object, and it soon does not: the object map then answers background, and Pred-All with it. The
model that training starts from does know those words. So its own maps serve as soft targets for words that the
labels do not cover, on the same photos (learning without forgetting: Li & Hoiem, ECCV 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.models.interface import Inputs, PartModel


class WordRetention:
    """Compares the fine-tuned model's map of a word with the starting model's.

    Args:
        teacher: the model before fine-tuning, as plain CLIPSeg (no adapter); it is frozen and not changed.
        input_ids, attention_mask: int64 `[W, L]`, tokens of the words to retain.
        count: number of words drawn for each step, at most `W`.
    """

    def __init__(self, teacher: PartModel, input_ids: Tensor, attention_mask: Tensor, count: int) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.input_ids, self.attention_mask = input_ids, attention_mask
        self.count = min(count, len(input_ids))
        with torch.no_grad():
            self.embeddings = teacher.encode_text(input_ids, attention_mask)  # [W, D]

    def __call__(self, model: PartModel, inputs: Inputs, chosen: Tensor) -> Tensor:
        """Compute the mean Kullback-Leibler divergence, in nats, of the two models' maps over photos, words and pixels.

        `inputs` are prepared photos, for both models; `chosen` int64 `[K]` indexes the words, as `draw` gives them.
        """
        with torch.no_grad():
            target = self.teacher.word_logits(inputs, self.embeddings[chosen]).float()  # [B, K, h, w]
        words = model.encode_text(self.input_ids[chosen], self.attention_mask[chosen])
        logits = model.word_logits(inputs, words).float()
        probability = target.sigmoid()
        # Cross-entropy minus the teacher's own entropy: zero where both agree.
        return F.binary_cross_entropy_with_logits(logits, probability) - F.binary_cross_entropy_with_logits(
            target, probability
        )

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw different words for one step, int64 `[count]`."""
        return torch.randperm(len(self.input_ids), generator=generator)[: self.count]
