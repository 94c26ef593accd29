"""Block of the decoder: maps of twice the resolution, guided by the photo, with channels last in memory.

Letters in shapes: B photos, T classes, C and C' channels before and after, E guidance channels, M = C - E, e edge.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from partclipseg.maps.precision import full_precision
from partclipseg.models.partcatseg.norm_relu import JoinedNormReLU, NormReLU


class UpBlock(nn.Module):
    """Doubles the resolution, joins guidance, then convolves twice."""

    def __init__(self, width: int, guidance: int, out: int, edge: int) -> None:
        """Make the block; `edge` is that of the maps it returns, 2e."""
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width - guidance, 2, stride=2)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1, bias=False)
        self.norm1 = JoinedNormReLU(out, edge)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = NormReLU(out, edge)
        self.product = PhasesOfProduct()

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map `x [B·T, C, e, e]` and `guidance [B, E, 2e, 2e]` to `[B·T, C', 2e, 2e]`, in memory with channels last."""
        batch, edge = guidance.shape[0], 2 * x.shape[-1]
        # 1. Up-sampling and the first convolution: both are linear, so the coarse map passes through their product.
        weight = self.product(self.up.weight, self.conv1.weight)  # [4·C', C, 2, 2]
        phases = F.conv2d(x, weight, padding=1)  # [B·T, 4·C', e + 1, e + 1]
        # 2. What all classes of a photo share: guidance, and the up-sampling's bias, which ends at the map's border.
        up_bias: Any = self.up.bias
        bias = up_bias.view(1, -1, 1, 1).expand(batch, -1, edge, edge).to(guidance.dtype)
        shared = F.conv2d(torch.cat([bias, guidance], 1), self.conv1.weight, padding=1)  # [B, C', 2e, 2e]
        # 3. The finer maps of both, and the second convolution.
        return self.norm2(self.conv2(self.norm1(phases, shared)))  # [B·T, C', 2e, 2e]


class PhasesOfProduct(nn.Module):
    """Multiplies the weights of an up-sampling and of the convolution of its result: one convolution of coarse maps.

    Each window of 2 x 2 coarse places decides the 2 x 2 finer places in its middle, the four phases.
    """

    def forward(self, up: Tensor, convolution: Tensor) -> Tensor:
        """Return the weight `[4·C', C, 2, 2]` of `up [C, M, 2, 2]` and `convolution [C', M + E, 3, 3]`.

        It is multiplied in float32 at least and has the type of the weights.
        """
        with torch.autocast(up.device.type, enabled=False):
            first, second = full_precision(up), full_precision(convolution[:, : up.shape[1]])
            # Row p of the finer places sees rows p to p + 2 of the four that two places become; columns likewise.
            seen = [F.pad(second, (q, 1 - q, p, 1 - p)) for p in (0, 1) for q in (0, 1)]
            taps = torch.stack(seen).unflatten(4, (2, 2)).unflatten(3, (2, 2))  # [4, C', M, 2, 2, 2, 2]
            return torch.einsum("fomaibj,cmij->focab", taps, first).flatten(0, 1).to(up.dtype)
