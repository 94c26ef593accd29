"""Trained parameters of a model, and their groups for AdamW as methods on detectron2's recipes publish them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

_UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def groups_with_slow_tower(
    model: nn.Module, tower: Collection[nn.Parameter], slower: float, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trained parameters of a model: norms and embeddings without decay, a tower at a smaller rate.

    Args:
        model: the model.
        tower: parameters that learn more slowly.
        slower: number by which their learning rate is divided.
        learning_rate, weight_decay: those of the run.
    """
    undecayed = {
        parameter
        for module in model.modules()
        if isinstance(module, _UNDECAYED)
        for parameter in module.parameters(recurse=False)
    }
    slow_ones = set(tower)
    return [
        {"params": params, "lr": rate, "weight_decay": decay}
        for slow, rate in ((True, learning_rate / slower), (False, learning_rate))
        for plain, decay in ((False, weight_decay), (True, 0.0))
        if (params := [p for p in trained(model) if (p in slow_ones) == slow and (p in undecayed) == plain])
    ]
