"""The values that a configuration file of PartCATSeg or CAT-Seg may have, one table for each part of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clip_ranges import RESNET, list_of, or_null
from partclipseg.models.clipseg_ranges import CLIPSEG, TEXT, TOWERS, VISION, YES_OR_NO, Range, check_values

_WIDTH, _LAYERS, _HEADS, _SHARE = (
    TEXT[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps")
)
_SIDE, _STEP, _NUMBERS = VISION["image_size"], TEXT["initializer_range"], TOWERS["image_mean"]

_TEXT = Range("text of at most 1,000 characters", lambda value: isinstance(value, str) and len(value) <= 1000)

CATSEG = {
    "clip_config": CLIPSEG["text_config"],
    "guidance_config": CLIPSEG["text_config"],
    "image_size": _SIDE,
    "guidance_image_size": or_null(_SIDE),
    "shortest_edge": or_null(_SIDE),
    "longest_edge": _SIDE,
    "size_divisibility": _SIDE,
    "image_mean": _NUMBERS,
    "image_std": TOWERS["image_std"],
    "guidance_mean": _NUMBERS,
    "guidance_std": TOWERS["image_std"],
    "templates": list_of(_TEXT, 1000),
    "hidden_dim": _WIDTH,
    "num_heads": _HEADS,
    "num_layers": _LAYERS,
    "window_size": _SIDE,
    "pooling_size": _SIDE,
    "text_guidance_dim": _WIDTH,
    "appearance_guidance_dim": _WIDTH,
    "decoder_dims": list_of(_WIDTH, 2),
    "decoder_guidance_dims": list_of(_WIDTH, 2),
    "reference": YES_OR_NO,
    "repairs": or_null(list_of(_TEXT, 64)),
    "patch_attention": YES_OR_NO,
    "attention_filter": YES_OR_NO,
    "pair_affinity": YES_OR_NO,
}
"""The fields of `config.CATSegConfig`."""

_DINOV2 = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "mlp_ratio": Range("a number from 1 to 64", lambda value: _is_number(value) and 1 <= value <= 64),
    "hidden_act": TEXT["hidden_act"],
    "hidden_dropout_prob": _SHARE,
    "attention_probs_dropout_prob": _SHARE,
    "initializer_range": _STEP,
    "layer_norm_eps": _SHARE,
    "image_size": _SIDE,
    "patch_size": VISION["patch_size"],
    "num_channels": VISION["num_channels"],
    "qkv_bias": YES_OR_NO,
    "layerscale_value": _STEP,
    "drop_path_rate": _SHARE,
    "use_swiglu_ffn": YES_OR_NO,
    "use_mask_token": YES_OR_NO,
}


def known_guidance(values: Mapping[str, Any], default: str) -> dict[str, Any]:
    """Return the guidance tower of a configuration file, if it has one: the entries that the model reads, in range.

    `default` is the type of a tower that names none. Raises `PartCLIPSegError` that says of each value out of its
    range what it must be.
    """
    tower = values.get("guidance_config")
    if not isinstance(tower, Mapping):
        return {}
    kind = tower.get("model_type", default)
    table = {"dinov2": _DINOV2, "resnet": RESNET}.get(kind) if isinstance(kind, str) else None
    if table is None:
        raise PartCLIPSegError(f"guidance_config is of type {str(kind)[:60]!r}: give dinov2 or resnet")
    entries = {name: value for name, value in tower.items() if name in table}
    check_values(entries, table)
    return {"guidance_config": {"model_type": kind, **entries}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
