"""Configuration that all families on CLIPSeg's towers and decoder share."""

from __future__ import annotations

from typing import Any

from transformers import CLIPSegConfig

from partclipseg.errors import PartCLIPSegError


class CLIPSegTowersConfig(CLIPSegConfig):
    """`transformers.CLIPSegConfig` (towers, `extract_layers`, `reduce_dim`, …) and what every family here adds.

    Raises `PartCLIPSegError` for values that no model can be built from.
    """

    vision_config: Any = None
    text_config: Any = None
    projection_dim: int = 512
    """As in `CLIPSegConfig`; dictionaries become the towers' configurations."""
    image_size: int | list[int] | tuple[int, int] = 352
    """Height and width that photos are resized to, in pixels; one number for a square. 352 as published."""
    visual_adapter_ratio: float = 0.2
    """Share of the adapter in each extracted activation; 0.2 as published."""
    image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225)
    """Normalisation of the RGB channels after division by 255; ImageNet's as published."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        blocks = self.vision_config.num_hidden_layers
        if not self.extract_layers or any(not 0 <= layer < blocks for layer in self.extract_layers):
            raise PartCLIPSegError(
                f"extract_layers {tuple(self.extract_layers)} must name blocks of the vision tower, 0 to {blocks - 1}"
            )
        if list(self.extract_layers) != sorted(set(self.extract_layers)):
            raise PartCLIPSegError(f"extract_layers {tuple(self.extract_layers)} must rise")
        if self.reduce_dim % self.decoder_num_attention_heads:
            raise PartCLIPSegError(
                f"reduce_dim {self.reduce_dim} must be a multiple of decoder_num_attention_heads "
                f"{self.decoder_num_attention_heads}"
            )
        if not 0 <= self.conditional_layer < len(self.extract_layers):
            raise PartCLIPSegError(
                f"conditional_layer {self.conditional_layer} must be one of the decoder layers, "
                f"0 to {len(self.extract_layers) - 1}"
            )

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
