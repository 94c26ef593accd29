"""Load released PartCLIPSeg files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from partclipseg.models.clipseg_weights import fill
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.reading import check_finite, check_size, read_tensors

REFERENCE_PREFIX = "partclipseg_model."

REFERENCE_UNUSED = re.compile(r".*\.position_ids|text_adapter\.fc\.[02]\.weight|tunable_linear\.weight")
"""Tensors of released files without any effect: buffers, and two layers that are never read."""

REMARK = "reference mode: a class depends on the whole list of words, so keep near the training catalogue's"
"""Remark for people about a model from a released file."""


def knows(names: Collection[str]) -> bool:
    """Whether these are names of tensors in a file of PartCLIPSeg."""
    return any(name.removeprefix(REFERENCE_PREFIX).startswith(("clip.", "decoder.")) for name in names)


def config_for(values: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], origin: str) -> PartCLIPSegConfig:
    """The configuration for a file's tensors: the released one, or that of the reference's own dictionary."""
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
    path = Path(path)
    if not isinstance(config, PartCLIPSegConfig):
        config = PartCLIPSegConfig.from_reference(config)
    tensors = {name.removeprefix(REFERENCE_PREFIX): tensor for name, tensor in read_tensors(path).items()}
    check_size(lambda: PartCLIPSegModel(config), sum(tensor.numel() for tensor in tensors.values()), str(path))
    model = PartCLIPSegModel(config)
    unused = {name for name in tensors if REFERENCE_UNUSED.fullmatch(name)}
    fill(model, {name: tensors[name] for name in tensors.keys() - unused}, str(path))
    check_finite(model, str(path))
    return model.eval()


load_released = load_reference_checkpoint
"""The same under the name that every family's module of foreign files has."""
