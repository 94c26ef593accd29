"""Configuration of the models: CLIPSeg's own, with what PartCLIPSeg adds."""

from __future__ import annotations

from typing import Any

from transformers import CLIPSegConfig

from partclipseg.errors import PartCLIPSegError


class PartCLIPSegConfig(CLIPSegConfig):
    """`transformers.CLIPSegConfig` (towers, `extract_layers`, `reduce_dim`, …) and four fields of our own.

    Args:
        image_size: side of the square that photos are resized to before the towers, in pixels; 352 as published.
        reference_object_lookup: read the object word of a class from the list [parts, objects, background] at
            the object's index *without* its offset, as the released code does and its checkpoints were trained
            with. False (the intended method) takes the object word itself.
        visual_adapter_ratio: share of the adapter in each extracted activation, 0.2 as published.
        mean, std: per-channel RGB normalisation of the photo (after division by 255); ImageNet's as published.
    """

    model_type = "partclipseg"

    def __init__(
        self,
        image_size: int = 352,
        reference_object_lookup: bool = False,
        visual_adapter_ratio: float = 0.2,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.reference_object_lookup = reference_object_lookup
        self.visual_adapter_ratio = visual_adapter_ratio
        self.mean = tuple(mean)
        self.std = tuple(std)
        super().__init__(**kwargs)
