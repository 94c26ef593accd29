"""PartCATSeg and CAT-Seg: photos and words in, logits of every object-part out.

Letters in shapes: B photos, N_p parts, N_o objects, N_c object-parts, P prompt templates, D joint width of CLIP,
g feature grid, 4g edge of the logits.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.clip_towers import CLIPTowers
from partclipseg.models.cuda_graphs import Graphs
from partclipseg.models.interface import PartOutput, Words, register
from partclipseg.models.parameter_groups import groups_with_slow_tower, trained
from partclipseg.models.partcatseg.aggregator import (
    AggregationLayer,
    AppearanceGuidance,
    CostAggregator,
    PartCostAggregator,
    Volume,
)
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.convolutions import OneChannelConv2d
from partclipseg.models.partcatseg.filters import Patches, patches
from partclipseg.models.partcatseg.norm_relu import NormReLU
from partclipseg.models.partcatseg.photos import first_size, model_inputs
from partclipseg.models.partcatseg.settings import CATSegSettings, PartCATSegSettings
from partclipseg.models.partcatseg.towers import Guidance, ResNetGuidance, text_features
from partclipseg.models.partcatseg.up_block import PhasesOfProduct
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.models.onnx import OnnxGraph

Features = tuple[Patches, AppearanceGuidance]
"""CLIP's patches and the projected guidance of photos."""


@dataclass
class PartCATSegOutput(PartOutput):
    """Tensors that PartCATSeg's loss needs beside the logits."""

    object_similarity: Tensor | None = None
    """`[B, N_o + 1, g, g]`: cosine of patch and object, averaged over the templates, background last."""
    object_part_similarity: Tensor | None = None
    """`[B, N_c + 1, g, g]`: the same of the composed object-parts."""


@register
class CATSegModel(CLIPTowers):
    """Aggregates one volume of similarities of patches and object-parts (Cho et al., CVPR 2024).

    CLIP is frozen; the guidance tower is trained at a hundredth of the learning rate.
    """

    config_class = CATSegConfig
    settings_class = CATSegSettings
    _no_split_modules: ClassVar = ["CLIPEncoderLayer", "Dinov2Layer", "AggregationLayer"]

    config: CATSegConfig
    aggregator_class: ClassVar[type[CostAggregator]] = CostAggregator

    def __init__(self, config: CATSegConfig) -> None:
        super().__init__(config)
        self.guidance_share = CATSegSettings.guidance_share
        self.guidance = Guidance.build(config)
        self.aggregator = self.aggregator_class(config)
        self._graphs = Graphs()
        self._image_shape = config.image_shape
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CATSegModel) and isinstance(module.aggregator, PartCostAggregator):
            module.aggregator.copy_to_pairs()

    # -- words ------------------------------------------------------------------------------------------------

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """Put every object-part into every template: `N_c · P` strings, such as *a photo of a dog's ear.*"""
        return self.templated([pair.name for pair in vocabulary.object_parts])

    def templated(self, words: Sequence[str]) -> list[str]:
        """Put every word into every template: `len(words) · P` strings, all templates of a word together."""
        return [template.replace("{}", word) for word in words for template in self.config.templates]

    def encode_text(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """Compute unit vectors `[K, D]` of `K` prompts, int64 ids and mask `[K, L]`. Raises `TypeError` without ids."""
        if input_ids is None:
            raise TypeError("give input_ids and attention_mask")
        return text_features(self.clip, input_ids, attention_mask)

    def texts(self, words: Words) -> tuple[Tensor, Tensor]:
        """Return the prompts' vectors by word, `[words, P, D]`, and the background's unit vector, `[1, P, D]`."""
        texts = words.embeddings.to(self.dtype).unflatten(0, (-1, len(self.config.templates)))
        return texts, self.background_texts(texts.shape[1])

    def background_texts(self, templates: int) -> Tensor:
        """Return the background's unit vector as if of each template, `[1, P, D]`."""
        background = self.background if self.config.repaired("background") else self.background.detach()
        return F.normalize(background, dim=-1).unsqueeze(1).expand(-1, templates, -1)

    # -- photos -----------------------------------------------------------------------------------------------

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of CLIP's input, in pixels; they are fixed, as windows are made for their feature grid."""
        return self._image_shape

    @property
    def ahead_shape(self) -> None:
        """Photos come to `prepare` at their own size: it resizes them twice."""
        return None

    def first_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Return the size of a photo of height and width `size` at `config.shortest_edge`."""
        return first_size(size, self.config)

    def prepare(self, photos: Sequence[np.ndarray] | Tensor) -> dict[str, Tensor]:
        """Make the inputs of photos on the model's device; see `photos.model_inputs`."""
        return model_inputs(self.config, photos, self.device, self.dtype)

    def features(self, inputs: Mapping[str, Tensor]) -> Features:
        """Compute CLIP's patches and the projected guidance of the photos."""
        guidance = self.aggregator.guidance(self.guidance(inputs["guidance_pixels"]))
        return patches(self.config, self.clip, inputs["pixel_values"]), guidance

    # -- the method -------------------------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Tensor], words: Words, attention_pairs: Tensor | None = None) -> PartOutput:
        """Compute logits `[B, N_c + 1, 4g, 4g]` of every object-part, background last.

        Args:
            inputs: what `prepare` made of the photos.
            words: the vocabulary with its embeddings.
            attention_pairs: must be None: there is no attention of objects to control; else raises `TypeError`.
        """
        self._refuse_attention(attention_pairs)
        volume, guidance = self.class_volume(inputs, words)
        return PartOutput(object_part_logits=self.aggregator.decode(volume.embedding, guidance))

    def class_volume(
        self, inputs: Mapping[str, Tensor], words: Words, features: Features | None = None
    ) -> tuple[Volume, AppearanceGuidance]:
        """Aggregate the volume of the object-parts and background; return it with the guidance that decodes it.

        `features` are those of the photos, if they have been computed.
        """
        photo, guidance = features or self.features(inputs)
        return self.aggregator.aggregate(photo.vectors, torch.cat(self.texts(words)), guidance), guidance

    def label_maps(
        self,
        inputs: Mapping[str, Tensor],
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Label B photos by the greatest probability after resizing; only classes that may win are decoded.

        Args:
            inputs: what `prepare` made of the photos.
            words: the vocabulary with its embeddings.
            sizes: (H, W) of each photo.
            present_objects: object indices of each photo for Oracle-Obj; None for Pred-All.
            with_background: let background compete with the `present_objects`.
        """
        from partclipseg.models.partcatseg.maps import decoded_maps

        return decoded_maps(self, inputs, words, sizes, present_objects, with_background)

    def maps_of(
        self,
        output: PartOutput,
        inputs: Mapping[str, Tensor],
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute the label maps of `label_maps` from an output of `forward`."""
        from partclipseg.models.partcatseg.maps import best_maps, chosen_rows

        logits: Any = output.object_part_logits
        rows = chosen_rows(self.config, logits, words, present_objects, with_background)
        return best_maps(self.config, inputs, words, sizes, rows)

    @property
    def min_part_probability(self) -> float:
        """Minimum probability of a part: 0 in reference mode, where the greatest wins, however small."""
        return 0.0 if self.config.reference else super().min_part_probability

    @torch.no_grad()
    def logits_size(self, inputs: Mapping[str, Tensor], words: Words) -> tuple[int, int]:
        """Return height and width of the logits."""
        return self.config.logits_edge, self.config.logits_edge

    def repeated_layers(self) -> list[nn.Module]:
        """List the layers that repeat, for compilation one by one."""
        kinds = AggregationLayer | PhasesOfProduct | NormReLU | OneChannelConv2d
        blocks = [block for block in self.aggregator.modules() if isinstance(block, kinds)]
        return [*list(self.clip.vision_model.encoder.layers)[:-1], *self.guidance.layers(), *blocks]

    @property
    def pass_key(self) -> Hashable:
        """Value that changes with the settings of the pass that can be switched, for captured graphs."""
        return self.config.attention_filter, self.config.pair_affinity, self.config.patch_attention

    def graphs(self) -> Graphs | None:
        """Return the captured graphs of this model; None unless it runs on a CUDA device without autocast."""
        # Autocast keeps copies of the weights until its block ends; a graph would read them after that.
        if self.device.type != "cuda" or torch.is_autocast_enabled("cuda"):
            return None
        self._graphs.hold(self.weights_stamp(), self.parameters)
        return self._graphs

    def onnx_graphs(self) -> dict[str, OnnxGraph]:
        """Return photo encoder, text encoder and decoder."""
        from partclipseg.models.partcatseg.onnx import cost_graphs

        return cost_graphs(self)

    # -- training ---------------------------------------------------------------------------------------------

    @classmethod
    def check_settings(cls, settings: CATSegSettings) -> None:
        """Raise `PartCLIPSegError` for repairs, filters and guidance that cannot be."""
        from partclipseg.models.partcatseg.start import check_cost_settings

        check_cost_settings(cls, settings)

    @classmethod
    def from_start(cls, name: str, settings: CATSegSettings) -> Self:
        """Build the model that training starts from, in float32 on the CPU; see `start.start_model`."""
        from partclipseg.models.partcatseg.start import start_model

        return start_model(cls, name, settings)

    def trained_parameters(self, settings: CATSegSettings | None = None) -> list[nn.Parameter]:
        """Freeze CLIP and what has no gradient, train the rest as published, and return it in the model's order."""
        self.guidance_share = (settings or CATSegSettings()).guidance_share
        self.requires_grad_(True)
        self.clip.requires_grad_(False)
        if isinstance(self.guidance, ResNetGuidance):
            self.guidance.freeze_batch_norms()
        self.background.requires_grad_(self.config.repaired("background"))
        return trained(self)

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Group the trained parameters for AdamW as published: guidance at its share of the rate, norms without decay.

        Embeddings of words, which are trained only where words were added, are not decayed either.
        """
        tower = list(self.guidance.parameters())
        return groups_with_slow_tower(self, tower, 1 / self.guidance_share, learning_rate, weight_decay)

    def recompute(self, enabled: bool) -> None:
        """Compute the aggregation again in the backward pass instead of storing it."""
        self.aggregator.recompute = enabled

    def build_loss(self, settings: CATSegSettings | None = None, compiled: bool = False) -> Any:
        """Build the published loss; see `CATSegLoss`."""
        from partclipseg.models.partcatseg.loss import CATSegLoss

        return CATSegLoss(self.config, settings and settings.loss, compiled)


@register
class PartCATSegModel(CATSegModel):
    """Aggregates a volume of parts and objects, and a second one of the object-parts composed of them.

    Source: Choi et al., "Fine-Grained Image-Text Correspondence with Cost Aggregation for Open-Vocabulary Part
    Segmentation" (CVPR 2025).
    """

    config_class = PartCATSegConfig
    settings_class = PartCATSegSettings
    aggregator_class = PartCostAggregator

    config: PartCATSegConfig
    aggregator: PartCostAggregator

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """Put every part, object and object-part into every template: `(N_p + N_o + N_c) · P` strings."""
        names = [pair.name for pair in vocabulary.object_parts]
        return self.templated([*vocabulary.parts, *vocabulary.objects, *names])

    def forward(
        self, inputs: Mapping[str, Tensor], words: Words, attention_pairs: Tensor | None = None
    ) -> PartCATSegOutput:
        """Compute logits of every part, object and object-part; arguments as in `CATSegModel.forward`."""
        self._refuse_attention(attention_pairs)
        num_parts = len(words.vocabulary.parts)
        first, second, guidance = self.volumes(inputs, words)
        word_logits = self.aggregator.decode(first.embedding, guidance)  # [B, N_p + N_o + 1, 4g, 4g]
        return PartCATSegOutput(
            object_part_logits=self.aggregator.decode(second.embedding, guidance),
            object_logits=word_logits[:, num_parts:],
            part_logits=word_logits[:, :num_parts],
            object_similarity=first.similarity[:, num_parts:],
            object_part_similarity=second.similarity,
        )

    def volumes(
        self, inputs: Mapping[str, Tensor], words: Words, features: Features | None = None
    ) -> tuple[Volume, Volume, AppearanceGuidance]:
        """Aggregate the volume of parts, objects and background, then that of object-parts and background.

        `features` are those of the photos, if they have been computed.
        """
        # 1. Texts: [N_p + N_o + 1, P, D] and [N_c + 1, P, D]; one background closes both.
        num_parts, num_objects = len(words.vocabulary.parts), len(words.vocabulary.objects)
        texts, background = self.texts(words)
        word_texts = torch.cat([texts[: num_parts + num_objects], background])
        class_texts = torch.cat([texts[num_parts + num_objects :], background])

        # 2. Photo: vectors of the patches [B, D, g, g] and their guidance.
        photo, guidance = features or self.features(inputs)

        # 3. First stage: parts, objects and background compete in one volume.
        first = self.aggregator.aggregate(photo.vectors, word_texts, guidance)

        # 4. Second stage: every object-part composed of its part and its object; background of itself.
        part_rows, object_rows = self.pair_rows(words.class_to_part, words.class_to_object, num_parts, num_objects)
        second = self.aggregator.aggregate_pairs(
            first.embedding, part_rows, object_rows, class_texts, guidance, photo.affinity
        )
        return first, second, guidance

    @staticmethod
    def pair_rows(
        class_to_part: Tensor, class_to_object: Tensor, num_parts: int, num_objects: int
    ) -> tuple[Tensor, Tensor]:
        """Return the rows of the first volume that each class and the background are made of, int64 `[N_c + 1]` each.

        `class_to_part` and `class_to_object` are int64 `[N_c]`.
        """
        last = torch.full_like(class_to_part[:1], num_parts + num_objects)
        return torch.cat([class_to_part, last]), torch.cat([class_to_object + num_parts, last])

    def word_prompts(self, part_words: Sequence[str]) -> list[str]:
        """Put every part word into every template: `W · P` strings."""
        return self.templated(part_words)

    def part_word_logits(self, inputs: Mapping[str, Tensor], embeddings: Tensor) -> Tensor:
        """Compute logits `[B, W + 1, 4g, 4g]` of part words and background, from the first stage without objects."""
        texts = embeddings.to(self.dtype).unflatten(0, (-1, len(self.config.templates)))
        photo, guidance = self.features(inputs)
        texts = torch.cat([texts, self.background_texts(texts.shape[1])])
        volume = self.aggregator.aggregate(photo.vectors, texts, guidance)
        return self.aggregator.decode(volume.embedding, guidance)

    def word_logits(self, inputs: Mapping[str, Tensor], embeddings: Tensor) -> Tensor:
        """Compute logits `[B, W, 4g, 4g]` of W words by the first stage; `embeddings` are those of `word_prompts`."""
        return self.part_word_logits(inputs, embeddings)[:, :-1]

    @classmethod
    def word_teacher(cls, name: str) -> Any:
        """Load a CLIPSeg, whose maps of words can be kept; None for a start of another type, such as CLIP alone."""
        from partclipseg.models.registry import family

        return family("clipseg").word_teacher(name)

    def class_volume(
        self, inputs: Mapping[str, Tensor], words: Words, features: Features | None = None
    ) -> tuple[Volume, AppearanceGuidance]:
        _, second, guidance = self.volumes(inputs, words, features)
        return second, guidance

    def build_loss(self, settings: CATSegSettings | None = None, compiled: bool = False) -> Any:
        """Build the published loss; see `PartCATSegLoss`."""
        from partclipseg.models.partcatseg.loss import PartCATSegLoss

        return PartCATSegLoss(self.config, settings and settings.loss, compiled)
