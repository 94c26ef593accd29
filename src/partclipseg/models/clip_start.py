"""Load the towers that a training starts from: CLIP's two, from CLIP or from a CLIPSeg, and others of transformers.

Files must be complete and undamaged, and of the size that their configuration asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPSegForImageSegmentation

from partclipseg.models.names import find_snapshot
from partclipseg.models.reading import check_library_size, load_library_model

START = (
    "give a directory or hub name of CLIP, CLIPSeg or a model of this package; `partclipseg convert` makes a directory "
    "of a released .pth file"
)
"""Remedy for a start that is not there."""


def load_clip(name: str, kind: str) -> CLIPModel:
    """Load CLIP in float32 on the CPU, or the towers of a CLIPSeg, which are CLIP's with other configurations.

    Args:
        name: a directory or hub name.
        kind: its `model_type`, clip or clipseg.

    Raises `PartCLIPSegError` for a model that is not there or damaged.
    """
    if kind == "clip":
        return load_tower(CLIPModel, name, START)
    clipseg = load_tower(CLIPSegForImageSegmentation, name, START)
    text, vision = (
        {key: value for key, value in part.to_dict().items() if key != "model_type"}
        for part in (clipseg.config.text_config, clipseg.config.vision_config)
    )
    clip = CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=clipseg.config.projection_dim)
    )
    clip.load_state_dict(clipseg.clip.state_dict())
    return clip


def load_tower(cls: Any, name: str, remedy: str) -> Any:
    """Load a directory or hub name by a class of transformers, in float32; `remedy` ends the errors' messages."""
    return load_library_model(cls, find_snapshot(name, (), remedy), name, torch.float32)


def tower_folder(cls: Any, name: str, remedy: str) -> str | Path:
    """Return the folder with a model's files, whose weights are of the size that its configuration asks for."""
    folder = find_snapshot(name, (), remedy)
    check_library_size(cls, folder, name)
    return folder
