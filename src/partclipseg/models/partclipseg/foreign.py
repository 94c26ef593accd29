"""Load released PartCLIPSeg files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from partclipseg.models.clipseg_weights import load_reference, named_by
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel

REFERENCE_PREFIX = "partclipseg_model."

REMARK = "reference mode: the object words are looked up as the released code does (docs/reference.md, D1)"
"""Remark for people about a model from a released file."""


def knows(names: Collection[str]) -> bool:
    """Whether these are names of tensors in a file of PartCLIPSeg."""
    return named_by(REFERENCE_PREFIX, names)


def config_for(
    values: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], origin: str, dataset: str | None = None
) -> PartCLIPSegConfig:
    """Return the configuration for a file's tensors: the released one, or that of the reference's own dictionary."""
    return PartCLIPSegConfig.from_reference(values)


def load_reference_checkpoint(
    path: str | Path, config: PartCLIPSegConfig | Mapping[str, Any] | None = None
) -> PartCLIPSegModel:
    """Load a released PartCLIPSeg file (``{"model": {name: tensor}, …}``), float32 on the CPU.

    Args:
        path: the ``.pth`` file. Only tensors are read from it: a pickle that wants to run code is refused.
        config: ours, or the reference's own dictionary; None stands for the released CLIP ViT-B/16 models.

    The result is in reference mode unless `config` is ours and says otherwise. Raises `PartCLIPSegError` listing
    every missing, unknown and mis-shaped tensor.
    """
    if not isinstance(config, PartCLIPSegConfig):
        config = PartCLIPSegConfig.from_reference(config)
    return load_reference(PartCLIPSegModel, path, config, REFERENCE_PREFIX)


load_released = load_reference_checkpoint
"""The same under the name that every family's module of foreign files has."""
