"""The paper's baseline: CLIPSeg fine-tuned with one prompt for each object-part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.settings import CLIPSegSettings
from partclipseg.models.clipseg_config import CLIPSegTowersConfig
from partclipseg.models.clipseg_decoder import ConditionDecoder
from partclipseg.models.clipseg_onnx import TRACED, CLIPSegDecoderGraph, clipseg_graphs, encoded_example
from partclipseg.models.clipseg_rows import DecodedPhotos, named_rows, slices
from partclipseg.models.clipseg_towers import CLIPSegTowers
from partclipseg.models.interface import Inputs, PartOutput, Words, register
from partclipseg.models.onnx import OnnxGraph
from partclipseg.models.parameter_groups import trained
from partclipseg.vocabulary import Vocabulary


@register
class CLIPSegBaseline(CLIPSegTowers):
    """One decoder pass for each object-part and for the background; nothing is composed."""

    config_class = CLIPSegBaselineConfig
    settings_class = CLIPSegSettings

    def __init__(self, config: CLIPSegTowersConfig) -> None:
        super().__init__(config)
        self.decoder = ConditionDecoder(config)
        self.post_init()

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """Return ``dog ear``: the object-part's name without its ``'s``, `N_c` strings."""
        return [f"{pair.object} {pair.part}" for pair in vocabulary.object_parts]

    def forward(self, inputs: Inputs, words: Words, attention_pairs: Tensor | None = None) -> PartOutput:
        """Compute logits `[B, N_c + 1, h, w]` of every object-part, background last.

        Raises `TypeError` for `attention_pairs`: the baseline has no attention of objects.
        """
        self._refuse_attention(attention_pairs)
        conditions = torch.cat([words.embeddings.to(self.dtype), self.background])  # [N_c + 1, D]
        return PartOutput(object_part_logits=self.word_logits(inputs, conditions))

    @torch.inference_mode()
    def label_maps(
        self,
        inputs: Inputs,
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute label maps as `PartModel.label_maps`; with `present_objects` only their classes are decoded."""
        owners = words.vocabulary.class_to_object
        photos = DecodedPhotos(self, inputs["pixel_values"], words.embeddings, sizes)
        if present_objects is None:
            possible = np.ones((len(sizes), len(owners) + 1), bool)
        else:
            possible = named_rows(present_objects, int(owners.max()) + 2)[:, np.append(owners, -1)]  # [B, N_c + 1]
            possible[:, -1] = with_background
        rows, classes = np.nonzero(possible)
        labels, contest = photos.upload(classes), photos.contest()
        for some in slices(len(classes), photos.rows_at_once):
            features = photos.decode(rows[some], classes[some])[None]  # [1, k, g·g', C]
            contest.add(rows[some], self.decoder.logits(features, photos.grid)[0], labels[some])
        return contest.maps(photos.upload(owners))

    def trained_parameters(self, settings: CLIPSegSettings) -> list[nn.Parameter]:
        """Freeze all but what the paper trains, and the background word unless set to train; return the rest."""
        self.train_published_parameters(background=settings.train_background)
        return trained(self)

    def onnx_graphs(self) -> dict[str, OnnxGraph]:
        """Return photo encoder, text encoder and decoder."""
        example, sizes = encoded_example(self)
        words = torch.rand(TRACED["words"], self.config.projection_dim)
        prompts = {"text_embeddings": ("{object} {part}",)}
        decoder = OnnxGraph(CLIPSegDecoderGraph(self), (*example, words), (*sizes, {0: Dim("words")}), prompts=prompts)
        return clipseg_graphs(self, decoder)
