"""Local copies of the types that all methods share, to be replaced by imports from `partclipseg.models.interface`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import ModelOutput

from partclipseg.vocabulary import Vocabulary


@dataclass(frozen=True)
class MaskLossConfig:
    """Weights of the loss terms, as in `losses.config`."""

    background_weight: float = 0.05
    outside: Literal["ignore", "background"] = "ignore"


@dataclass(frozen=True)
class MethodSettings:
    """Settings of a training run that every family has."""

    family: ClassVar[str] = ""
    loss: MaskLossConfig = field(default_factory=MaskLossConfig)


class PartModel(PreTrainedModel):
    """Base class of the methods."""

    settings_class: ClassVar[type[MethodSettings]] = MethodSettings
    has_attention: ClassVar[bool] = False


@dataclass(frozen=True, eq=False)
class Words:
    """A vocabulary as a model takes it."""

    vocabulary: Vocabulary
    embeddings: Tensor
    """`[K, D]`: `encode_text` of the tokens of `prompts(vocabulary)`."""
    class_to_part: Tensor
    """int64 `[N_c]`."""
    class_to_object: Tensor
    """int64 `[N_c]`."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, embeddings: Tensor) -> Words:
        """The words of a vocabulary with their embeddings `[K, D]`."""
        device = embeddings.device
        return cls(
            vocabulary,
            embeddings,
            torch.from_numpy(vocabulary.class_to_part).to(device),
            torch.from_numpy(vocabulary.class_to_object).to(device),
        )


@dataclass
class PartOutput(ModelOutput):
    """Logits before the sigmoid, at the size h·w of the decoder."""

    object_part_logits: Tensor | None = None
    """`[B, N_c + 1, h, w]`, background last."""
    object_logits: Tensor | None = None
    """`[B, N_o + 1, h, w]`, background last; None for a method without an object branch."""
    part_logits: Tensor | None = None
    """`[B, N_p, h, w]`; None for a method without a part branch."""
    attention: Tensor | None = None
    """Attention of the requested pairs; None for a method without attention control."""


class LabelMaps(NamedTuple):
    """The prediction for one photo of size `H × W`."""

    label_map: Tensor
    """int64 `[H, W]`: index of the object-part, background -1."""
    object_map: Tensor
    """int64 `[H, W]`: index of the object, background -1; always the object of `label_map`."""
    scores: Tensor
    """float32 `[H, W]`: probability of the class (or of background) that won."""
