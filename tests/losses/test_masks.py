"""Cross-entropy terms against a written-out one-hot computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.losses.classes import ClassLoss
from partclipseg.losses.config import LossConfig
from partclipseg.losses.labels import downsample_labels, shown, token_grid
from partclipseg.models.interface import PartOutput
from partclipseg.models.partclipseg.loss import PartLoss

CLASS_TO_PART = torch.tensor([0, 1, 0, 2])
CLASS_TO_OBJECT = torch.tensor([0, 0, 1, 1])
CLASSES, PARTS, OBJECTS = 4, 3, 2


def make(seed: int, size: tuple[int, int] = (8, 12), photos: int = 2) -> tuple[PartOutput, Tensor, Tensor]:
    """Random logits, and label maps with every kind of pixel, a part on an unlabelled object among them."""
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(photos, n, *size, generator=generator) * 3 for n in (CLASSES + 1, OBJECTS + 1, PARTS)]
    objects = torch.randint(-2, OBJECTS, (photos, *size), generator=generator)
    parts = torch.randint(-1, CLASSES, (photos, *size), generator=generator)
    return PartOutput(*logits), parts, objects


def one_hot_mean(logits: Tensor, targets: list[tuple[Tensor, Tensor]], pixels: Tensor, background: Tensor | None):
    """BCE with a full target tensor; `targets` are (index map, where it holds); background is weighted 0.05."""
    channels = logits.shape[1]
    target = torch.zeros_like(logits)
    for index, where in targets:
        target += F.one_hot(index.clamp(min=0), channels).permute(0, 3, 1, 2) * where.unsqueeze(1)
    weight = torch.ones(channels)
    if background is not None:
        target[:, -1] = background.float()
        weight[-1] = 0.05
    chosen, wanted = logits.permute(0, 2, 3, 1)[pixels], target.permute(0, 2, 3, 1)[pixels]
    return F.binary_cross_entropy_with_logits(chosen, wanted, weight) if pixels.any() else torch.zeros(())


def expected_terms(output: PartOutput, parts: Tensor, objects: Tensor, outside: str) -> dict[str, Tensor]:
    counted = (objects != OUTSIDE) | torch.tensor(outside == "background")
    labelled, on_object = (parts >= 0) & counted, objects >= 0
    background = ~on_object & counted
    y, o, p = output.object_part_logits, output.object_logits, output.part_logits
    assert y is not None
    assert o is not None
    assert p is not None
    object_part = one_hot_mean(y, [(parts, labelled)], labelled, background)
    if on_object.any():
        object_part = object_part + one_hot_mean(y, [(parts, labelled)], background, background)
    return {
        "object_part": object_part,
        "object": one_hot_mean(o, [(objects, on_object)], counted, background),
        "part": one_hot_mean(p, [(CLASS_TO_PART[parts.clamp(min=0)], labelled)], labelled, None),
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), outside=st.sampled_from(["ignore", "background"]))
def test_terms_equal_one_hot(seed: int, outside: str) -> None:
    output, parts, objects = make(seed)
    config = LossConfig(attention_control="off", outside=outside)  # type: ignore[arg-type]
    terms = PartLoss(config)(output, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    for name, value in expected_terms(output, parts, objects, outside).items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-6)  # float32 sums in another order
    torch.testing.assert_close(terms["total"], terms["object_part"] + terms["object"] + terms["part"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), outside=st.sampled_from(["ignore", "background"]))
def test_baseline_equals_one_hot(seed: int, outside: str) -> None:
    output, parts, objects = make(seed)
    counted = (objects != OUTSIDE) | torch.tensor(outside == "background")
    assert output.object_part_logits is not None
    expected = one_hot_mean(output.object_part_logits, [(parts, parts >= 0)], counted, parts < 0)
    terms = ClassLoss(LossConfig(outside=outside))(output, parts, objects)  # type: ignore[arg-type]
    torch.testing.assert_close(terms["total"], expected, rtol=1e-5, atol=1e-6)  # float32 sums in another order
    assert terms["object_part"] is terms["total"]


def test_gradient_equals_one_hot() -> None:
    output, parts, objects = make(3)
    logits = [output.object_part_logits, output.object_logits, output.part_logits]
    logits = [x.requires_grad_() for x in logits if x is not None]
    terms = PartLoss(LossConfig(attention_control="off"))(output, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    ours = torch.autograd.grad(terms["total"], logits)
    theirs = torch.autograd.grad(sum(expected_terms(output, parts, objects, "ignore").values()), logits)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)  # float32, one subtraction more


def test_outside_pixels_have_no_gradient_when_ignored() -> None:
    output, parts, objects = make(4)
    logits = [output.object_part_logits, output.object_logits, output.part_logits]
    logits = [x.requires_grad_() for x in logits if x is not None]
    for outside, silent in (("ignore", True), ("background", False)):
        config = LossConfig(attention_control="off", outside=outside)  # type: ignore[arg-type]
        terms = PartLoss(config)(output, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
        gradients = torch.autograd.grad(terms["total"], logits)
        for gradient in gradients:
            assert (gradient.abs().amax(1)[objects == OUTSIDE].max() == 0) == silent
            assert gradient.abs().amax(1)[objects >= 0].max() > 0


@pytest.mark.parametrize(
    ("part", "object_", "zero"),
    [
        (UNLABELLED, UNLABELLED, {"object_part", "part"}),  # background only: no object, so no background term
        (UNLABELLED, OUTSIDE, {"object_part", "part", "object"}),
        (UNLABELLED, 0, {"object_part", "part"}),
        (0, 0, set()),
    ],
)
def test_empty_masks(part: int, object_: int, zero: set[str]) -> None:
    output, parts, objects = make(5)
    logits = [output.object_part_logits, output.object_logits, output.part_logits]
    logits = [x.requires_grad_() for x in logits if x is not None]
    terms = PartLoss(LossConfig(attention_control="off"))(
        output, torch.full_like(parts, part), torch.full_like(objects, object_), CLASS_TO_PART, CLASS_TO_OBJECT
    )
    assert {name for name in ("object_part", "object", "part") if terms[name] == 0} == zero
    for gradient in torch.autograd.grad(terms["total"], logits):
        assert gradient.isfinite().all()


def test_half_precision_logits_are_computed_in_float32() -> None:
    output, parts, objects = make(6)
    half = PartOutput(*(x.bfloat16() for x in output.to_tuple()))
    same_values = PartOutput(*(x.float() for x in half.to_tuple()))
    loss = PartLoss(LossConfig(attention_control="off"))
    ours = loss(half, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    exact = loss(same_values, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    assert ours["total"].dtype == torch.float32
    assert ours == exact


def test_gradients_of_half_precision_logits_are_rounded_once() -> None:
    output, parts, objects = make(6)
    loss = PartLoss(LossConfig(attention_control="off"))
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        logits = [x.bfloat16().to(dtype).requires_grad_() for x in output.to_tuple()]
        terms = loss(PartOutput(*logits), parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
        gradients.append(torch.autograd.grad(terms["total"], logits))
    for half, exact in zip(*gradients, strict=True):
        assert torch.equal(half, exact.bfloat16())


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_passes_give_the_same(device: str, dtype: torch.dtype) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    output, parts, objects = make(6, photos=3)
    labels = parts.to(device), objects.to(device), CLASS_TO_PART.to(device), CLASS_TO_OBJECT.to(device)
    found = []
    for compiled in (False, True):
        logits = [x.to(device, dtype).requires_grad_() for x in output.to_tuple()]
        total = PartLoss(LossConfig(attention_control="off"), compiled)(PartOutput(*logits), *labels)["total"]
        baseline = ClassLoss(compiled=compiled)(PartOutput(logits[0]), *labels)["total"]
        found.append([total, baseline, *torch.autograd.grad(total + baseline, logits)])
    for plain, ours in zip(*found, strict=True):
        # Sums in another order; of bfloat16 gradients, the last digit.
        torch.testing.assert_close(ours, plain, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-7)


def test_no_copy_of_the_logits_is_kept() -> None:
    output, parts, objects = make(6, size=(64, 64))
    logits = [x.bfloat16().requires_grad_() for x in output.to_tuple()]
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        PartLoss(LossConfig(attention_control="off"))(
            PartOutput(*logits), parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT
        )
    own = {x.untyped_storage().data_ptr() for x in logits}
    assert own <= {x.untyped_storage().data_ptr() for x in kept}
    assert all(x.ndim < 4 for x in kept if x.untyped_storage().data_ptr() not in own)


def test_large_logits_stay_finite() -> None:
    output, parts, objects = make(7)
    huge = PartOutput(*(x * 1e4 for x in output.to_tuple()))
    terms = PartLoss(LossConfig(attention_control="off"))(huge, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    assert terms["total"].isfinite()


def test_labels_of_any_size_and_type() -> None:
    output, parts, objects = make(8)
    enlarged = [labels.repeat_interleave(3, 1).repeat_interleave(3, 2).int() for labels in (parts, objects)]
    loss = PartLoss(LossConfig(attention_control="off"))
    small = loss(output, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    large = loss(output, *enlarged, CLASS_TO_PART, CLASS_TO_OBJECT)
    assert small == large


def test_a_resized_label_is_one_of_the_labels() -> None:
    labels = torch.tensor([[[-2, -1, 0], [7, 70_001, 65_535]]], dtype=torch.int32)
    assert downsample_labels(labels, (1, 2)).tolist() == [[[-2, -1]]]
    assert downsample_labels(labels, (4, 3)).unique().tolist() == [-2, -1, 0, 7, 65_535, 70_001]


def test_shown() -> None:
    labels = torch.tensor([[[-2, -1, 0]], [[2, 2, -1]]])
    np.testing.assert_array_equal(shown(labels, 3).int(), [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("tokens", "size", "grid"), [(36, (96, 96), (6, 6)), (8, (32, 64), (2, 4)), (3, (16, 48), (1, 3))]
)
def test_token_grid(tokens: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert token_grid(tokens, size) == grid


def test_token_grid_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="7 tokens"):
        token_grid(7, (32, 64))
