"""The reference's own losses, for its own training outputs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.losses.config import LossConfig
from partclipseg.models.partclipseg.loss import PartLoss

REFERENCE = LossConfig(attention_control="reference", outside="background")
# Both sides compute in float32; sums over 1e5 elements in another order differ by about 1e-6 of the value.
RELATIVE = 1e-5


def test_every_term(golden: SimpleNamespace) -> None:
    terms = PartLoss(REFERENCE)(golden.output, *golden.labels)
    expected = {
        "object_part": golden.loss["part_object"],
        "object": golden.loss["part_object_plus_object"] - golden.loss["part_object"],
        "part": golden.loss["part_object_plus_part"] - golden.loss["part_object"],
        "separation": golden.loss["separation"],
        "enhancement": golden.loss["enhancement"],
        "total": golden.loss["total"],
    }
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=RELATIVE)


def test_without_attention(golden: SimpleNamespace) -> None:
    config = replace(REFERENCE, attention_control="off")
    terms = PartLoss(config)(replace_attention(golden, None), *golden.labels[:4])
    assert terms["total"].item() == pytest.approx(golden.loss["total_without_attention"], rel=RELATIVE)
    assert terms["separation"] == terms["enhancement"] == 0


def test_outside_as_background_is_the_reference(golden: SimpleNamespace) -> None:
    parts, objects, *rest = golden.labels
    relabelled = torch.where(objects == UNLABELLED, OUTSIDE, objects)
    terms = PartLoss(REFERENCE)(golden.output, parts, relabelled, *rest)
    assert terms["total"].item() == pytest.approx(golden.loss["total"], rel=RELATIVE)


def test_only_the_intended_separation_has_a_gradient(golden: SimpleNamespace) -> None:
    attention = golden.output.attention.clone().requires_grad_()
    output = replace_attention(golden, attention)
    terms = PartLoss(REFERENCE)(output, *golden.labels)
    assert not terms["separation"].requires_grad
    assert terms["enhancement"].requires_grad

    terms = PartLoss()(output, *golden.labels)
    (gradient,) = torch.autograd.grad(terms["separation"], attention)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def replace_attention(golden: SimpleNamespace, attention: torch.Tensor | None) -> object:
    output = golden.output
    return type(output)(output.object_part_logits, output.object_logits, output.part_logits, attention)
