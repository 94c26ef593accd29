"""The values that the towers of CLIP and a ResNet may have in a configuration file, and ranges of lists."""

from __future__ import annotations

from partclipseg.models.clipseg_ranges import CLIPSEG, TEXT, VISION, YES_OR_NO, Range

_WIDTH, _LAYERS = TEXT["hidden_size"], TEXT["num_hidden_layers"]


def or_null(allowed: Range) -> Range:
    """Return the range, with null allowed."""
    return Range(f"{allowed.text} or null", lambda value: value is None or allowed.holds(value))


def list_of(allowed: Range, most: int) -> Range:
    """Return the range of lists of at most `most` entries, each in the given range."""
    return Range(
        f"a list, each {allowed.text}",
        lambda value: isinstance(value, list | tuple) and len(value) <= most and all(map(allowed.holds, value)),
    )


CLIP = {name: CLIPSEG[name] for name in ("text_config", "vision_config", "projection_dim", "initializer_factor")} | {
    "logit_scale_init_value": CLIPSEG["logit_scale_init_value"]
}

RESNET = {
    "num_channels": VISION["num_channels"],
    "embedding_size": _WIDTH,
    "hidden_sizes": list_of(Range("a whole number from 4 to 65,536", lambda v: _WIDTH.holds(v) and v >= 4), 3),
    "depths": list_of(_LAYERS, 3),
    "layer_type": Range("basic or bottleneck", lambda value: value in ("basic", "bottleneck")),
    "hidden_act": TEXT["hidden_act"],
    "downsample_in_first_stage": YES_OR_NO,
    "downsample_in_bottleneck": YES_OR_NO,
}
