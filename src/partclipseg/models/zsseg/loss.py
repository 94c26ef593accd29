"""The training loss of ZSSeg+: MaskFormer's for the parts of one object, and a cross-entropy for the prompts.

Letters in shapes: L layers, B photos, Q queries, M parts of an object at most, K words, H x W the label maps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.losses import sets
from partclipseg.losses.config import SetLossConfig
from partclipseg.losses.labels import downsample_labels, list_present
from partclipseg.losses.masks import LossCounts
from partclipseg.losses.matching import assign
from partclipseg.models.zsseg.proposals import SCALE
from partclipseg.models.zsseg.regions import true_region_features


class ZSSegLoss:
    """Sums cross-entropy, focal and dice loss of the matched proposals of every layer, and the prompts' cross-entropy.

    total = classes + focal + dice + prompts

    Each layer's proposals are matched anew. The part labels must be those of one object a photo, as
    `losses.labels.one_object` makes them; photos without any are left out. transformers' `MaskFormerLoss` computes the
    same of one layer, but needs scipy and waits for the device.

    Source: Wei et al. (NeurIPS 2023) for stage 1. How the prompts were trained was not published: here the features of
    true parts, as stage 2 computes them, are compared with all prompts of the vocabulary.
    """

    needs_attention = False

    def __init__(self, config: SetLossConfig, queries: int, patch: int) -> None:
        """Make the loss.

        Args:
            config: weights of the terms.
            queries: number of proposals; of an object that shows more parts, the surplus is left out.
            patch: side of CLIP's patches in pixels.
        """
        self.config, self.queries, self.patch = config, queries, patch

    def __call__(
        self,
        output: Any,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_part: Tensor | None = None,
        class_to_object: Tensor | None = None,
        attention_pairs: Tensor | None = None,
        counts: LossCounts | None = None,
    ) -> dict[str, Tensor]:
        """Return the scalars classes, focal, dice, prompts (where they are trained), and their sum, total.

        Args:
            output: a `ZSSegTrainingOutput`.
            part_labels: integer `[B, H, W]`, object-part index or negative.
            counts: denominators of the batch that this is a micro-batch of; None: this is the batch.
            object_labels, class_to_part, class_to_object, attention_pairs: not needed.
        """
        config, num_words = self.config, output.class_logits.shape[-1] - 1
        words, real = list_present(part_labels, num_words, min(output.most_parts, self.queries))  # [B, M]
        over = self._counts(part_labels, real) if counts is None else counts
        truth = (part_labels[:, None] == words[..., None, None]) & real[..., None, None]  # [B, M, H, W]
        # Of the queries of a photo, those that are matched weigh 1, the others as background.
        of_classes = config.background_weight * (over.photos * self.queries - over.masks) + over.masks
        zero = torch.zeros((), device=part_labels.device)
        sums = {"classes": zero, "focal": zero, "dice": zero}
        matched = self.match(output, part_labels, words, real)  # [L, B, M]
        for masks, classes, chosen in zip(output.mask_logits, output.class_logits, matched, strict=True):
            target = torch.full(classes.shape[:2], num_words, device=classes.device)
            target = target.scatter(1, chosen, torch.where(real, words, num_words))  # [B, Q]
            value = F.cross_entropy(classes.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
            weight = torch.where(target < num_words, 1.0, config.background_weight) * real.any(1, keepdim=True)
            sums["classes"] = sums["classes"] + (weight * value).sum() / of_classes.clamp(min=1e-6)
            found = masks.gather(1, chosen[..., None, None].expand(-1, -1, *masks.shape[2:]))  # [B, M, h, w]
            of_focal, of_dice = sets.at_label_size(found, truth)  # [B, M] each
            for name, of_masks, weight in (
                ("focal", of_focal, config.focal_weight),
                ("dice", of_dice, config.dice_weight),
            ):
                sums[name] = sums[name] + weight * (of_masks * real).sum() / over.masks.clamp(min=1)
        if output.texts is not None:
            sums["prompts"] = config.prompt_weight * self.prompts(output, part_labels, words, real, over)
        return {**sums, "total": torch.stack(list(sums.values())).sum()}

    def match(self, output: Any, part_labels: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """Return the proposal of each part in every layer, int64 `[L, B, M]`; those of absent parts mean nothing."""
        layers, photos, _, height, width = output.mask_logits.shape
        small = downsample_labels(part_labels, (height, width))
        truth = ((small[:, None] == words[..., None, None]) & real[..., None, None]).flatten(2).float()  # [B, M, h·w]
        costs = torch.cat(
            [
                sets.matching_costs(
                    masks.flatten(2), classes, truth, words, self.config.focal_weight, self.config.dice_weight
                )
                for masks, classes in zip(output.mask_logits, output.class_logits, strict=True)
            ]
        )  # [L·B, M, Q]
        # A part that is absent may have any proposal that is left, at no cost.
        costs = costs * real.repeat(layers, 1)[..., None]
        return assign(costs.nan_to_num(1e9, 1e9, 1e9)).view(layers, photos, -1)

    def prompts(self, output: Any, part_labels: Tensor, words: Tensor, real: Tensor, over: LossCounts) -> Tensor:
        """Average the cross-entropy of the features of true parts over the prompts of all words."""
        labels, inside = (
            F.grid_sample(m[:, None].float(), output.crops, mode="nearest", padding_mode="border", align_corners=False)
            for m in (part_labels, output.object_masks)
        )
        arguments = labels[:, 0].long(), inside[:, 0] > 0.5, words, output.patches, output.fuse_weight, self.patch
        with torch.autocast(part_labels.device.type, enabled=False):
            logits = SCALE * true_region_features(*arguments) @ output.texts.float().T  # [B, M, K]
        value = F.cross_entropy(logits.flatten(0, 1), words.flatten(), reduction="none").view_as(real)
        return (value * real).sum() / over.masks.clamp(min=1)

    def counts(
        self,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_object: Tensor | None,
        size: tuple[int, int],
        tokens: int = 0,
        attention_pairs: Tensor | None = None,
    ) -> LossCounts:
        """Count the part masks and the photos that have any; arguments as in `ClassLoss.counts`."""
        if class_to_object is None:
            raise TypeError("the loss of ZSSeg+ needs class_to_object")
        _, real = list_present(part_labels, len(class_to_object), self.queries)
        return self._counts(part_labels, real)

    @staticmethod
    def _counts(part_labels: Tensor, real: Tensor) -> LossCounts:
        """Count from the list of parts, bool `[B, M]`; pixels are not counted, since no term is a mean over them."""
        none = torch.zeros((), device=part_labels.device)
        fields = dict.fromkeys(LossCounts._fields, none)
        photos, masks = real.any(1).sum(dtype=torch.float32), real.sum(dtype=torch.float32)
        return LossCounts(**{**fields, "photos": photos, "masks": masks})
