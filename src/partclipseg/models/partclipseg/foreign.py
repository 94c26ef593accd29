"""Released PartCLIPSeg files in."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg_weights import fill
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel

REFERENCE_PREFIX = "partclipseg_model."

REFERENCE_UNUSED = re.compile(r".*\.position_ids|text_adapter\.fc\.[02]\.weight|tunable_linear\.weight")
"""Tensors that stand in released files and have no effect there: buffers, and two layers that are never read."""


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
    path = Path(path)
    if not isinstance(config, PartCLIPSegConfig):
        config = PartCLIPSegConfig.from_reference(config)
    tensors = _read_checkpoint(path)
    tensors = {name.removeprefix(REFERENCE_PREFIX): tensor for name, tensor in tensors.items()}
    model = PartCLIPSegModel(config)
    unused = {name for name in tensors if REFERENCE_UNUSED.fullmatch(name)}
    fill(model, {name: tensors[name] for name in tensors.keys() - unused}, str(path))
    return model.eval()


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PartCLIPSegError(f"there is no file {path}") from None
    except pickle.UnpicklingError as error:
        raise PartCLIPSegError(
            f"{path} is refused: it holds more than tensors, and reading it could run code. Ask its author for a "
            "file that has only weights"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise PartCLIPSegError(f"{path} is not a readable PyTorch checkpoint: {error}") from error
    tensors = content.get("model", content) if isinstance(content, dict) else None
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise PartCLIPSegError(f"{path} is no PartCLIPSeg checkpoint: it has no table of tensors under 'model'")
    return tensors
