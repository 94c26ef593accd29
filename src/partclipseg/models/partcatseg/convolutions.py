"""Two convolutions of the aggregation whose kernels on a GPU are slow, written as matrix products there.

Letters in shapes: N maps, P and C channels before and after, h and w edges, k edge of the kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from partclipseg.maps.precision import full_precision
from partclipseg.models.partcatseg.norm_relu import require_maps

_COLUMNS = 16
"""Number of columns of the product of `OneChannelConv2d`: its 9 taps, filled up for tensor cores."""


class OneChannelConv2d(nn.Conv2d):
    """Convolves square maps to a single channel by a kernel of 3 x 3."""

    any_count = True
    """Whether the number of maps is a symbol from the compiled layer's first call on, see `compiled.compile_layers`."""

    def __init__(self, channels: int, edge: int) -> None:
        super().__init__(channels, 1, 3, padding=1)
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [N, C, h, h]` to `[N, 1, h, h]`."""
        require_maps(x, self.in_channels, self.edge)
        return self.by_taps(x) if torch.compiler.is_dynamo_compiling() else super().forward(x)

    def by_taps(self, x: Tensor) -> Tensor:
        """Compute what `forward` does as one product of all taps and the sum of the nine, each shifted to its place.

        A convolution to one channel does not use tensor cores, nor does its gradient. A product for each map keeps the
        gradient of the weight, a sum over all places, parallel over the maps.
        """
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, h·w, C]
        weight = F.pad(self.weight[0].flatten(1), (0, _COLUMNS - 9)).expand(x.shape[0], -1, -1)  # [N, C, 16]
        taps = torch.bmm(rows, weight).unflatten(1, x.shape[2:])  # [N, h, w, 16]
        padded = F.pad(taps, (0, 0, 1, 1, 1, 1))
        height, width = x.shape[2:]
        shifted = [
            full_precision(padded[:, i : i + height, j : j + width, 3 * i + j]) for i in range(3) for j in range(3)
        ]
        total = sum(shifted[1:], shifted[0])
        if self.bias is not None:
            total = total + full_precision(self.bias)
        return total.to(taps.dtype).unsqueeze(1)


class WideKernelConv2d(nn.Conv2d):
    """Convolves maps by a wide kernel of odd edge, which leaves their size."""

    def __init__(self, before: int, after: int, edge: int) -> None:
        super().__init__(before, after, edge, padding=edge // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [N, P, h, w]` to `[N, C, h, w]`."""
        if x.is_cuda and torch.is_grad_enabled() and self.weight.requires_grad and self.bias is not None:
            return convolve(x, self.weight, self.bias)
        return super().forward(x)


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve `x [N, P, h, w]` by `weight [C, P, k, k]` of odd k, `bias [C]`, to `[N, C, h, w]`.

    The gradient of the weight is computed by `weight_gradient`: cuDNN's takes a tenth of a training step.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x, weight, bias = (some.to(torch.get_autocast_dtype(kind)) for some in (x, weight, bias))
    with torch.autocast(kind, enabled=False):
        result: Any = _Convolution.apply(x, weight, bias)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        padding, edge = [weight.shape[-1] // 2] * 2, weight.shape[-1]
        rest: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            gradient, x, weight, [len(weight)], [1, 1], padding, [1, 1], False, [0, 0], 1, [of_x, False, of_bias]
        )
        return (
            rest[0] if of_x else None,
            weight_gradient(x, gradient, edge) if of_weight else None,
            rest[2] if of_bias else None,
        )


def weight_gradient(x: Tensor, gradient: Tensor, edge: int) -> Tensor:
    """Compute the gradient `[C, P, k, k]` of the weight from `x [N, P, h, w]` and that of the result `[N, C, h, w]`.

    Both are laid out as rows, one for each place of the padded maps, all maps after one another. A tap of the kernel
    looks at the row a fixed number of rows further, so it is a product of two pieces of these rows. Rows that belong
    to no place of the result are zero.
    """
    reach = edge - 1
    near = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[reach // 2] * 4))  # [N, h + k - 1, w + k - 1, P]
    far = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, reach, 0, reach))  # [N, h + k - 1, w + k - 1, C]
    width, channels = near.shape[2], x.shape[1]
    near, far = near.flatten(0, 2), far.flatten(0, 2)
    # The taps of a row of the kernel side by side: one product for each row of the kernel.
    count = len(near) - reach
    beside = torch.cat([near[tap : tap + count] for tap in range(edge)], 1)  # [rows, k·P]
    count -= reach * width
    far = far[:count].t()
    taps = torch.stack([far @ beside[row * width : row * width + count] for row in range(edge)], 1)  # [C, k, k·P]
    return taps.unflatten(2, (edge, channels)).permute(0, 3, 1, 2)
