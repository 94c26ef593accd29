"""Configuration that all families on CLIPSeg's towers and decoder share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any, Self

from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPSegConfig

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg_ranges import TOWERS, Range, check_values, known_values

RELEASED = {
    "extract_layers": [3, 6, 9],
    "reduce_dim": 64,
    "use_complex_transposed_convolution": True,
    "vision_config": {"patch_size": 16},
}
"""Values of the released checkpoints (CLIP ViT-B/16, complex up-sampling head) that differ from CLIPSeg's defaults."""


class CLIPSegTowersConfig(CLIPSegConfig):
    """`transformers.CLIPSegConfig` (towers, `extract_layers`, `reduce_dim`, …) with the fields that all families add.

    Raises `PartCLIPSegError` for values that no model can be built from.
    """

    vision_config: Any = None
    text_config: Any = None
    projection_dim: int = 512
    """Width of the embeddings, as in `CLIPSegConfig`; dictionaries become the towers' configurations."""
    image_size: int | list[int] | tuple[int, int] = 352
    """Height and width that photos are resized to, in pixels; one number for a square. 352 as published."""
    visual_adapter_ratio: float = 0.2
    """Share of the adapter in each extracted activation; 0.2 as published."""
    image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225)
    """Normalisation of the RGB channels after division by 255; ImageNet's as published."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        make = cls.__init__  # transformers has just generated it

        @wraps(make)
        def init(self: Any, *args: Any, **values: Any) -> None:
            try:
                make(self, *args, **values)
            except StrictDataclassError as error:  # a wrong type, or heads that do not divide a width
                raise PartCLIPSegError(f"the configuration cannot be used: {' '.join(str(error).split())}") from error

        cls.__init__ = init

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_values()
        blocks = self.vision_config.num_hidden_layers
        if not self.extract_layers or any(not 0 <= layer < blocks for layer in self.extract_layers):
            raise PartCLIPSegError(
                f"extract_layers {tuple(self.extract_layers)} must name blocks of the vision tower, 0 to {blocks - 1}"
            )
        if list(self.extract_layers) != sorted(set(self.extract_layers)):
            raise PartCLIPSegError(f"extract_layers {tuple(self.extract_layers)} must rise: name the blocks in order")
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

    def _check_values(self) -> None:
        values: dict[str, Any] = {name: getattr(self, name) for name in self.ranges()}
        towers = {key: values[key].to_dict() for key in ("text_config", "vision_config")}
        check_values({**values, **towers}, self.ranges())

    @classmethod
    def ranges(cls) -> Mapping[str, Range]:
        """Return the range of each field."""
        return TOWERS

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Make a configuration from a file's content; unknown entries are ignored.

        Raises `PartCLIPSegError` that says of each value out of its range what it must be.
        """
        known = known_values(values, cls.ranges())
        check_values(known, cls.ranges())  # transformers' own messages on wrong types say less
        return cls(**known)

    @classmethod
    def from_reference(cls, values: Mapping[str, Any] | None = None) -> Self:
        """Make a configuration from the dictionary that the reference builds its model with; its defaults if None.

        Raises `PartCLIPSegError` if the dictionary lacks the two towers.
        """
        values = RELEASED if values is None else values
        if "vision_config" not in values:
            raise PartCLIPSegError("a reference configuration needs vision_config (and usually text_config)")
        return cls.from_values(values)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
