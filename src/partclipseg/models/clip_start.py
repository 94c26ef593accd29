"""Load CLIP's two towers as the start of training, from CLIP itself or from a CLIPSeg."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPSegForImageSegmentation, PreTrainedConfig

from partclipseg.errors import PartCLIPSegError


def load_clip(name: str, kind: str) -> CLIPModel:
    """Load CLIP in float32 on the CPU, or the towers of a CLIPSeg, which are CLIP's with other configurations.

    Args:
        name: a directory or hub name.
        kind: its `model_type`, clip or clipseg.
    """
    if kind == "clip":
        loaded: Any = CLIPModel.from_pretrained(name, dtype=torch.float32)
        return loaded
    clipseg: Any = CLIPSegForImageSegmentation.from_pretrained(name, dtype=torch.float32)
    text, vision = (
        {key: value for key, value in part.to_dict().items() if key != "model_type"}
        for part in (clipseg.config.text_config, clipseg.config.vision_config)
    )
    clip = CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=clipseg.config.projection_dim)
    )
    clip.load_state_dict(clipseg.clip.state_dict())
    return clip


def model_type(name: str) -> str | None:
    """Return the `model_type` of a directory or hub name; errors as of `config_dict`."""
    return config_dict(name).get("model_type")


def config_dict(name: str) -> dict[str, Any]:
    """Read the configuration of a directory or hub name. Raises `PartCLIPSegError` where there is none."""
    try:
        return PreTrainedConfig.get_config_dict(name)[0]
    except (OSError, ValueError) as error:
        raise PartCLIPSegError(
            f"there is no file or directory {name!r} with a model, and the hub cannot be reached for one of that name: "
            "give a released .pth file, or a directory of CLIP or of a model of this package"
        ) from error
