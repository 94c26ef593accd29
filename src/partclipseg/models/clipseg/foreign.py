"""The CLIPSeg files that OV-PARTS released in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_weights import load_reference
from partclipseg.models.recognise import CLIPSEG

REFERENCE_PREFIX = "clipseg_model."


def load_reference_checkpoint(
    path: str | Path, config: CLIPSegBaselineConfig | Mapping[str, Any] | None = None
) -> CLIPSegBaseline:
    """A model from a CLIPSeg file of OV-PARTS (``{"model": {name: tensor}, …}``), float32 on the CPU.

    Args:
        path: the ``.pth`` file. Only tensors are read from it: a pickle that wants to run code is refused.
        config: ours, or the reference's own dictionary; None stands for the released CLIP ViT-B/16 models.

    Raises `PartCLIPSegError` listing every missing, unknown and mis-shaped tensor.
    """
    if not isinstance(config, CLIPSegBaselineConfig):
        config = CLIPSegBaselineConfig.from_reference(config)
    return load_reference(CLIPSegBaseline, path, config, CLIPSEG, REFERENCE_PREFIX)
