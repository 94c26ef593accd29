"""Configuration of PartCLIPSeg."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg_config import CLIPSegTowersConfig
from partclipseg.models.clipseg_ranges import TOWERS, YES_OR_NO, Rule

RELEASED = {
    "extract_layers": [3, 6, 9],
    "reduce_dim": 64,
    "use_complex_transposed_convolution": True,
    "vision_config": {"patch_size": 16},
}
"""Values of the released checkpoints (CLIP ViT-B/16, complex up-sampling head) that differ from CLIPSeg's defaults."""


class PartCLIPSegConfig(CLIPSegTowersConfig):
    """The shared configuration and PartCLIPSeg's own switch."""

    model_type = "partclipseg"

    reference_object_lookup: bool = False
    """Read a class's object word at the object's index *without* the offset of the part words, as the released
    code does and its checkpoints were trained with. False, the intended method, takes the object's own word."""

    @classmethod
    def ranges(cls) -> Mapping[str, Rule]:
        """Return the range of each field."""
        return {**TOWERS, "reference_object_lookup": YES_OR_NO}

    @classmethod
    def from_reference(cls, values: Mapping[str, Any] | None = None) -> PartCLIPSegConfig:
        """Make a configuration from the reference's dictionary; its defaults if None.

        The result asks for the reference's object lookup, which its checkpoints were trained with. Raises
        `PartCLIPSegError` if the dictionary lacks the two towers.
        """
        values = dict(RELEASED if values is None else values)
        if "vision_config" not in values:
            raise PartCLIPSegError("a reference configuration needs vision_config (and usually text_config)")
        return cls.from_values({"reference_object_lookup": True, **values})
