"""The base class of the families on CLIP's own towers, which are frozen in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel

from partclipseg.models.clip_config import CLIPTowersConfig
from partclipseg.models.clip_dense import keep_positions
from partclipseg.models.initialisation import init_as_torch, init_unit_vector
from partclipseg.models.interface import PartModel
from partclipseg.models.loading import load_pretrained
from partclipseg.models.tokens import add_token_embeddings
from partclipseg.vocabulary import Vocabulary


class CLIPTowers(PartModel):
    """CLIP and the vector of background; the subclasses add what is trained."""

    _supports_sdpa = True

    config: CLIPTowersConfig

    def __init__(self, config: CLIPTowersConfig) -> None:
        super().__init__(config)
        self.clip = CLIPModel(config.clip_config)
        keep_positions(self.clip)
        self.background = nn.Parameter(torch.empty(1, config.clip_config.projection_dim))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The towers bring their own initialisation.
        init_as_torch(module)
        if isinstance(module, CLIPTowers):
            init_unit_vector(module.background)

    def add_tokens(self, count: int) -> None:
        """Add embeddings, drawn from torch's global generator, and train them with those of the known words.

        CLIP is frozen as published, since it knows all words; a tokenizer that lacks some must learn them.
        """
        add_token_embeddings(self.clip.text_model, self.config.text_config, count).requires_grad_(True)
        self.renew_stamp()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as in transformers. Raises `PartCLIPSegError` for what is not there, incomplete or damaged."""
        return load_pretrained(cls, pretrained_model_name_or_path, super().from_pretrained, *args, **kwargs)


def admitted(config: CLIPTowersConfig, vocabulary: Vocabulary, present: Sequence[int]) -> list[int]:
    """List the classes of the objects `present` that Oracle-Obj admits.

    As released, where "oracle" is not repaired, these are all whose name contains the word of one of the objects.
    """
    words = [vocabulary.objects[index] for index in present]
    repaired = config.repaired("oracle")
    return [
        index
        for index, pair in enumerate(vocabulary.object_parts)
        if (pair.object in words if repaired else any(word in pair.name for word in words))
    ]
