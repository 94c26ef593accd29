"""Parts of the forward pass that are computed again in the backward pass, since keeping their tensors costs more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def again(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call a function of the inputs, of which the inputs alone are kept while gradients are recorded.

    The backward pass calls it again; nothing in it may be random.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore
