"""Trained parameters of a model, and their groups for AdamW."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

_UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def groups_by_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trained parameters of a model: norms, embeddings and free vectors without decay, and the rest with.

    Biases of linear layers are decayed, as PartCLIPSeg publishes it.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in model.modules():
        # A module with submodules has no matrix of its own; what it holds is a learned vector.
        exempt = isinstance(module, _UNDECAYED) or next(module.children(), None) is not None
        (free if exempt else decayed).extend(p for p in module.parameters(recurse=False) if p.requires_grad)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def groups_with_slow_tower(
    model: nn.Module, tower: Collection[nn.Parameter], slower: float, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trained parameters of a model: norms and embeddings without decay, a tower at a smaller rate.

    Methods on detectron2's recipes are published so.

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
