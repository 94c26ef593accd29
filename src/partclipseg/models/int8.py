"""Linear layers whose products are computed in int8, on x86 CPUs with VNNI instructions.

Weights are rounded once, each output channel with a scale of its own. Activations are rounded at each call by their
greatest magnitude, so no calibration data is needed. Sums are exact, in int32, and results are float32. All else of
the model stays float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from partclipseg.errors import UsageError

_ONEDNN: Any = torch.ops.onednn
_TINY = 1e-12
"""Minimum scale, so that zeros are not divided by zero."""
_QUICK_GELU = 1.702
_ZERO = 128
"""Zero point of activations, which are uint8: oneDNN has no fast product of two signed operands without AMX."""


class Int8Linear(nn.Module):
    """Linear layer with int8 weights, for inference."""

    weight: Tensor
    """int8 `[N, K]`."""
    scale: Tensor
    """float32 `[N]`: value of one step of each row of `weight`."""
    bias: Tensor | None
    """float32 `[N]`."""
    norm: Tensor
    """float32 `[N]`: Euclidean norm of each row of the weights."""

    def __init__(self, linear: nn.Linear) -> None:
        """Round the weights of `linear`, which is on the CPU."""
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1) / 127).clamp_min(_TINY)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self.register_buffer("norm", weight.norm(dim=1), persistent=False)
        self._pack()

    def _pack(self) -> None:
        """Copy the weights to the layout of oneDNN's product."""
        self._packed = _ONEDNN.qlinear_prepack(self.weight, None)
        self._zeros = torch.zeros(len(self.weight), dtype=torch.int32)

    # The packed weights can be neither copied nor pickled.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pack()

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., K]`, float32, to `[..., N]`; each row (token) is rounded with a scale of its own."""
        rows = x.reshape(-1, x.shape[-1])
        # Two reductions: `aminmax` and the maximum norm along a dimension are many times slower.
        step = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True)).clamp_min_(_TINY) / 127
        result = self.product(to_uint8(rows, 1 / step), 1.0, _ZERO)
        result = result.mul_(step) if self.bias is None else torch.addcmul(self.bias, result, step, out=result)
        return result.unflatten(0, x.shape[:-1])

    def product(
        self,
        rows: Tensor,
        step: float,
        zero: int,
        bias: Tensor | None = None,
        relu_step: float | None = None,
    ) -> Tensor:
        """Multiply `rows`, uint8 `[M, K]` that mean `step · (rows - zero)`, by the weights; add `bias`.

        Returns float32 `[M, N]`; with `relu_step` the ReLU of it, uint8 in steps of this size.
        """
        form = (1.0, 0, torch.float32, "none") if relu_step is None else (relu_step, 0, torch.uint8, "relu")
        return _ONEDNN.qlinear_pointwise(
            rows, step, zero, self._packed, self.scale, self._zeros, bias, *form, [], ""
        )

    def bound(self, rows: Tensor) -> float:
        """Return an upper bound of the results for `rows [M, K]`, by the Cauchy-Schwarz inequality."""
        longest = rows.square().sum(1).max().sqrt()
        norms = self.norm * longest
        return float((norms if self.bias is None else norms + self.bias).max())


def to_uint8(x: Tensor, steps: Tensor | float) -> Tensor:
    """Round `x · steps`, within ±127, to uint8 with zero point 128."""
    return torch.mul(x, steps).add_(_ZERO + 0.5).to(torch.uint8)  # a conversion cuts off: adding a half rounds


def int8_mlp(x: Tensor, expand: Int8Linear, contract: Int8Linear) -> Tensor:
    """Apply two layers with a ReLU between them to `x [M, C]`, float32; the hidden values are uint8 alone.

    The step of the hidden values follows from a bound, as their maximum is not known before they are rounded.
    """
    step = max(float(x.max()), -float(x.min()), _TINY) / 127
    hidden_step = max(expand.bound(x), _TINY) / 255
    hidden = expand.product(to_uint8(x, 1 / step), step, _ZERO, expand.bias, hidden_step)
    return contract.product(hidden, hidden_step, 0, contract.bias)


def one_pass_gelu(before: Int8Linear, after: Int8Linear) -> nn.Module:
    """Return what computes CLIP's GELU, `x · sigmoid(1.702 x)`, between two layers in one pass.

    It is `SiLU(1.702 x) / 1.702`; both factors go to the scales of the layers.
    """
    for factors in (before.scale, before.norm, before.bias):
        if factors is not None:
            factors *= _QUICK_GELU
    for factors in (after.scale, after.norm):
        factors /= _QUICK_GELU
    return nn.SiLU(inplace=True)


def quantise(module: nn.Module, *names: str) -> None:
    """Replace the linear layers of a module by `Int8Linear`: those of these names, or all."""
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear and (not names or name in names):
            setattr(module, name, Int8Linear(child))
        else:
            quantise(child, *names)


def check_int8(device: torch.device) -> None:
    """Raise `UsageError` unless int8 products are exact and fast on `device`."""
    if device.type != "cpu":
        raise UsageError(f"int8 is for CPUs, and the device is {device}: use bfloat16 there, or give --device cpu")
    if not _has_products():
        raise UsageError(
            "int8 needs an x86 CPU with VNNI instructions (Intel since 2019, AMD since 2022), and PyTorch with oneDNN: "
            "use float32 here"
        )


def _has_products() -> bool:
    """Whether a product of the greatest values is exact; without VNNI sums of two products overflow 16 bits."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False  # other CPUs compute it without instructions for it, hundreds of times slower
    linear = nn.Linear(64, 16, bias=False)
    nn.init.ones_(linear.weight)
    try:
        found = Int8Linear(linear).product(torch.full((16, 64), 255, dtype=torch.uint8), 1.0, 0)
    except (RuntimeError, AttributeError, NotImplementedError):  # a PyTorch without these products
        return False
    return bool(torch.allclose(found, torch.full_like(found, 64 * 255)))
