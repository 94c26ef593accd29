"""CLIP's towers as part of the configuration of a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CLIPConfig


def clip_config(value: CLIPConfig | Mapping[str, Any] | None) -> CLIPConfig:
    """Return a configuration of CLIP from what a field holds; None is ViT-B/16."""
    if isinstance(value, CLIPConfig):
        return value
    # transformers' own default is ViT-B/32
    values: dict[str, Any] = {"vision_config": {"patch_size": 16}} if value is None else given_values(value)
    return CLIPConfig(**values)


def given_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the entries that transformers writes and derives again when a configuration is made."""
    derived = ("model_type", "stage_names", "out_features", "out_indices")
    return {key: value for key, value in values.items() if key not in derived}
