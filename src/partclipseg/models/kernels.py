"""Kernels for the decoder's layers: fewer passes over memory, same values up to rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear_relu(x: Tensor, linear: nn.Module) -> Tensor:
    """Apply a linear layer and ReLU, `[M, C]` to `[M, C']`; on a GPU as one product that writes the result once.

    The product reads the layer's weights and calls no hooks, so a layer that is not `nn.Linear` itself, such as an
    adapter in its place, is called as it is.
    """
    if not x.is_cuda or type(linear) is not nn.Linear:
        return F.relu(linear(x), inplace=True)
    inputs = x, linear.weight, linear.bias
    if torch.is_autocast_enabled(x.device.type):  # autocast does not know this product
        dtype = torch.get_autocast_dtype(x.device.type)
        inputs = (some.to(dtype) for some in inputs)
    return _relu_product(*inputs)


# An operator, not an `autograd.Function`: PyTorch 2.11 compiles the latter so that `recomputed` keeps its result.
@torch.library.custom_op(
    "partclipseg::relu_product", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def _relu_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    product: Any = torch._addmm_activation  # pyright: ignore[reportPrivateImportUsage]
    return product(bias, x, weight.t())


@_relu_product.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2], output)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, result = ctx.saved_tensors
    gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
    return gradient @ weight, gradient.t() @ x, gradient.sum(0)


_relu_product.register_autograd(_gradients, setup_context=_save)
