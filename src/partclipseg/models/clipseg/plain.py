"""CLIPSeg as it is published, without training: a map for each prompt, and a threshold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file, write_text
from partclipseg.maps.label_maps import BACKGROUND, Contest, LabelMaps
from partclipseg.maps.upsample import upload
from partclipseg.models.clipseg.config import PlainCLIPSegConfig
from partclipseg.models.clipseg.settings import PlainCLIPSegSettings
from partclipseg.models.clipseg_config import CLIPSegTowersConfig
from partclipseg.models.clipseg_decoder import ConditionDecoder
from partclipseg.models.clipseg_rows import DecodedPhotos, named_rows, slices
from partclipseg.models.clipseg_towers import CLIPSegTowers
from partclipseg.models.hub import PROCESSOR
from partclipseg.models.interface import Inputs, PartOutput, WordMaps, Words
from partclipseg.models.names import find_file, is_local
from partclipseg.models.prompting import Prompting
from partclipseg.models.reading import read_json_table
from partclipseg.models.settings import MethodSettings
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.models.onnx import OnnxGraph

_PROCESSOR_FILES = (PROCESSOR, "processor_config.json")

Decode = Callable[[np.ndarray, np.ndarray], Tensor]
"""Logits `[k, h, w]` of rows (photo, condition), int64 `[k]` each; conditions are object-parts, then objects."""


class PlainCLIPSeg(CLIPSegTowers):
    """transformers' CLIPSeg: no adapter, no background word, nothing composed.

    A pixel is background where no class and no object reaches the threshold. The family is not registered with
    transformers, whose own classes stand for ``clipseg`` there.
    """

    config_class = PlainCLIPSegConfig
    settings_class = PlainCLIPSegSettings
    takes_prompting = True

    def __init__(self, config: CLIPSegTowersConfig) -> None:
        super().__init__(config)
        self.visual_adapter = nn.Identity()
        del self.background  # what the shared code appends to the words is an empty list here
        self.register_buffer("background", torch.empty(0, config.projection_dim), persistent=False)
        self.decoder = ConditionDecoder(config)
        self.prompting = Prompting()
        self.post_init()

    @property
    def title(self) -> str:
        """Name of the model and of its prompting, in a line for people."""
        return f"CLIPSeg without training: {self.prompting}"

    @property
    def min_part_probability(self) -> float:
        """0: the threshold has decided already which parts count."""
        return 0.0

    def ask(self, prompting: Prompting) -> None:
        """Change prompts, threshold and object gate."""
        self.prompting = prompting

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """Return the object-parts in each template, then with the gate the bare object words."""
        fill = self.prompting.fill
        asked = [
            fill(template, pair.object, pair.part)
            for template in self.prompting.prompts
            for pair in vocabulary.object_parts
        ]
        return [*asked, *vocabulary.objects] if self.prompting.object_gate else asked

    def forward(self, inputs: Inputs, words: Words, attention_pairs: Tensor | None = None) -> PartOutput:
        """Compute logits of every object-part and, with the gate, object; that of background is the threshold's.

        Raises `TypeError` for `attention_pairs`: CLIPSeg has no attention of objects.
        """
        self._refuse_attention(attention_pairs)
        count = len(words.vocabulary)
        logits = self.word_logits(inputs, self._conditions(words))  # [B, N_c + N_o, h, w]
        share = min(max(self.prompting.threshold, 1e-6), 1 - 1e-6)
        background = torch.full_like(logits[:, :1], math.log(share / (1 - share)))
        return PartOutput(
            object_part_logits=torch.cat([logits[:, :count], background], dim=1),
            object_logits=torch.cat([logits[:, count:], background], dim=1) if self.prompting.object_gate else None,
        )

    def _conditions(self, words: Words) -> Tensor:
        """Average the embeddings over the templates: `[N_c, D]`, or with the gate `[N_c + N_o, D]`."""
        templates, count = len(self.prompting.prompts), len(words.vocabulary)
        pairs = words.embeddings[: templates * count].unflatten(0, (templates, count)).mean(0)
        return torch.cat([pairs, words.embeddings[templates * count :]])

    # -- predictions ------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def label_maps(
        self,
        inputs: Inputs,
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute label maps as `PartModel.label_maps`; only classes of objects that win or are named are decoded.

        In Pred-All `object_map` has an object also where its word, but none of its parts, reaches the threshold.
        """
        photos = DecodedPhotos(self, inputs["pixel_values"], self._conditions(words), sizes)

        def decode(rows: np.ndarray, conditions: np.ndarray) -> Tensor:
            return self.decoder.logits(photos.decode(rows, conditions)[None], photos.grid)[0]

        return self._maps(decode, photos.rows_at_once, words, sizes, present_objects, with_background)

    def word_maps(self, inputs: Inputs, embeddings: Tensor, sizes: Sequence[tuple[int, int]]) -> list[WordMaps]:
        """Find the most probable part word at every pixel as `PartModel.word_maps`; none below the threshold."""
        return [
            WordMaps(words.masked_fill(scores < self.prompting.threshold, BACKGROUND), scores)
            for words, scores in super().word_maps(inputs, embeddings, sizes)
        ]

    @torch.inference_mode()
    def maps_of(
        self,
        output: PartOutput,
        inputs: Inputs,
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute the label maps of `label_maps` from an output of `forward`."""
        assert output.object_part_logits is not None
        groups = [output.object_part_logits, output.object_logits]
        logits = torch.cat([group[:, :-1] for group in groups if group is not None], dim=1)

        def decode(rows: np.ndarray, conditions: np.ndarray) -> Tensor:
            return logits[upload(rows, logits.device), upload(conditions, logits.device)]

        return self._maps(decode, logits.shape[1], words, sizes, present_objects, with_background)

    def _maps(
        self,
        decode: Decode,
        rows_at_once: int,
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None,
        with_background: bool,
    ) -> list[LabelMaps]:
        owners, count = words.vocabulary.class_to_object, len(words.vocabulary.objects)
        device, to_object = words.embeddings.device, words.class_to_object
        shape = (len(sizes), count)
        named = np.ones(shape, bool) if present_objects is None else named_rows(present_objects, count)
        oracle = present_objects is not None and not with_background
        gate = Contest(sizes, device) if self.prompting.object_gate and not oracle else None
        if gate is not None:
            photos, objects = np.nonzero(named)
            for some in slices(len(objects), rows_at_once):
                logits = decode(photos[some], len(owners) + objects[some])
                gate.add(photos[some], logits, upload(objects[some], device))
            named &= gate.winners(count).cpu().numpy()
        contest = Contest(sizes, device, gate)
        photos, classes = np.nonzero(named[:, owners])
        for some in slices(len(classes), rows_at_once):
            labels = upload(classes[some], device)
            contest.add(
                photos[some], decode(photos[some], classes[some]), labels, None if gate is None else to_object[labels]
            )
        found = contest.maps(to_object)
        if oracle:
            return found
        gates = found if gate is None else gate.maps(torch.arange(count, device=device))
        return [self._above_threshold(*pair) for pair in zip(found, gates, strict=True)]

    def _above_threshold(self, found: LabelMaps, gate: LabelMaps) -> LabelMaps:
        """Keep what reaches the threshold: parts by their own probability, objects by that or by their word's."""
        likely = torch.maximum(found.scores, gate.scores)
        is_part = (found.scores >= self.prompting.threshold) & (found.label_map != BACKGROUND)
        is_object = likely >= self.prompting.threshold
        objects = gate.object_map.masked_fill(~is_object, BACKGROUND)
        scores = torch.where(is_part, found.scores, torch.where(objects == BACKGROUND, 1 - likely, likely))
        return LabelMaps(found.label_map.masked_fill(~is_part, BACKGROUND), objects, scores)

    # -- files ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a CLIPSeg directory or hub name; size and normalisation of photos are those of its processor.

        Raises `PartCLIPSegError` where neither a directory nor the hub has the name.
        """
        for key, value in _processor_values(pretrained_model_name_or_path).items():
            kwargs.setdefault(key, value)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write a plain CLIPSeg, which transformers reads too, and its processor's size and normalisation."""
        from partclipseg.models.clipseg_weights import to_clipseg

        to_clipseg(self).save_pretrained(save_directory, **kwargs)
        write_processor(Path(save_directory), self.config)

    def onnx_graphs(self) -> dict[str, OnnxGraph]:
        """Return photo encoder, text encoder and decoder, for the present prompts and gate."""
        from partclipseg.models.clipseg.onnx import plain_graphs

        return plain_graphs(self)

    # -- training ---------------------------------------------------------------------------------------------

    @classmethod
    def from_start(cls, name: str, settings: MethodSettings) -> Any:
        """Raise `PartCLIPSegError`: another method is trained from these weights."""
        raise PartCLIPSegError(
            "a plain CLIPSeg is not trained as it is: choose the method partclipseg or clipseg-baseline, which start "
            "from it"
        )

    def trained_parameters(self, settings: MethodSettings) -> list[nn.Parameter]:
        """Raise as `from_start`."""
        return self.from_start("", settings)


def write_processor(directory: Path, config: CLIPSegTowersConfig) -> None:
    """Write the ``preprocessor_config.json`` that goes with a configuration."""
    height, width = config.image_shape
    content = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # Pillow's bilinear filter
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
    }
    write_text(directory / PROCESSOR, json.dumps(content, indent=1) + "\n")


def _processor_values(name: Any) -> dict[str, Any]:
    """Return size, mean and deviation that the processor's file gives; nothing where there is no such file.

    The configuration checks them. Raises `PartCLIPSegError` for a damaged file.
    """
    content = next(filter(None, (_read_processor(name, file) for file in _PROCESSOR_FILES)), {})
    nested = content.get("image_processor")
    values: Mapping[str, Any] = nested if isinstance(nested, Mapping) else content
    found: dict[str, Any] = {}
    size = values.get("size")
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        size = edge if edge is not None else [size.get("height"), size.get("width")]
    if size is not None:
        found["image_size"] = size
    if values.get("do_normalize") is False:
        return {**found, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    return found | {key: values[key] for key in ("image_mean", "image_std") if values.get(key) is not None}


def _read_processor(name: Any, file: str) -> dict[str, Any]:
    if is_local(name):
        path = Path(name) / file
        return read_json_table(path) if is_file(path) else {}
    try:
        return read_json_table(find_file(name, file))
    except PartCLIPSegError:  # the hub has no such file; what else is wrong with the name, the weights will say
        return {}
