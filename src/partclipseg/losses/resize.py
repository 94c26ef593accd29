"""Bilinear resizing of logits, whose gradient is two matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[B, N, h, w]` to `size`, bilinear."""
    if logits.shape[-2:] == size:
        return logits
    if logits.is_cuda and logits.requires_grad:
        return resize_by_products(logits, size)
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def resize_by_products(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[B, N, h, w]` to `size`, bilinear; the gradient is computed by products of the weights of both axes.

    PyTorch's own on a GPU adds every pixel atomically to the four it comes from: ten times slower, in an order, and so
    with a sum, that differs from run to run.
    """
    result: Any = _Resized.apply(logits, size)
    return result


class _Resized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size = logits.shape[-2:]
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        down, across = (
            _weights(coarse, fine, gradient) for coarse, fine in zip(ctx.size, gradient.shape[-2:], strict=True)
        )
        rows = (gradient @ across).flatten(0, 1)  # [B·N, H, w]
        return torch.bmm(down.t().expand(len(rows), -1, -1), rows).unflatten(0, gradient.shape[:2]), None


def _weights(coarse: int, fine: int, like: Tensor) -> Tensor:
    """Return the weights `[fine, coarse]` that resize one axis."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    fines, coarses = (torch.arange(count, device=like.device, dtype=dtype) for count in (fine, coarse))
    place = ((fines + 0.5) * (coarse / fine) - 0.5).clamp(0, coarse - 1)  # beyond the border the border goes on
    return (1 - (place[:, None] - coarses).abs()).clamp(min=0).to(like.dtype)
