"""The values that a configuration on CLIPSeg's towers may have, one table for each part of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformers.activations import ACT2FN

from partclipseg.errors import PartCLIPSegError


class Range(NamedTuple):
    """Range of a value, as a description and as a test."""

    text: str
    holds: Callable[[Any], bool]


def _whole(low: int, high: int) -> Range:
    return Range(
        f"a whole number from {low:,} to {high:,}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


def _number(low: float, high: float) -> Range:
    return Range(
        f"a number from {low:g} to {high:g}",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high,
    )


def _list(count: int | None, item: Range) -> Range:
    return Range(
        f"a list{f' of {count}' if count else ''}, each {item.text}",
        lambda value: (
            isinstance(value, list | tuple)
            and 0 < len(value) <= 64
            and count in (None, len(value))
            and all(map(item.holds, value))
        ),
    )


def _or(first: Range, second: Range) -> Range:
    return Range(f"{first.text} or {second.text}", lambda value: first.holds(value) or second.holds(value))


_NONE = Range("null", lambda value: value is None)
YES_OR_NO = Range("true or false", lambda value: isinstance(value, bool))
_ACTIVATION = Range(
    "the name of an activation, such as quick_gelu", lambda value: isinstance(value, str) and value in ACT2FN
)
WORDS_BY_WORD = Range(
    "null or a table from word to word",
    lambda value: (
        value is None
        or (isinstance(value, Mapping) and all(isinstance(word, str) for pair in value.items() for word in pair))
    ),
)
_TABLE = Range("a table", lambda value: isinstance(value, Mapping))
_WIDTH = _whole(1, 65_536)
_LAYERS = _whole(1, 256)
_HEADS = _whole(1, 1024)
_SIDE = _whole(1, 16_384)
_SHARE = _number(0, 1)
_TOKEN = _whole(-1, 10_000_000)
_STEP = _number(0, 1000)

_TOWER = {
    "hidden_size": _WIDTH,
    "intermediate_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "hidden_act": _ACTIVATION,
    "layer_norm_eps": _SHARE,
    "attention_dropout": _SHARE,
    "initializer_range": _STEP,
    "initializer_factor": _STEP,
}
TEXT = {
    **_TOWER,
    "vocab_size": _whole(1, 10_000_000),
    "max_position_embeddings": _whole(1, 65_536),
    "pad_token_id": _or(_TOKEN, _NONE),
    "bos_token_id": _or(_TOKEN, _NONE),
    "eos_token_id": _TOKEN,
}
VISION = {**_TOWER, "num_channels": _whole(3, 3), "image_size": _SIDE, "patch_size": _whole(4, 1024)}
CLIPSEG = {
    "text_config": _or(_TABLE, _NONE),
    "vision_config": _or(_TABLE, _NONE),
    "projection_dim": _WIDTH,
    "logit_scale_init_value": _number(-1000, 1000),
    "initializer_factor": _STEP,
    "extract_layers": _list(None, _whole(-1, 255)),
    "reduce_dim": _WIDTH,
    "decoder_num_attention_heads": _HEADS,
    "decoder_attention_dropout": _SHARE,
    "decoder_hidden_act": _ACTIVATION,
    "decoder_intermediate_size": _WIDTH,
    "conditional_layer": _whole(-256, 255),
    "use_complex_transposed_convolution": YES_OR_NO,
}
"""The fields of `transformers.CLIPSegConfig`; TEXT and VISION are those of its two towers."""
TOWERS = {
    **CLIPSEG,
    "image_size": _or(_SIDE, _list(2, _SIDE)),
    "visual_adapter_ratio": _SHARE,
    "image_mean": _list(3, _number(-1000, 1000)),
    "image_std": _list(3, _number(1e-6, 1000)),
}
"""The fields of `models.clipseg_config.CLIPSegTowersConfig`."""


def known_values(values: Mapping[str, Any], table: Mapping[str, Range] = TOWERS) -> dict[str, Any]:
    """Return the entries of a configuration file that are in `table`, and of its towers those in TEXT and VISION.

    Other entries (the library's version, label names, options of other tools) change nothing in the model.
    """
    known = {key: value for key, value in values.items() if key in table}
    for key, fields in (("text_config", TEXT), ("vision_config", VISION)):
        tower, older = known.get(key), values.get(f"{key}_dict")  # old files of CLIPSeg have both; the second wins
        if isinstance(older, Mapping):
            tower = {**(tower if isinstance(tower, Mapping) else {}), **older}
        if isinstance(tower, Mapping):
            known[key] = {name: value for name, value in tower.items() if name in fields}
    return known


def check_values(values: Mapping[str, Any], table: Mapping[str, Range] = TOWERS) -> None:
    """Raise `PartCLIPSegError` that lists the values out of range, and their ranges.

    `values` are the fields of a configuration, the towers as dictionaries or None; absent fields are not looked at.
    """
    wrong = _wrong(values, table, "")
    for key, fields in (("text_config", TEXT), ("vision_config", VISION)):
        if isinstance(values.get(key), Mapping):
            wrong += _wrong(values[key], fields, f"{key}.")
    if wrong := wrong or _mismatches(values):
        raise PartCLIPSegError(f"the configuration cannot be used: {'; '.join(wrong[:5])}")


def _wrong(values: Mapping[str, Any], table: Mapping[str, Range], prefix: str) -> list[str]:
    return [
        f"{prefix}{name} must be {allowed.text}, not {_short(values[name])}"
        for name, allowed in table.items()
        if name in values and not allowed.holds(values[name])
    ]


def _mismatches(values: Mapping[str, Any]) -> list[str]:
    """Return the towers' sizes that do not divide each other."""
    wrong: list[str] = []
    for key in ("text_config", "vision_config"):
        tower = values.get(key) or {}
        width, heads = tower.get("hidden_size"), tower.get("num_attention_heads")
        if width and heads and width % heads:
            wrong.append(f"{key}.hidden_size {width} must be a multiple of num_attention_heads {heads}")
    vision = values.get("vision_config") or {}
    image, patch = vision.get("image_size"), vision.get("patch_size")
    if image and patch and image < patch:
        wrong.append(f"vision_config.image_size {image} must be at least patch_size {patch}")
    return wrong


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"a list of {len(value)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
