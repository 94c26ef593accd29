"""Configuration of ZSSeg+: CLIP's towers, the sizes of MaskFormer, and the repaired faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from transformers import CLIPConfig, MaskFormerConfig, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clip_config import CLIPTowersConfig, given_values
from partclipseg.models.clipseg_ranges import Range
from partclipseg.models.zsseg.ranges import ZSSEG, known_backbone

REPAIRS = {
    "attention": "let the queries look at the object alone, not add 1 to the scores of every place off it (E1)",
    "object_vector": "average the object's features over its own area, not over the photo's (E2)",
    "oracle": "admit the classes of the named object only, not of every name that contains its word (E3)",
}
"""Name and purpose of each repair of a fault of the released code that concerns inference.

E4 (an object map without five objects) and E5 (class weights of another benchmark) concern its training: here objects
come from the labels themselves, and class weights from the words; of E5 the tensor `criterion.empty_weight` of released
files is left aside. E6 concerns OV-PARTS' CLIPSeg; labels come here from the data set that is trained on.
"""

SIZES: dict[str, dict[str, Any]] = {
    "released": {},
    # For square scenes of 128 pixels and towers with patches of 8; CLIP's input is normalised as CLIPSeg's.
    "tiny": {
        "backbone_config": {"embedding_size": 32, "hidden_sizes": [64, 128, 192, 256], "depths": [2, 2, 2, 2]},
        "backbone_norm": "group",
        "feature_size": 64,
        "hidden_size": 64,
        "num_heads": 4,
        "num_layers": 3,
        "feed_forward_size": 256,
        "num_queries": 16,
        "class_hidden_size": 256,
        "shortest_edge": 128,
        "longest_edge": 128,
        "crop_size": 128,
        "clip_mean": (0.485, 0.456, 0.406),
        "clip_std": (0.229, 0.224, 0.225),
    },
}
"""Fields of the configuration that differ from its defaults, by the setting `sizes` of training."""


class ZSSegConfig(CLIPTowersConfig):
    """Configuration of ZSSeg+ (Wei et al., NeurIPS 2023); the defaults are the released sizes, with ResNet-50.

    `clip_config` and `backbone_config` may be dictionaries. Raises `PartCLIPSegError` for values that no model can be
    built from.
    """

    model_type = "zsseg"
    sub_configs: ClassVar = {"clip_config": CLIPConfig, "backbone_config": ResNetConfig}  # pyright: ignore

    backbone_config: Any = None
    """Configuration of the ResNet of stage 1, `transformers.ResNetConfig` with four stages."""
    backbone_norm: Literal["batch", "group"] = "batch"
    """Norms of the ResNet: batch norms with fixed statistics, which only a start with weights has, or group norms,
    which can be trained from random weights."""
    feature_size: int = 256
    """Channels of the pixel decoder, a multiple of 32."""
    hidden_size: int = 256
    """Width of the transformer decoder, of the mask features and of the object's vector."""
    num_heads: int = 8
    """Heads of the transformer decoder."""
    num_layers: int = 6
    """Layers of the transformer decoder."""
    feed_forward_size: int = 2048
    """Width of the hidden layer of the transformer decoder's MLPs."""
    num_queries: int = 50
    """Number of mask proposals, Q."""
    class_hidden_size: int = 1024
    """Width of the hidden layer of the head that maps a query into CLIP's space."""
    shortest_edge: int = 512
    """Photos are resized to this shortest edge, in pixels."""
    longest_edge: int = 768
    """Largest edge after resizing, in pixels; it wins over `shortest_edge`."""
    crop_size: int = 384
    """Side of the crop that CLIP classifies, in pixels."""
    crop_scale: float = 1.2
    """Side of the crop as a multiple of the object's box."""
    image_mean: list[float] | tuple[float, ...] = (123.675, 116.28, 103.53)
    image_std: list[float] | tuple[float, ...] = (58.395, 57.12, 57.375)
    """Normalisation of stage 1's input: RGB channels from 0 to 255."""
    clip_mean: list[float] | tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    clip_std: list[float] | tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    """Normalisation of CLIP's input: RGB channels from 0 to 1."""
    prompt_lengths: list[int] | tuple[int, ...] = (4, 4)
    """Number of learnt vectors before the object's words and between them and the part's words."""
    separator_id: int = 267
    """Token of the comma, which stands between object and part in a prompt; no word holds one."""
    dot_id: int = 269
    """Token of the full stop that ends a composed prompt."""

    applicable: ClassVar[tuple[str, ...]] = tuple(REPAIRS)
    size_divisibility: ClassVar[int] = 32
    """Multiple of pixels that photos are padded to: the stride of the last features."""

    @classmethod
    def ranges(cls) -> Mapping[str, Range]:
        """Return the range of each field."""
        return ZSSEG

    @classmethod
    def _known_towers(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        return known_backbone(values)

    def _complete(self) -> None:
        self.backbone_config = _backbone_config(self.backbone_config)
        self.prompt_lengths = list(self.prompt_lengths)  # as it comes back from a file

    @property
    def canvas(self) -> int:
        """Side of the square that holds a resized photo of any aspect ratio, in pixels; a multiple of 32."""
        return -(-self.longest_edge // self.size_divisibility) * self.size_divisibility

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the square that holds a resized photo, in pixels."""
        return self.canvas, self.canvas

    @property
    def image_size(self) -> int:
        """Side of the square that holds a resized photo, in pixels; setting it sets both edges."""
        return self.canvas

    @image_size.setter
    def image_size(self, side: int) -> None:
        self.shortest_edge = self.longest_edge = side

    def maskformer(self) -> MaskFormerConfig:
        """Return the configuration of transformers' MaskFormer modules."""
        decoder = MaskFormerDetrConfig(
            d_model=self.hidden_size,
            decoder_layers=self.num_layers,
            decoder_attention_heads=self.num_heads,
            decoder_ffn_dim=self.feed_forward_size,
            encoder_layers=0,
            num_queries=self.num_queries,
            dropout=0.0,
        )
        return MaskFormerConfig(
            backbone_config=self.backbone_config,
            decoder_config=decoder,
            fpn_feature_size=self.feature_size,
            mask_feature_size=self.hidden_size,
        )

    def _check(self) -> None:
        if self.feature_size % 32:
            raise PartCLIPSegError(f"feature_size {self.feature_size} must be a multiple of 32, its norms' groups")
        if self.hidden_size % (2 * self.num_heads):
            raise PartCLIPSegError(
                f"hidden_size {self.hidden_size} must be a multiple of twice the num_heads {self.num_heads}"
            )
        patch = int(self.vision_config.patch_size)
        if self.crop_size % patch:
            raise PartCLIPSegError(f"crop_size {self.crop_size} must be a multiple of CLIP's patch of {patch} pixels")
        if len(self.prompt_lengths) != 2 or min(self.prompt_lengths) < 1:
            raise PartCLIPSegError(f"prompt_lengths are {tuple(self.prompt_lengths)}: give two numbers of at least 1")
        if len(self.backbone_config.hidden_sizes) != 4 or len(self.backbone_config.depths) != 4:
            raise PartCLIPSegError("backbone_config needs four stages: four hidden_sizes and four depths")
        for name in ("separator_id", "dot_id"):
            if not 0 <= getattr(self, name) < self.text_config.vocab_size:
                raise PartCLIPSegError(
                    f"{name} is {getattr(self, name)}, no token of the {self.text_config.vocab_size} of the text tower"
                )


def _backbone_config(value: Any) -> ResNetConfig:
    if isinstance(value, ResNetConfig):
        value = value.to_dict()
    # ResNet-50 with all its stages out, the stride in the 3x3 convolution.
    sizes: dict[str, Any] = {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"}
    values: dict[str, Any] = {**sizes, **given_values({} if value is None else value)}
    stages = [f"stage{number}" for number in range(1, len(values["depths"]) + 1)]
    values["out_features"] = stages
    return ResNetConfig(**values)
