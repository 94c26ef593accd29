"""Released PartCLIPSeg files in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partclipseg.models.clipseg_weights import load_reference
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.recognise import PARTCLIPSEG

REFERENCE_PREFIX = "partclipseg_model."


def load_reference_checkpoint(
    path: str | Path, config: PartCLIPSegConfig | Mapping[str, Any] | None = None
) -> PartCLIPSegModel:
    """A model from a released PartCLIPSeg file (``{"model": {name: tensor}, …}``), float32 on the CPU.

    Args:
        path: the ``.pth`` file. Only tensors are read from it: a pickle that wants to run code is refused.
        config: ours, or the reference's own dictionary; None stands for the released CLIP ViT-B/16 models.

    The result is in reference mode unless `config` is ours and says otherwise. Raises `PartCLIPSegError` listing
    every missing, unknown and mis-shaped tensor.
    """
    if not isinstance(config, PartCLIPSegConfig):
        config = PartCLIPSegConfig.from_reference(config)
    return load_reference(PartCLIPSegModel, path, config, PARTCLIPSEG, REFERENCE_PREFIX)
