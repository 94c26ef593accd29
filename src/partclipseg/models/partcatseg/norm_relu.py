"""Group norm and ReLU of the decoder's maps, which lie in memory with channels last.

PyTorch's kernel for a GPU copies such maps to the other order and back, and what the compiler makes of it walks through
them in that order. Compiled, each channel is summed first, then the channels of a group: rows of the memory as they
lie. A norm is a compiled layer of its own, since the compiler gives a convolution of changing size its input in the
other order if it makes both. Channels and edge of the maps are checked: so the compiler knows them as numbers, where it
would divide every index by symbols.

Letters in shapes: B photos, T classes, N = B·T, C channels, h and w edges, e edge of a coarse map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from partclipseg.maps.precision import full_precision


class NormReLU(nn.GroupNorm):
    """Normalises groups of 16 channels of square maps, then applies ReLU."""

    any_count = True
    """Whether the number of maps is a symbol from the compiled layer's first call on, see `compiled.compile_layers`."""

    def __init__(self, channels: int, edge: int) -> None:
        super().__init__(channels // 16, channels)
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [N, C, h, h]` to its own shape and order in memory, channels last."""
        require_maps(x, self.num_channels, self.edge)
        normal = self.by_channels(x) if torch.compiler.is_dynamo_compiling() else super().forward(x)
        return F.relu(normal.to(x.dtype))  # autocast has the norm in float32

    def by_channels(self, x: Tensor) -> Tensor:
        """Normalise `x [N, C, h, w]`, in float32 at least, by the sums of each channel; the result is as wide."""
        rows = full_precision(x.permute(0, 2, 3, 1).flatten(1, 2))  # [N, h·w, C]
        mean = self._group_means(rows.mean(1))  # [N, 1, C]
        if rows.dtype == x.dtype:
            variance = self._group_means((rows - mean).square().mean(1))
        else:
            # One pass over narrow numbers: what cancels in float32 is far below their own rounding.
            variance = (self._group_means(rows.square().mean(1)) - mean.square()).clamp(min=0)
        scale = torch.rsqrt(variance + self.eps) * full_precision(self.weight)
        normal = (rows - mean) * scale + full_precision(self.bias)
        return normal.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def _group_means(self, channels: Tensor) -> Tensor:
        """Average values of channels, `[N, C]`, over each group, and repeat the mean for its channels: `[N, 1, C]`."""
        groups = channels.unflatten(1, (self.num_groups, -1))
        return groups.mean(2, keepdim=True).expand_as(groups).flatten(1).unsqueeze(1)


class JoinedNormReLU(NormReLU):
    """Interleaves the phases of finer maps, adds what the classes of a photo share, then normalises as `NormReLU`."""

    def forward(self, phases: Tensor, shared: Tensor) -> Tensor:
        """Map `phases [N, 4·C, e + 1, e + 1]` and `shared [B, C, 2e, 2e]` to `[N, C, 2e, 2e]`, channels last."""
        require_maps(phases, 4 * self.num_channels, self.edge // 2 + 1)
        require_maps(shared, self.num_channels, self.edge)
        x = phases.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1)).transpose(2, 3)  # [N, e + 1, 2, e + 1, 2, C]
        x = x.flatten(3, 4).flatten(1, 2)[:, 1:-1, 1:-1]  # [N, 2e, 2e, C]
        x = x.unflatten(0, (shared.shape[0], -1)) + shared.permute(0, 2, 3, 1).unsqueeze(1)  # [B, T, 2e, 2e, C]
        return super().forward(x.flatten(0, 1).permute(0, 3, 1, 2))


def require_maps(maps: Tensor, channels: int, edge: int) -> None:
    """Raise `ValueError` unless `maps [N, C, h, w]` have that many channels, and are squares of that edge."""
    _, depth, height, width = maps.shape
    if depth != channels or height != edge or width != edge:
        raise ValueError(f"maps are {depth} x {height} x {width}, expected {channels} x {edge} x {edge}")
