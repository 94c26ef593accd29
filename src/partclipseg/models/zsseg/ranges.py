"""The values that a configuration file of ZSSeg+ may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from partclipseg.models.clip_ranges import RESNET, list_of, or_null
from partclipseg.models.clipseg_ranges import CLIPSEG, TEXT, TOWERS, VISION, YES_OR_NO, Range, check_values

_WIDTH, _LAYERS, _HEADS = (TEXT[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
_SIDE = VISION["image_size"]
_COUNT = Range("a whole number from 1 to 64", lambda value: type(value) is int and 1 <= value <= 64)
_TOKEN = Range("a token, from 0 on", lambda value: type(value) is int and 0 <= value < 2**24)
_SCALE = Range("a number from 1 to 10", lambda value: isinstance(value, int | float) and 1 <= value <= 10)

ZSSEG = {
    "clip_config": CLIPSEG["text_config"],
    "backbone_config": CLIPSEG["text_config"],
    "backbone_norm": Range("batch or group", lambda value: value in ("batch", "group")),
    "feature_size": _WIDTH,
    "hidden_size": _WIDTH,
    "num_heads": _HEADS,
    "num_layers": _LAYERS,
    "feed_forward_size": _WIDTH,
    "num_queries": _WIDTH,
    "class_hidden_size": _WIDTH,
    "shortest_edge": _SIDE,
    "longest_edge": _SIDE,
    "crop_size": _SIDE,
    "crop_scale": _SCALE,
    "image_mean": TOWERS["image_mean"],
    "image_std": TOWERS["image_std"],
    "clip_mean": TOWERS["image_mean"],
    "clip_std": TOWERS["image_std"],
    "prompt_lengths": list_of(_COUNT, 2),
    "separator_id": _TOKEN,
    "dot_id": _TOKEN,
    "reference": YES_OR_NO,
    "repairs": or_null(list_of(Range("text", lambda value: isinstance(value, str) and len(value) <= 100), 64)),
}
"""The fields of `config.ZSSegConfig`."""

_BACKBONE = {
    **RESNET,
    "hidden_sizes": list_of(Range("a whole number from 4 to 65,536", lambda v: _WIDTH.holds(v) and v >= 4), 4),
    "depths": list_of(_LAYERS, 4),
}


def known_backbone(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the backbone of a configuration file, if it has one: the entries that the model reads, in range.

    Raises `PartCLIPSegError` that says of each value out of its range what it must be.
    """
    tower = values.get("backbone_config")
    if not isinstance(tower, Mapping):
        return {}
    known = {key: value for key, value in tower.items() if key in _BACKBONE}
    check_values(known, _BACKBONE)
    return {"backbone_config": known}
