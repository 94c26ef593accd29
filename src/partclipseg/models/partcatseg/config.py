"""Configurations of PartCATSeg and CAT-Seg: the towers, the sizes of the aggregation, and the repaired defects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import AutoConfig, CLIPConfig, Dinov2Config, PreTrainedConfig, ResNetConfig

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clip_config import CLIPTowersConfig, given_values
from partclipseg.models.clipseg_ranges import Range
from partclipseg.models.partcatseg.ranges import CATSEG, known_guidance
from partclipseg.models.partcatseg.templates import TEMPLATES

REPAIRS = {
    "background": "train the background vector, which stays random as released (D1)",
    "copies": "start the second stage as a copy of the loaded first stage, not of its random start (D5)",
    "oracle": "admit the classes of the named object only, not of every name that contains its word (D7)",
    "padding": "do not pad photos, which as released displaces the maps of padded ones (D8)",
    "positions": "resize DINOv2's position embeddings by size, not by a displaced scale factor (D9)",
    "divergence": "leave out the divergence of parts and objects, which trains next to nothing (D10)",
    "outside": "leave pixels of objects outside the vocabulary out of the background's targets (D11)",
}
"""Name and purpose of each repair of a released defect."""


SIZES: dict[str, dict[str, Any]] = {
    "released": {},
    # For square scenes of 128 pixels and towers with patches of 8; CLIP's input is normalised as CLIPSeg's.
    "tiny": {
        "image_size": 128,
        "guidance_image_size": 128,
        "shortest_edge": 128,
        "longest_edge": 1024,
        "image_mean": (123.675, 116.28, 103.53),
        "image_std": (58.395, 57.12, 57.375),
        "templates": ("{}", "a photo of {}", "a picture of {}", "here is {}"),
        "hidden_dim": 64,
        "window_size": 8,
        "text_guidance_dim": 64,
        "appearance_guidance_dim": 64,
        "decoder_dims": (32, 16),
        "decoder_guidance_dims": (16, 8),
    },
}
"""Fields of the configuration that differ from its defaults, by the setting `sizes` of training."""


class CATSegConfig(CLIPTowersConfig):
    """Configuration of CAT-Seg (Cho et al., CVPR 2024) on object-parts, the baseline of OV-PARTS and PartCATSeg.

    The defaults are the released sizes: CLIP ViT-B/16 with ResNet-101 for guidance. `clip_config` and
    `guidance_config` may be dictionaries. Raises `PartCLIPSegError` for values that no model can be built from.
    """

    model_type = "catseg"
    sub_configs: ClassVar = {"clip_config": CLIPConfig, "guidance_config": AutoConfig}  # pyright: ignore

    guidance_config: Any = None
    """Configuration of the guidance tower: `transformers.Dinov2Config`, or `ResNetConfig` with three stages."""
    image_size: int = 384
    """Height and width of CLIP's input, in pixels."""
    guidance_image_size: int | None = None
    """Height and width of the guidance tower's input, in pixels; None: 448 for DINOv2, `image_size` for ResNet."""
    shortest_edge: int | None = 640
    """Photos are first resized to this shortest edge, in pixels; None takes them at their own size."""
    longest_edge: int = 768
    """Largest edge after this first resizing, in pixels; it wins over `shortest_edge`."""
    size_divisibility: int = 32
    """Multiple of pixels that photos are padded to, as released; unused where "padding" is repaired."""
    image_mean: list[float] | tuple[float, ...] = (122.7709383, 116.7460125, 104.09373615)
    image_std: list[float] | tuple[float, ...] = (68.5005327, 66.6321579, 70.3231630)
    """Normalisation of CLIP's input: RGB channels from 0 to 255."""
    guidance_mean: list[float] | tuple[float, ...] = (123.675, 116.28, 103.53)
    guidance_std: list[float] | tuple[float, ...] = (58.395, 57.12, 57.375)
    """Normalisation of the guidance tower's input: RGB channels from 0 to 255."""
    templates: list[str] | tuple[str, ...] = TEMPLATES
    """Prompts with `{}` in place of the word; their order belongs to the weights."""
    hidden_dim: int = 128
    """Channels of the cost embedding, C."""
    num_heads: int = 4
    """Heads of both attentions."""
    num_layers: int = 2
    """Aggregation layers of each stage."""
    window_size: int = 12
    """Edge of the windows of spatial attention, in places of the feature grid."""
    pooling_size: int = 2
    """Edge of the pooling before class attention, in places of the feature grid."""
    text_guidance_dim: int = 128
    """Channels of the projected text guidance."""
    appearance_guidance_dim: int = 128
    """Channels of the projected photo guidance."""
    decoder_dims: list[int] | tuple[int, ...] = (64, 32)
    """Channels after each of the two decoder blocks."""
    decoder_guidance_dims: list[int] | tuple[int, ...] = (32, 16)
    """Channels of the projected guidance of each decoder block."""
    patch_attention: bool = False
    """Keep the attention of CLIP's last block; as released, the value of each patch takes its place."""
    attention_filter: bool = False
    """Mix the first costs by what CLIP's blocks attend to, after HOPS; see `filters`."""
    pair_affinity: bool = False
    """Mix the costs of PartCATSeg's object-parts by a doubly stochastic affinity, after HOPS; see `filters`."""

    default_guidance: ClassVar[str] = "resnet"
    has_pairs: ClassVar[bool] = False
    """Whether there is a second stage, whose costs `pair_affinity` mixes."""
    applicable: ClassVar[tuple[str, ...]] = ("background", "oracle", "padding", "positions", "outside")
    """Names from `REPAIRS` of the defects that the method has; "positions" concerns DINOv2 only."""

    @classmethod
    def ranges(cls) -> Mapping[str, Range]:
        """Return the range of each field."""
        return CATSEG

    @classmethod
    def _known_towers(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        return known_guidance(values, cls.default_guidance)

    def _complete(self) -> None:
        self.guidance_config = _guidance_config(self.guidance_config, self.default_guidance)
        if self.guidance_image_size is None:
            self.guidance_image_size = 448 if self.guidance_config.model_type == "dinov2" else self.image_size
        for name in ("templates", "decoder_dims", "decoder_guidance_dims"):
            setattr(self, name, list(getattr(self, name)))  # as they come back from a file

    @property
    def grid(self) -> int:
        """Edge of the feature grid, g, in patches of CLIP."""
        return self.image_size // int(self.clip_config.vision_config.patch_size)

    @property
    def logits_edge(self) -> int:
        """Height and width of the logits."""
        return 4 * self.grid

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of CLIP's input, in pixels."""
        return self.image_size, self.image_size

    @property
    def guidance_dims(self) -> tuple[int, int, int]:
        """Channels of the guidance features at 1, 2 and 4 times the feature grid."""
        if self.guidance_config.model_type == "dinov2":
            return (self.guidance_config.hidden_size,) * 3
        fine, middle, coarse = self.guidance_config.hidden_sizes
        return coarse, middle, fine

    def change(self, **fields: Any) -> None:
        """Set fields that no weight depends on; None leaves one as it is. Raises `PartCLIPSegError` as the class."""
        for name, value in fields.items():
            if value is not None:
                setattr(self, name, value)
        self._check()

    def _check(self) -> None:
        patch, grid = int(self.clip_config.vision_config.patch_size), self.grid
        if self.image_size % patch:
            raise PartCLIPSegError(f"image_size {self.image_size} must be a multiple of CLIP's patch of {patch} pixels")
        if grid > self.window_size and grid % self.window_size:
            raise PartCLIPSegError(
                f"window_size {self.window_size} must divide the feature grid of {grid}, or be at least as large"
            )
        if grid % self.pooling_size:
            raise PartCLIPSegError(f"pooling_size {self.pooling_size} must divide the feature grid of {grid}")
        if self.hidden_dim % self.num_heads:
            raise PartCLIPSegError(f"hidden_dim {self.hidden_dim} must be a multiple of num_heads {self.num_heads}")
        self._check_decoder()
        self._check_guidance()
        for template in self.templates:
            if template.count("{}") != 1:
                raise PartCLIPSegError(f"the template {template!r} must have {{}} once, in place of the word")
        if not self.templates:
            raise PartCLIPSegError("templates is empty: give at least one, such as 'a photo of a {}.'")
        if self.pair_affinity and not self.has_pairs:
            raise PartCLIPSegError("CAT-Seg has no second stage: leave pair_affinity out, or take PartCATSeg")
        if self.reference and (self.attention_filter or self.pair_affinity or self.patch_attention):
            raise PartCLIPSegError(
                "reference means as released, without attention_filter, pair_affinity and patch_attention: "
                "leave out one or the other"
            )

    def _check_decoder(self) -> None:
        if len(self.decoder_dims) != 2 or len(self.decoder_guidance_dims) != 2:
            raise PartCLIPSegError("decoder_dims and decoder_guidance_dims need one number for each of two blocks")
        inputs = (self.hidden_dim, self.decoder_dims[0])
        for width, guidance, channels in zip(inputs, self.decoder_guidance_dims, self.decoder_dims, strict=True):
            if channels < 1 or channels % 16:
                raise PartCLIPSegError(f"decoder_dims {tuple(self.decoder_dims)} must be multiples of 16")
            if not 0 < guidance < width:
                raise PartCLIPSegError(
                    f"decoder_guidance_dims {tuple(self.decoder_guidance_dims)} must lie between 0 and the width of "
                    f"their block's input, {inputs}"
                )

    def _check_guidance(self) -> None:
        guidance, size = self.guidance_config, int(self.guidance_image_size or 0)
        if guidance.model_type == "dinov2":
            if guidance.hidden_size % guidance.num_attention_heads:
                raise PartCLIPSegError(
                    f"guidance_config.hidden_size {guidance.hidden_size} must be a multiple of num_attention_heads "
                    f"{guidance.num_attention_heads}"
                )
            if guidance.image_size < guidance.patch_size:
                raise PartCLIPSegError(
                    f"guidance_config.image_size {guidance.image_size} must be at least patch_size "
                    f"{guidance.patch_size}"
                )
            if size % int(guidance.patch_size):
                raise PartCLIPSegError(
                    f"guidance_image_size {size} must be a multiple of DINOv2's patch of {guidance.patch_size} pixels"
                )
        elif guidance.model_type != "resnet":
            raise PartCLIPSegError(f"guidance_config is of type {guidance.model_type!r}: give dinov2 or resnet")
        elif len(guidance.hidden_sizes) != 3 or len(guidance.depths) != 3 or size != 16 * self.grid:
            raise PartCLIPSegError(
                f"a ResNet for guidance needs three stages and an input of {16 * self.grid} pixels, so that its last "
                f"stage has the feature grid of {self.grid}; it has {len(guidance.hidden_sizes)} and {size}"
            )


class PartCATSegConfig(CATSegConfig):
    """Configuration of PartCATSeg (Choi et al., CVPR 2025); guidance comes from DINOv2 ViT-S/14."""

    model_type = "partcatseg"
    default_guidance: ClassVar[str] = "dinov2"
    has_pairs: ClassVar[bool] = True
    applicable: ClassVar[tuple[str, ...]] = tuple(REPAIRS)

    def _check_guidance(self) -> None:
        if self.guidance_config.model_type != "dinov2":
            raise PartCLIPSegError("PartCATSeg takes its guidance from DINOv2: give a guidance_config of type dinov2")
        super()._check_guidance()


def _guidance_config(value: Any, default: str) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    values = {"model_type": default} if value is None else dict(value)
    kind = values.get("model_type", default)
    if kind == "dinov2":
        # ViT-S/14 as on the hub; the mask token has no use here.
        sizes = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "use_mask_token": False}
        return Dinov2Config(**{**sizes, **given_values(values)})
    if kind == "resnet":
        sizes = {"depths": [3, 4, 23], "hidden_sizes": [256, 512, 1024]}  # ResNet-101 up to res4
        return ResNetConfig(**{**sizes, **given_values(values)})
    raise PartCLIPSegError(f"guidance_config is of type {kind!r}: give dinov2 or resnet")
