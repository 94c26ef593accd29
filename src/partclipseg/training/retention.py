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
from partclipseg.training.words import Tokens


class WordRetention:
    """Compares the fine-tuned model's map of a word with the starting model's.

    Args:
        teacher: the model before fine-tuning, as plain CLIPSeg (no adapter); it is frozen and not changed.
        words: tokens of the W words to retain, as the teacher reads them.
        prompts: tokens of the fine-tuned model's own prompts for them, equally many for each word, in their order;
            None where it reads the words as the teacher does.
        count: number of words drawn for each step, at most W.
    """

    def __init__(self, teacher: PartModel, words: Tokens, count: int, prompts: Tokens | None = None) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        number = len(words.input_ids)
        self.prompts = Tokens(*(part.unflatten(0, (number, -1)) for part in prompts or words))  # [W, P, L]
        self.count = min(count, number)
        with torch.no_grad():
            self.embeddings = teacher.encode_text(*words)  # [W, D]

    def __call__(self, model: PartModel, inputs: Inputs, teacher_inputs: Inputs, chosen: Tensor) -> Tensor:
        """Compute the mean Kullback-Leibler divergence, in nats, of the two models' maps over photos, words and pixels.

        The teacher's logits are averaged to the size of the model's.

        Args:
            model: the model in training.
            inputs, teacher_inputs: the same photos, prepared by the model and by the teacher.
            chosen: int64 `[K]`, indices of the words, as `draw` gives them.
        """
        prompts = (part[chosen].flatten(0, 1) for part in self.prompts)  # [K·P, L] each
        logits = model.word_logits(inputs, model.encode_text(*prompts)).float()  # [B, K, h, w]
        with torch.no_grad():
            target = self.teacher.word_logits(teacher_inputs, self.embeddings[chosen]).float()
            if target.shape != logits.shape:
                target = F.adaptive_avg_pool2d(target, (logits.shape[-2], logits.shape[-1]))  # [B, K, h, w]
        probability = target.sigmoid()
        # Cross-entropy minus the teacher's own entropy: zero where both agree.
        return F.binary_cross_entropy_with_logits(logits, probability) - F.binary_cross_entropy_with_logits(
            target, probability
        )

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw different words for one step, int64 `[count]`."""
        return torch.randperm(len(self.embeddings), generator=generator)[: self.count]
