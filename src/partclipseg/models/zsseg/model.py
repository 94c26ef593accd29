"""ZSSeg+: mask proposals for one object, classified by stage 1's words and by CLIP on the regions they make.

Letters in shapes: B photos, K object-parts, Q queries, C side of the square canvas, h x w a resized photo in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from partclipseg.data.augment import resize_photo
from partclipseg.maps.label_maps import BACKGROUND, LabelMaps, no_object
from partclipseg.models.clip_towers import CLIPTowers, admitted
from partclipseg.models.interface import PartOutput, Words, register
from partclipseg.models.parameter_groups import groups_with_slow_tower, trained
from partclipseg.models.photo_size import size_at_shortest_edge
from partclipseg.models.tokens import add_token_embeddings, add_words, is_word_level
from partclipseg.models.zsseg.config import ZSSegConfig
from partclipseg.models.zsseg.prompts import ComposedPrompts
from partclipseg.models.zsseg.proposals import Proposals
from partclipseg.models.zsseg.regions import class_scores, crop_features, crop_grid, region_logits
from partclipseg.models.zsseg.settings import ZSSegSettings
from partclipseg.vocabulary import Vocabulary

CLASSES_AT_ONCE = 16
"""Number of classes that are enlarged to the photo's size together, to save memory."""

_LEAST = 0.02
"""Least probability that the logits of `forward` tell apart."""


@dataclass
class ZSSegOutput(PartOutput):
    """Results of both stages, from which label maps are made at full size; an entry for each photo."""

    mask_logits: tuple[Tensor, ...] | None = None
    """float32 `[Q, H/4, W/4]` each, of the padded photo."""
    class_logits: tuple[Tensor, ...] | None = None
    """float32 `[Q, K + 1]` each, background last."""
    region_logits: tuple[Tensor, ...] | None = None
    """float32 `[K, K]` each; see `regions.region_logits`."""


@dataclass
class ZSSegTrainingOutput(PartOutput):
    """Tensors of a training step, from which `loss.ZSSegLoss` is computed."""

    mask_logits: Tensor | None = None
    """float32 `[L, B, Q, C/4, C/4]` of every decoder layer."""
    class_logits: Tensor | None = None
    """float32 `[L, B, Q, K + 1]`, background last."""
    most_parts: int | None = None
    """Greatest number of parts of an object in the vocabulary."""
    texts: Tensor | None = None
    """Unit vectors `[K, D]` of the prompts, and with the next three fields only where the prompts are trained."""
    patches: Tensor | None = None
    """Unit vectors `[B, D, g·g]` of the patches of a crop around each object."""
    crops: Tensor | None = None
    """float32 `[B, s, s, 2]`: the grid that samples the crops."""
    object_masks: Tensor | None = None
    """bool `[B, C, C]`."""
    fuse_weight: Tensor | None = None
    """Weight of a region's features beside its object's, a scalar."""


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

    def prepare(self, photos: Sequence[np.ndarray] | Tensor) -> dict[str, Tensor]:
        """Put photos on square canvases, on the model's device.

        Args:
            photos: uint8 `[H, W, 3]` RGB of any sizes, which are resized to `config.shortest_edge`; or a tensor
                `[B, 3, h, w]`, uint8 or float in 0..1, of at most the canvas's size, taken as it is.

        Returns `pixel_values` float32 `[B, 3, C, C]` in 0..255, and `photo_sizes` int64 `[B, 2]`.
        """
        canvas = torch.zeros(len(photos), 3, *self.config.image_shape, device=self.device)
        if isinstance(photos, Tensor):
            values = photos.to(self.device, non_blocking=True)
            canvas[:, :, : values.shape[2], : values.shape[3]] = values * 255 if values.is_floating_point() else values
            sizes = [tuple(values.shape[2:])] * len(values)
        else:
            edges = self.config.shortest_edge, self.config.longest_edge
            sizes = [size_at_shortest_edge(photo.shape[:2], *edges) for photo in photos]
            for place, photo, (height, width) in zip(canvas, photos, sizes, strict=True):
                resized = torch.from_numpy(np.array(resize_photo(photo, (height, width))))
                place[:, :height, :width] = resized.to(self.device).permute(2, 0, 1)
        shapes = torch.tensor(sizes, dtype=torch.int64).view(-1, 2)
        return {"pixel_values": canvas, "photo_sizes": shapes.to(self.device, non_blocking=True)}

    def with_object_masks(self, inputs: Mapping[str, Tensor], masks: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """Add the masks of the photos' objects to their inputs.

        Args:
            inputs: what `prepare` made of the photos.
            masks: bool `[H, W]` each at the photo's own size; or a tensor `[B, C, C]`, which is taken as it is.
        """
        if isinstance(masks, Tensor) and masks.shape[1:] == self.config.image_shape:
            return {**inputs, "object_masks": masks.to(self.device)}
        canvas = torch.zeros(len(masks), *self.config.image_shape, dtype=torch.bool, device=self.device)
        for place, mask, size in zip(canvas, masks, inputs["photo_sizes"].tolist(), strict=True):
            resized = F.interpolate(mask[None, None].to(self.device, torch.float32), size, mode="nearest")[0, 0] > 0.5
            place[: size[0], : size[1]] = resized
        return {**inputs, "object_masks": canvas}

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
            masks, classes, regions = self._of(found, index)
            first = class_scores(masks, classes, tuple(size))
            scores = torch.cat([self._scores(first, regions, everything, everything), first[-1:]])[None]
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

    @staticmethod
    def _of(found: ZSSegOutput, index: int) -> tuple[Tensor, Tensor, Tensor]:
        fields: Any = (found.mask_logits, found.class_logits, found.region_logits)
        masks, classes, regions = (values[index] for values in fields)
        return masks, classes, regions

    @staticmethod
    def _scores(first: Tensor, regions: Tensor, rivals: Tensor, chosen: Tensor) -> Tensor:
        """Return the final scores `[n, h, w]` of the `chosen` classes, from those of stage 1, `[K + 1, h, w]`.

        They are the geometric mean of both stages'. Stage 2's are probabilities among the `rivals`, int64 `[m]`, of the
        word that wins stage 1 at each pixel, and 0 where that word wins nowhere on the object.
        """
        labels = first[:-1].argmax(0)  # [h, w]
        second = regions[:, rivals].softmax(-1)[:, torch.isin(rivals, chosen)]  # [K, n]
        second = second * regions.any(1, keepdim=True)
        return (first[chosen] * second.T[:, labels]).sqrt()

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
        maps = []
        owners = F.pad(words.class_to_object, (0, 1), value=BACKGROUND)  # label -1 reads the last entry
        for index, size in enumerate(sizes):
            present = None if present_objects is None else present_objects[index]
            rivals = self._rivals(words, present)
            if not len(rivals):
                maps.append(no_object(size, self.device))
                continue
            height, width = inputs["photo_sizes"][index].tolist()
            masks, classes, regions = self._of(output, index)
            first = class_scores(masks, classes, (height, width))
            best, labels = torch.full(size, -1.0, device=self.device), torch.full(size, BACKGROUND, device=self.device)
            for chosen in rivals.split(CLASSES_AT_ONCE):
                value, winner = _enlarged(self._scores(first, regions, rivals, chosen), size).max(0)
                labels = torch.where(value > best, chosen[winner], labels)
                best = torch.maximum(best, value)
            if present is None or with_background:
                none = _enlarged(first[-1:], size)[0]
                labels, best = labels.masked_fill(none > best, BACKGROUND), torch.maximum(none, best)
            maps.append(LabelMaps(labels, owners[labels], best.clamp(0, 1)))
        return maps

    def _rivals(self, words: Words, present: Sequence[int] | None) -> Tensor:
        """Return the classes that compete, int64 `[m]`: all, or those of the objects that are present."""
        owners = words.class_to_object
        if present is None:
            return torch.arange(len(owners), device=owners.device)
        return owners.new_tensor(admitted(self.config, words.vocabulary, present))

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
    def check_settings(cls, settings: Any) -> None:
        """Raise `PartCLIPSegError` for repairs that cannot be, and for weights of stage 1 that are not there."""
        from partclipseg.models.zsseg.start import check_mask_settings

        check_mask_settings(settings)

    @classmethod
    def from_start(cls, name: str, settings: Any) -> Any:
        """Build the model that training starts from, in float32 on the CPU; see `start.start_zsseg`."""
        from partclipseg.models.zsseg.start import start_zsseg

        return start_zsseg(name, settings)

    def trained_parameters(self, settings: Any = None) -> list[nn.Parameter]:
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

    def build_loss(self, settings: Any = None, compiled: bool = False) -> Any:
        """Build the published loss; see `ZSSegLoss`. `compiled` changes nothing: the loss has no maps of all words."""
        from partclipseg.models.zsseg.loss import ZSSegLoss

        patch = int(self.config.vision_config.patch_size)
        return ZSSegLoss((settings or ZSSegSettings()).loss, self.config.num_queries, patch)


def _enlarged(scores: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
