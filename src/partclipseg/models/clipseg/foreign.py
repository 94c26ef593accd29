"""Load OV-PARTS' released CLIPSeg files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_weights import load_reference, named_by

REFERENCE_PREFIX = "clipseg_model."

REMARK = "the background of these files was never trained: name the objects in the photo where you know them"
"""Remark for people about a model from a released file."""


def knows(names: Collection[str]) -> bool:
    """Whether these are names of tensors in a CLIPSeg file of OV-PARTS."""
    return named_by(REFERENCE_PREFIX, names)


def config_for(
    values: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], origin: str, dataset: str | None = None
) -> CLIPSegBaselineConfig:
    """Return the configuration for a file's tensors: the released one, or that of the reference's own dictionary."""
    return CLIPSegBaselineConfig.from_reference(values)


def load_released(path: str | Path, config: CLIPSegBaselineConfig | Mapping[str, Any] | None = None) -> CLIPSegBaseline:
    """Load a CLIPSeg file of OV-PARTS (``{"model": {name: tensor}, …}``), float32 on the CPU.

    Args:
        path: the ``.pth`` file. Only tensors are read from it: a pickle that wants to run code is refused.
        config: ours, or the reference's own dictionary; None stands for the released CLIP ViT-B/16 models.

    Raises `PartCLIPSegError` that lists missing, unknown and mis-shaped tensors.
    """
    if not isinstance(config, CLIPSegBaselineConfig):
        config = CLIPSegBaselineConfig.from_reference(config)
    return load_reference(CLIPSegBaseline, path, config, REFERENCE_PREFIX)
