"""PartCLIPSeg: a photo and words in, logits of generalized parts, objects and object-parts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.clipseg_towers import CLIPSegTowers
from partclipseg.models.directory import read_config
from partclipseg.models.interface import Inputs, PartOutput, Words, register
from partclipseg.models.parameter_groups import trained
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.decoder import PartDecoder
from partclipseg.models.partclipseg.lookup import own_words, trained_words
from partclipseg.models.partclipseg.loss import PartLoss
from partclipseg.models.partclipseg.settings import PartCLIPSegSettings
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.models.onnx import OnnxGraph


@register
class PartCLIPSegModel(CLIPSegTowers):
    """Object-parts composed of generalized parts and objects (Choi et al., NeurIPS 2024).

    Conditions are ordered part words, object words, background: `N = N_p + N_o + 1`.
    """

    config_class = PartCLIPSegConfig
    settings_class = PartCLIPSegSettings
    has_attention = True

    config: PartCLIPSegConfig
    decoder: PartDecoder

    def __init__(self, config: PartCLIPSegConfig) -> None:
        super().__init__(config)
        self.decoder = PartDecoder(config)
        self.post_init()

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """Return the bare words, parts first, then objects: `N_p + N_o` strings.

        In reference mode the words that stand for the objects of a user's own list follow, `N_o` more.
        """
        trained = self.config.object_words if self.config.reference_object_lookup else None
        return [*vocabulary.parts, *vocabulary.objects, *own_words(vocabulary, trained)]

    def forward(self, inputs: Inputs, words: Words, attention_pairs: Tensor | None = None) -> PartOutput:
        """Compute logits of every part, object and object-part; arguments as in `PartModel.forward`."""
        # 1. Words: [N, D], background last.
        num_parts = len(words.vocabulary.parts)
        num_words = num_parts + len(words.vocabulary.objects)
        conditions = torch.cat([words.embeddings[:num_words].to(self.dtype), self.background])
        class_words = with_object_words(conditions, words)

        # 2. Photo: three activations [B, T, V].
        pixel_values = inputs["pixel_values"]
        grid = self.grid(pixel_values)
        activations = self.encode_photo(pixel_values)

        # 3. One decoder pass for each condition: features [B, N, g·g', C].
        part_rows, object_rows, object_word_rows = self.class_rows(
            words.class_to_part, words.class_to_object, num_parts, len(conditions), len(class_words) > len(conditions)
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
            features, class_words, part_rows, object_rows, object_word_rows, grid
        )

        # 6. Attention of the asked pairs: mean of the part's and the object's.
        if attention is not None:
            attention = attention.unflatten(0, (2, -1)).mean(0)  # [2P, T, T] -> [P, T, T]
        return PartOutput(
            object_part_logits=class_logits,
            object_logits=word_logits[:, num_parts:],
            part_logits=word_logits[:, :num_parts],
            attention=attention,
        )

    def class_rows(
        self,
        class_to_part: Tensor,
        class_to_object: Tensor,
        num_parts: int,
        num_conditions: int,
        with_object_words: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the conditions of every class, three times int64 `[N_c + 1]`, background last.

        They are the part, the object, and the one whose word stands for the object; background pairs with itself. The
        last ones are rows behind the conditions if these are followed by a word for each object.
        """
        background = class_to_part.new_full((1,), num_conditions - 1)
        part_rows = torch.cat([class_to_part, background])
        object_rows = torch.cat([class_to_object + num_parts, background])
        if not self.config.reference_object_lookup:
            return part_rows, object_rows, object_rows
        if with_object_words:
            return part_rows, object_rows, torch.cat([class_to_object + num_conditions, background])
        # The offset of the part words is missing: reference defect D1.
        return part_rows, object_rows, torch.cat([class_to_object, background])

    @torch.inference_mode()
    def label_maps(
        self,
        inputs: Inputs,
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute label maps as `PartModel.label_maps`; classes that cannot win are not decoded, see `pruned`."""
        from partclipseg.models.partclipseg.pruned import pruned_maps

        return pruned_maps(self, inputs["pixel_values"], words, sizes, present_objects, with_background)

    # -- training ---------------------------------------------------------------------------------------------

    @classmethod
    def from_start(cls, name: str, settings: PartCLIPSegSettings) -> PartCLIPSegModel:
        """Load the start; a new model's classes begin as the settings say, those of a trained one stay."""
        model: PartCLIPSegModel = cls.from_pretrained(name, dtype=torch.float32)
        model.config.reference_object_lookup = settings.reference_object_lookup
        if read_config(name).get("model_type") == "clipseg":
            if settings.merges == "random":
                model.decoder.randomise_merges()
            if settings.class_film == "identity":
                model.decoder.reset_class_film()
        return model

    def trained_on(self, vocabulary: Vocabulary) -> None:
        """Note the words that the reference's lookup reads for the trained objects; nothing in the intended method."""
        self.config.object_words = trained_words(vocabulary) if self.config.reference_object_lookup else None

    def trained_parameters(self, settings: PartCLIPSegSettings) -> list[nn.Parameter]:
        """Freeze all but what the paper trains, and the background word unless set to train; return the rest."""
        self.train_published_parameters(background=settings.train_background)
        return trained(self)

    def build_loss(self, settings: PartCLIPSegSettings, compiled: bool = False) -> Any:
        """Build the loss of the paper; see `PartLoss`."""
        return PartLoss(settings.loss, compiled)

    # -- export -----------------------------------------------------------------------------------------------

    def onnx_graphs(self) -> dict[str, OnnxGraph]:
        """Return photo encoder, text encoder and decoder."""
        from partclipseg.models.partclipseg.onnx import part_graphs

        return part_graphs(self)


def with_object_words(conditions: Tensor, words: Words) -> Tensor:
    """Append to the conditions `[N, D]` the words that stand for objects, if there are any: `[N + N_o, D]`."""
    num_words = len(words.vocabulary.parts) + len(words.vocabulary.objects)
    if len(words.embeddings) == num_words:
        return conditions
    return torch.cat([conditions, words.embeddings[num_words:].to(conditions.dtype)])


def _condition_rows(
    pairs: Tensor, part_rows: Tensor, object_rows: Tensor, num_parts: int, num_conditions: int
) -> Tensor:
    """Return rows of the flattened `B·N` conditions that the pairs need: each pair's part, then its object, `[2P]`.

    An object's pair names its row twice, and so do pairs of one object; to find that out would wait for the device.
    """
    photo, index = pairs.unbind(1)  # [P]
    objects = torch.arange(num_parts, num_conditions - 1, device=pairs.device)  # [N_o]
    rows = torch.stack([torch.cat([part_rows, objects])[index], torch.cat([object_rows, objects])[index]])  # [2, P]
    return (rows + photo * num_conditions).flatten()
