"""Block of the decoder: maps of twice the resolution, guided by the photo, with channels last in memory.

Letters in shapes: B photos, T classes, C and C' channels before and after, E guidance channels, M = C - E, e edge.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from partclipseg.maps.precision import full_precision


class UpBlock(nn.Module):
    """Doubles the resolution, joins guidance, then convolves twice."""

    def __init__(self, width: int, guidance: int, out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width - guidance, 2, stride=2)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(out // 16, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(out // 16, out)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map `x [B·T, C, e, e]` and `guidance [B, E, 2e, 2e]` to `[B·T, C', 2e, 2e]`, in memory with channels last."""
        batch, edge = guidance.shape[0], 2 * x.shape[-1]
        # 1. Up-sampling and the first convolution: both are linear, so the coarse map passes through their product.
        x = F.conv2d(x, self.up_and_convolve(x), padding=1)  # [B·T, 4·C', e + 1, e + 1]
        x = x.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1)).transpose(2, 3)  # [B·T, e + 1, 2, e + 1, 2, C']
        x = x.flatten(3, 4).flatten(1, 2)[:, 1:-1, 1:-1]  # [B·T, 2e, 2e, C']
        # 2. What all classes of a photo share: guidance, and the up-sampling's bias, which ends at the map's border.
        up_bias: Any = self.up.bias
        bias = up_bias.view(1, -1, 1, 1).expand(batch, -1, edge, edge).to(guidance.dtype)
        shared = F.conv2d(torch.cat([bias, guidance], 1), self.conv1.weight, padding=1)  # [B, C', 2e, 2e]
        x = x.unflatten(0, (batch, -1)) + shared.permute(0, 2, 3, 1).unsqueeze(1)  # [B, T, 2e, 2e, C']
        # 3. The rest.
        x = F.relu(group_norm(self.norm1, x.flatten(0, 1).permute(0, 3, 1, 2)))  # [B·T, C', 2e, 2e]
        return F.relu(group_norm(self.norm2, self.conv2(x)))

    def up_and_convolve(self, like: Tensor) -> Tensor:
        """Return the weight of `up`, then `conv1` on what it makes, as one convolution: `[4·C', C, 2, 2]`.

        Each window of 2 x 2 places decides the 2 x 2 finer places in its middle, which are four times the channels. The
        weight is multiplied in float32 at least and has the type of `like`, or that of autocast.
        """
        with torch.autocast(like.device.type, enabled=False):
            own = self.conv1.weight[:, : self.up.out_channels]
            up, convolution = full_precision(self.up.weight), full_precision(own)  # [C, M, 2, 2], [C', M, 3, 3]
            # Row p of the finer places sees rows p to p + 2 of the four that two places become; columns likewise.
            seen = [F.pad(convolution, (q, 1 - q, p, 1 - p)) for p in (0, 1) for q in (0, 1)]
            taps = torch.stack(seen).unflatten(4, (2, 2)).unflatten(3, (2, 2))  # [4, C', M, 2, 2, 2, 2]
            weight = torch.einsum("fomaibj,cmij->focab", taps, up).flatten(0, 1)
        return weight.to(like.dtype)


def group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Apply `norm` to `x [N, C, h, w]` whose channels lie last in memory, and leave them there.

    PyTorch's own kernel on a GPU copies such maps to the other order, and the compiler would sum them in that order.
    """
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return norm(x).to(x.dtype)  # autocast has it in float32
    groups = full_precision(x.permute(0, 2, 3, 1)).unflatten(-1, (norm.num_groups, -1))  # [N, h, w, groups, c]
    variance, mean = torch.var_mean(groups, (1, 2, 4), correction=0, keepdim=True)
    normal = ((groups - mean) * torch.rsqrt(variance + norm.eps)).flatten(3)
    return (normal * norm.weight + norm.bias).to(x.dtype).permute(0, 3, 1, 2)
