"""Resizing of logits whose gradient is a product equals PyTorch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from partclipseg.losses.resize import resize_by_products, resize_logits

EDGE = st.integers(1, 20)


@settings(max_examples=40, deadline=None)
@given(EDGE, EDGE, EDGE, EDGE)
def test_values_and_gradients_are_pytorch_s(height: int, width: int, rows: int, columns: int) -> None:
    """Enlarged, reduced, one axis each, and a single row."""
    generator = torch.Generator().manual_seed(height + 20 * width)
    logits = torch.randn(2, 3, height, width, generator=generator, requires_grad=True)
    found = resize_by_products(logits, (rows, columns))
    expected = F.interpolate(logits, (rows, columns), mode="bilinear", align_corners=False)
    assert torch.equal(found, expected)
    assert torch.equal(resize_logits(logits, (rows, columns)), expected)
    weights = torch.randn(found.shape, generator=generator)
    [ours], [theirs] = (torch.autograd.grad((value * weights).sum(), logits) for value in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_gradients_keep_the_type(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 6, 6, dtype=dtype, requires_grad=True)
    resize_by_products(logits, (24, 24)).square().sum().backward()
    exact = logits.detach().double().requires_grad_()
    F.interpolate(exact, (24, 24), mode="bilinear", align_corners=False).square().sum().backward()
    assert logits.grad is not None
    assert exact.grad is not None
    assert logits.grad.dtype == dtype
    close = 0.05 if dtype == torch.bfloat16 else 1e-12  # bfloat16 has 8 bits
    torch.testing.assert_close(logits.grad.double(), exact.grad, atol=close * float(exact.grad.abs().max()), rtol=close)
