"""The published optimisation: AdamW, polynomial or cosine decay, and gradients that are sums over processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.interface import PartModel


def build_optimizer(model: PartModel, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Build AdamW over the model's own `parameter_groups`, with one fused kernel on a GPU.

    A group keeps its share of the learning rate, see `set_learning_rate`. Raises `PartCLIPSegError` if nothing is
    trained.
    """
    groups = [
        {**group, "share": group.get("lr", learning_rate) / learning_rate}
        for group in model.parameter_groups(learning_rate, weight_decay)
        if group["params"]
    ]
    if not groups:
        raise PartCLIPSegError("every parameter of the model is frozen: let some of them be trained")
    on_gpu = groups[0]["params"][0].is_cuda
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True if on_gpu else None)


def polynomial_decay(step: int, steps: int, power: float = 0.9, warmup_steps: int = 0) -> float:
    """Return the learning rate factor at `step` (from 0): ``(1 - step / steps) ** power``, after a linear rise.

    It depends on the step alone, so that there is no scheduler state to save.
    """
    warmup = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    return warmup * (1 - step / steps) ** power


def cosine_decay(step: int, steps: int, warmup_steps: int = 0) -> float:
    """Return the learning rate factor at `step` (from 0): half a cosine from 1 to 0, after a linear rise."""
    warmup = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    return warmup * 0.5 * (1 + math.cos(math.pi * step / steps))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the next step; a group with a `share` takes this fraction of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("share", 1.0)


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter], world_size: int) -> None:
    """Replace every gradient by its sum over the processes; a parameter without one counts as zero.

    One flat exchange after the last micro-batch: the trained parameters are few (adapter, embeddings, decoder),
    and unlike `DistributedDataParallel` it does not mind a branch that a batch has no pixels for. The sum, not
    the mean, because each process's losses are its share of the step's.
    """
    if world_size == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for parameter, summed in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        parameter.grad.copy_(summed.view_as(parameter))  # in place: a captured step writes to this very tensor
