"""The values that the towers of CLIP and a ResNet may have in a configuration file, and rules for lists."""

from __future__ import annotations

from partclipseg.models.clipseg_ranges import CLIPSEG, TEXT, VISION, YES_OR_NO, Rule

_WIDTH, _LAYERS = TEXT["hidden_size"], TEXT["num_hidden_layers"]


def or_null(rule: Rule) -> Rule:
    """Return the rule, or null."""
    return Rule(f"{rule.text} or null", lambda value: value is None or rule.holds(value))


def list_of(rule: Rule, most: int) -> Rule:
    """Return a rule for lists of at most `most` entries that the rule holds for."""
    return Rule(
        f"a list, each {rule.text}",
        lambda value: isinstance(value, list | tuple) and len(value) <= most and all(map(rule.holds, value)),
    )


CLIP = {name: CLIPSEG[name] for name in ("text_config", "vision_config", "projection_dim", "initializer_factor")} | {
    "logit_scale_init_value": CLIPSEG["logit_scale_init_value"]
}

RESNET = {
    "num_channels": VISION["num_channels"],
    "embedding_size": _WIDTH,
    "hidden_sizes": list_of(Rule("a whole number from 4 to 65,536", lambda v: _WIDTH.holds(v) and v >= 4), 3),
    "depths": list_of(_LAYERS, 3),
    "layer_type": Rule("basic or bottleneck", lambda value: value in ("basic", "bottleneck")),
    "hidden_act": TEXT["hidden_act"],
    "downsample_in_first_stage": YES_OR_NO,
    "downsample_in_bottleneck": YES_OR_NO,
}
