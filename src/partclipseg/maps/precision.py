"""Number type of sums and exponentials under mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Return `x` in float32, or in its own type where that is wider; the shape stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
