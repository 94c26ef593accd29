"""CPTCoOp: prompts composed of learnt vectors and the words of object and part, in CLIP's text tower.

``[start] v v v v OBJECT c c c c PART . [end]`` with v and c shared by all classes; OBJECT and PART are the embeddings
of the bare words. Letters in shapes: K prompts, L tokens of a prompt as it is read, T of a composed one, E width of the
text tower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel

from partclipseg.models.zsseg.config import ZSSegConfig


class ComposedPrompts(nn.Module):
    """The learnt vectors of the prompts, and the weight of a region's features beside its object's."""

    def __init__(self, config: ZSSegConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        before, between = config.prompt_lengths
        self.separator_id, self.dot_id = config.separator_id, config.dot_id
        self.end_id = config.text_config.eos_token_id
        self.prefix = nn.Parameter(torch.empty(before, width))
        self.connection = nn.Parameter(torch.empty(between, width))
        self.fuse_weight = nn.Parameter(torch.empty(()))

    @property
    def added(self) -> int:
        """Number of tokens that a composed prompt has more than the prompt that is read."""
        return len(self.prefix) + len(self.connection)

    def forward(self, clip: CLIPModel, input_ids: Tensor) -> Tensor:
        """Compute unit vectors `[K, D]` of `K` prompts ``[start] OBJECT , PART [end]``, int64 `[K, L]`."""
        text: Any = clip.text_model
        count = len(input_ids)
        words = text.embeddings.token_embedding(input_ids)  # [K, L, E]
        dot = text.embeddings.token_embedding.weight[self.dot_id]
        extra = torch.cat([self.prefix, self.connection, dot[None]]).to(words.dtype)  # [A + 1, E]
        table = torch.cat([words, extra.expand(count, -1, -1)], dim=1)  # [K, L + A + 1, E]
        places, ends = self._places(input_ids)  # [K, T], [K]
        composed = table.gather(1, places[..., None].expand(-1, -1, table.shape[-1]))  # [K, T, E]
        hidden = composed + text.embeddings.position_embedding.weight[: places.shape[1]]
        ahead = torch.full((places.shape[1],) * 2, torch.finfo(hidden.dtype).min, device=hidden.device).triu(1)
        for layer in text.encoder.layers:
            hidden = layer(hidden, attention_mask=ahead[None, None].to(hidden.dtype))
        hidden = text.final_layer_norm(hidden)
        last = hidden.gather(1, ends[:, None, None].expand(-1, -1, hidden.shape[-1]))[:, 0]  # [K, E]
        return F.normalize(clip.text_projection(last), dim=-1)

    def _places(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return each composed token's row in the table, int64 `[K, T]`, and the places of the end tokens, `[K]`.

        The table holds the L tokens as they are read, the learnt vectors and the full stop. After the end token it does
        not matter what stands: attention never looks ahead.
        """
        length = input_ids.shape[1]
        # In old files of CLIP, 2 stands for the largest token.
        ends = input_ids if self.end_id == 2 else (input_ids == self.end_id).int()
        end = ends.argmax(1)[:, None]  # [K, 1]
        comma = (input_ids == self.separator_id).int().argmax(1)[:, None]
        before, between = len(self.prefix), len(self.connection)
        place = torch.arange(length + self.added, device=input_ids.device)[None]  # [1, T]
        first_object, first_vector, first_part = 1 + before, before + comma, before + comma + between
        dot = first_part + end - comma - 1
        rows = torch.where(place < first_object, length + place - 1, place - before)  # v, then the object's words
        rows = torch.where(place >= first_vector, length + before + place - first_vector, rows)  # c
        rows = torch.where(place >= first_part, comma + 1 + place - first_part, rows)  # the part's words
        rows = torch.where(place == dot, length + before + between, rows)
        rows = torch.where(place > dot, end.expand(-1, place.shape[1]), rows)
        rows = torch.where(place == 0, 0, rows)
        last = (dot + 1)[:, 0]
        return rows.clamp(0, length + before + between), last.clamp(0, place.shape[1] - 1)
