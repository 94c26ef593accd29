"""ZSSeg+: mask proposals for one object, classified by stage 1's words and by CLIP on the regions they make.

Letters in shapes: B photos, K object-parts, Q queries, C side of the square canvas, h x w a resized photo in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.clip_towers import CLIPTowers
from partclipseg.models.interface import Words, register
from partclipseg.models.parameter_groups import groups_with_slow_tower, trained
from partclipseg.models.tokens import add_token_embeddings, add_words, is_word_level
from partclipseg.models.zsseg.config import ZSSegConfig
from partclipseg.models.zsseg.maps import best_maps, final_scores
from partclipseg.models.zsseg.outputs import ZSSegOutput, ZSSegTrainingOutput
from partclipseg.models.zsseg.photos import first_size, masks_on_canvases, photos_on_canvases
from partclipseg.models.zsseg.prompts import ComposedPrompts
from partclipseg.models.zsseg.proposals import Proposals
from partclipseg.models.zsseg.regions import class_scores, crop_features, crop_grid, region_logits
from partclipseg.models.zsseg.settings import ZSSegSettings
from partclipseg.vocabulary import Vocabulary

_LEAST = 0.02
"""Least probability that the logits of `forward` tell apart."""


@register
class ZSSegModel(CLIPTowers):
    """Two-stage baseline of OV-PARTS: MaskFormer conditioned on an object, then CLIP (Wei et al., NeurIPS 2023).

    It is made for photos whose object is known by its mask: give it with `with_object_masks`. Without, the whole photo
    counts as the object, for which it was not trained. CLIP is frozen; stage 1 and the prompts are trained.
    """

    config_class = ZSSegConfig
    settings_class = ZSSegSettings
    takes_object_masks = True
    colour_fields = ("image_mean", "image_std", "clip_mean", "clip_std")
    _no_split_modules: ClassVar = ["CLIPEncoderLayer", "MaskFormerDetrDecoderLayer"]

    config: ZSSegConfig

    def __init__(self, config: ZSSegConfig) -> None:
        super().__init__(config)
        self.proposals = Proposals(config)
        self.composed = ComposedPrompts(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.BatchNorm2d):
            statistics: Any = module
            for values in (statistics.weight, statistics.running_var):
                init.ones_(values)
            for values in (statistics.bias, statistics.running_mean, statistics.num_batches_tracked):
                init.zeros_(values)
        elif isinstance(module, ComposedPrompts):
            init.normal_(module.prefix, std=0.02)
            init.normal_(module.connection, std=0.02)
            init.zeros_(module.fuse_weight)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1.0)

    # -- words ------------------------------------------------------------------------------------------------

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """Write each object-part as ``dog , ear``: a comma, which no word holds, stands between object and part."""
        return [f"{pair.object} , {pair.part}" for pair in vocabulary.object_parts]

    def take_tokenizer(self, tokenizer: Any) -> None:
        """Note the tokens of comma and full stop; a tokenizer of whole words that lacks them is given them."""
        if is_word_level(tokenizer):
            signs = [sign for sign in (",", ".") if sign not in tokenizer.get_vocab()]
            add_words(tokenizer, signs)
            if signs:
                add_token_embeddings(self.clip.text_model, self.config.text_config, len(signs))
                self.renew_stamp()
        comma, dot = (int(tokenizer(sign)["input_ids"][1]) for sign in (",", "."))  # the first is the start
        self.config.separator_id = self.composed.separator_id = comma
        self.config.dot_id = self.composed.dot_id = dot

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute unit vectors `[K, D]` of the composed prompts of int64 ids `[K, L]`."""
        return self.composed(self.clip, input_ids)

    @property
    def longest_prompt(self) -> int:
        """Number of tokens that leaves room for the learnt vectors."""
        return self.config.text_config.max_position_embeddings - self.composed.added

    # -- photos -----------------------------------------------------------------------------------------------

    @property
    def ahead_shape(self) -> None:
        """Photos come to `prepare` at their own size, whose aspect ratio it keeps."""
        return None

    def first_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Return the size of a photo of height and width `size` at `config.shortest_edge`."""
        return first_size(size, self.config)

    def prepare(self, photos: Sequence[np.ndarray] | Tensor) -> dict[str, Tensor]:
        """Put photos on square canvases, on the model's device; see `photos.photos_on_canvases`."""
        return photos_on_canvases(self.config, photos, self.device)

    def with_object_masks(self, inputs: Mapping[str, Tensor], masks: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """Add the masks of the photos' objects to their inputs; see `photos.masks_on_canvases`."""
        return {**inputs, "object_masks": masks_on_canvases(self.config, masks, inputs["photo_sizes"], self.device)}

    # -- the method -------------------------------------------------------------------------------------------

    def forward(
        self, inputs: Mapping[str, Tensor], words: Words, attention_pairs: Tensor | None = None
    ) -> ZSSegOutput | ZSSegTrainingOutput:
        """Run both stages on photo after photo, and make logits `[B, K + 1, C/4, C/4]` with each photo on the square.

        The label maps are made from what the stages found, not from these logits, which are for pictures. In training
        mode the photos, squares of the canvas's size, go through stage 1 together: see `training_output`.
        """
        self._refuse_attention(attention_pairs)
        if self.training:
            return self.training_output(inputs, words)
        found = self.stages(inputs, words)
        logits = []
        for index, size in enumerate(inputs["photo_sizes"].tolist()):
            everything = torch.arange(len(words.class_to_object), device=self.device)
            masks, classes, regions = found.photo(index)
            first = class_scores(masks, classes, tuple(size))
            scores = torch.cat([final_scores(first, regions, everything, everything), first[-1:]])[None]
            square = F.interpolate(scores, self._logits_shape, mode="bilinear", align_corners=False)
            logits.append(torch.logit(square.clamp(_LEAST, 1 - _LEAST)))
        found.object_part_logits = torch.cat(logits).to(self.dtype)
        return found

    def training_output(self, inputs: Mapping[str, Tensor], words: Words) -> ZSSegTrainingOutput:
        """Run stage 1 on all photos, and CLIP on a crop around each object; nothing waits for the device.

        Stage 1 sees the words as they are, without a gradient: the prompts learn from regions of true parts alone.
        """
        photos = inputs["pixel_values"]  # [B, 3, C, C]
        if "object_masks" in inputs:
            inside = inputs["object_masks"]
        else:
            inside = torch.ones(len(photos), *photos.shape[2:], dtype=torch.bool, device=self.device)
        texts = words.embeddings
        with_background = torch.cat([texts.detach().float(), F.normalize(self.background.float(), dim=-1)])
        mean, std, clip_mean, clip_std = self.colours()
        pixels = ((photos - mean) / std).to(self.dtype)
        masks, classes = self.proposals(pixels, inside[:, None], with_background, every_layer=True)
        most = int(np.bincount(words.vocabulary.class_to_object).max())
        output = ZSSegTrainingOutput(mask_logits=masks, class_logits=classes, most_parts=most)
        if self.composed.prefix.requires_grad:
            with torch.no_grad():
                output.crops = crop_grid(inside, self.config.crop_scale, self.config.crop_size)
                cropped = F.grid_sample(photos, output.crops, padding_mode="border", align_corners=False)
                output.patches = crop_features(self.clip, cropped, clip_mean, clip_std)
            output.texts, output.object_masks, output.fuse_weight = texts, inside, self.composed.fuse_weight
        return output

    def stages(self, inputs: Mapping[str, Tensor], words: Words) -> ZSSegOutput:
        """Run stage 1 and stage 2; of `inputs`, `object_masks` are the objects, else each photo as a whole."""
        config = self.config
        texts = words.embeddings.float()
        with_background = torch.cat([texts, F.normalize(self.background.float(), dim=-1)])  # [K + 1, D]
        mean, std, *_ = self.colours()
        results: list[tuple[Tensor, Tensor, Tensor]] = []
        for index, (height, width) in enumerate(inputs["photo_sizes"].tolist()):
            image = inputs["pixel_values"][index, :, :height, :width]
            inside = self._inside(inputs, index, (height, width))
            padding = (0, -width % config.size_divisibility, 0, -height % config.size_divisibility)
            pixels = F.pad((image - mean) / std, padding)[None].to(self.dtype)
            padded = F.pad(inside, padding)[None, None]
            masks, classes = (logits[0, 0] for logits in self.proposals(pixels, padded, with_background))
            labels = class_scores(masks, classes, (height, width))[:-1].argmax(0)
            weight = self.composed.fuse_weight
            results.append((masks, classes, region_logits(config, self.clip, weight, image, inside, labels, texts)))
        masks, classes, regions = zip(*results, strict=True)
        return ZSSegOutput(mask_logits=masks, class_logits=classes, region_logits=regions)

    def _inside(self, inputs: Mapping[str, Tensor], index: int, size: Sequence[int]) -> Tensor:
        """Return the object of a photo, bool `[h, w]`; one without a pixel counts as the whole photo."""
        whole = torch.ones(size[0], size[1], dtype=torch.bool, device=self.device)
        if "object_masks" not in inputs:
            return whole
        mask = inputs["object_masks"][index, : size[0], : size[1]].bool()
        return mask if mask.any() else whole

    # -- label maps -------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def label_maps(
        self,
        inputs: Mapping[str, Tensor],
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Label B photos by the greatest score at their own size; arguments as in `PartModel.label_maps`.

        Without `present_objects`, or with background, the background of stage 1 competes as it is.
        """
        return self.maps_of(self.stages(inputs, words), inputs, words, sizes, present_objects, with_background)

    def maps_of(
        self,
        output: Any,
        inputs: Mapping[str, Tensor],
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Label B photos as `label_maps` does, from an output at hand."""
        return best_maps(self.config, output, inputs, words, sizes, present_objects, with_background)

    # -- what it says of itself -------------------------------------------------------------------------------

    @property
    def _logits_shape(self) -> tuple[int, int]:
        return self.config.canvas // 4, self.config.canvas // 4

    @torch.no_grad()
    def logits_size(self, inputs: Mapping[str, Tensor], words: Words) -> tuple[int, int]:
        """Return height and width of the logits."""
        return self._logits_shape

    @property
    def min_part_probability(self) -> float:
        """Minimum probability of a part: 0, since scores are means of two probabilities and background is a class."""
        return 0.0

    def repeated_layers(self) -> list[nn.Module]:
        """List the layers that repeat, for compilation one by one."""
        return [*list(self.clip.vision_model.encoder.layers)[:-1], *self.proposals.transformer.decoder.layers]

    # -- training ---------------------------------------------------------------------------------------------

    @classmethod
    def check_settings(cls, settings: ZSSegSettings) -> None:
        """Raise `PartCLIPSegError` for repairs that cannot be, and for weights of stage 1 that are not there."""
        from partclipseg.models.zsseg.start import check_mask_settings

        check_mask_settings(settings)

    @classmethod
    def from_start(cls, name: str, settings: ZSSegSettings) -> ZSSegModel:
        """Build the model that training starts from, in float32 on the CPU; see `start.start_zsseg`."""
        from partclipseg.models.zsseg.start import start_zsseg

        return start_zsseg(name, settings)

    def trained_parameters(self, settings: ZSSegSettings | None = None) -> list[nn.Parameter]:
        """Freeze CLIP, batch norms and prompts without a loss; return the rest in the model's order."""
        settings = settings or ZSSegSettings()
        self.requires_grad_(True)
        self.clip.requires_grad_(False)
        self.composed.requires_grad_(settings.loss.prompt_weight > 0)
        self.proposals.freeze_batch_norms()
        return trained(self)

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Group the trained parameters for AdamW as published: norms and embeddings without decay.

        The backbone learns at a tenth of the rate, as published, where it starts from weights: with batch norms.
        """
        pretrained = self.config.backbone_norm == "batch"
        backbone = list(self.proposals.pixel_level.encoder.parameters()) if pretrained else []
        return groups_with_slow_tower(self, backbone, 10, learning_rate, weight_decay)

    def build_loss(self, settings: ZSSegSettings | None = None, compiled: bool = False) -> Any:
        """Build the published loss; see `ZSSegLoss`. `compiled` changes nothing: the loss has no maps of all words."""
        from partclipseg.models.zsseg.loss import ZSSegLoss

        patch = int(self.config.vision_config.patch_size)
        return ZSSegLoss((settings or ZSSegSettings()).loss, self.config.num_queries, patch)
