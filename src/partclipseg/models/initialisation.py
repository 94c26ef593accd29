"""Initial values of new layers."""

from __future__ import annotations

import torch
from torch import nn
from transformers import initialization as init


@torch.no_grad()
def init_as_torch(module: nn.Module) -> None:
    """Initialise a norm, linear layer or convolution as PyTorch does; transformers would take a deviation of 0.02.

    Layers of other kinds are left as they are. Loaded weights stay: transformers' functions pass over them.
    """
    if isinstance(module, nn.LayerNorm | nn.GroupNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        init.kaiming_uniform_(module.weight, a=5**0.5)  # of deviation 1/sqrt(3·fan_in)
        if module.bias is not None:
            init.zeros_(module.bias)


@torch.no_grad()
def init_unit_vector(vector: torch.Tensor) -> None:
    """Initialise `[1, D]` by a random vector, whose expected squared norm is 1."""
    init.normal_(vector, std=vector.shape[-1] ** -0.5)
