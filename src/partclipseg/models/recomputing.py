"""Parts of the forward pass that are computed again in the backward pass, since keeping their tensors costs more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

RECOMPUTED_ROWS = 64
"""Number of rows that `recomputed_by_rows` passes at a time: at PartCLIPSeg's released size 128 MB of a hidden layer in
bfloat16, of which the backward pass needs three, and enough to keep a GPU busy."""


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call a function of the inputs, of which the inputs alone are kept while gradients are recorded.

    The backward pass calls it again; nothing in it may be random.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    # A CUDA graph could not save the generator's state.
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore


def recomputed_by_rows(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call a function as `recomputed` does, with some rows of the inputs at a time, and concatenate the results.

    Gradients of weights are sums over rows, here summed piece by piece: equal up to rounding.
    """
    pieces = zip(*(x.split(RECOMPUTED_ROWS) for x in inputs), strict=True)
    return torch.cat([recomputed(function, *some) for some in pieces])
