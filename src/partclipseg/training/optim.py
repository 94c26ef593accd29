"""The published optimisation: AdamW, polynomial decay, and gradients that are sums over processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from partclipseg.errors import PartCLIPSegError

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trained parameters in two groups: decayed, and not (norms, embeddings, the background vector).

    Biases of linear layers are decayed, as in the published recipe. Raises `PartCLIPSegError` if nothing is
    trained.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in model.modules():
        exempt = isinstance(module, (*_NORMS, nn.Embedding)) or _holds_children(module)
        (free if exempt else decayed).extend(p for p in module.parameters(recurse=False) if p.requires_grad)
    if not decayed and not free:
        raise PartCLIPSegError("every parameter of the model is frozen: there is nothing to train")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _holds_children(module: nn.Module) -> bool:
    """Whether a module has submodules; its own parameters are then learned vectors, not a weight matrix."""
    return next(module.children(), None) is not None


def build_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Build AdamW over `parameter_groups`, in one fused kernel on a GPU."""
    groups = parameter_groups(model, weight_decay)
    on_gpu = groups[0]["params"][0].is_cuda
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True if on_gpu else None)


def polynomial_decay(step: int, steps: int, power: float = 0.9, warmup_steps: int = 0) -> float:
    """Return the learning rate factor at `step` (from 0): ``(1 - step / steps) ** power``, after a linear rise.

    It depends on the step alone, so that there is no scheduler state to save.
    """
    warmup = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    return warmup * (1 - step / steps) ** power


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


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


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`; returns the norm before, a scalar."""
    return nn.utils.clip_grad_norm_(parameters, max_norm)
