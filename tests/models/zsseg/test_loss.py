"""The training loss of ZSSeg+ beside the released code's, transformers' and scipy's."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.zsseg.test_golden import Golden, folder, golden, ids_of  # noqa: F401  fixtures

from partclipseg.losses.config import SetLossConfig
from partclipseg.losses.matching import assign
from partclipseg.models.interface import Words
from partclipseg.models.zsseg.foreign import place_of
from partclipseg.models.zsseg.loss import ZSSegLoss
from partclipseg.models.zsseg.settings import ZSSegSettings
from partclipseg.vocabulary import Vocabulary


@settings(max_examples=60, deadline=None)
@given(
    costs=st.tuples(st.integers(1, 4), st.integers(0, 2)).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(-5, 5), min_size=shape[0] + shape[1], max_size=shape[0] + shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        )
    )
)
def test_no_other_assignment_costs_less(costs: list[list[int]]) -> None:
    (found,) = assign(torch.tensor([costs], dtype=torch.float32)).tolist()
    assert len(set(found)) == len(costs)
    best = min(
        sum(row[column] for row, column in zip(costs, columns, strict=True))
        for columns in permutations(range(len(costs[0])), len(costs))
    )
    assert sum(row[column] for row, column in zip(costs, found, strict=True)) == best


def test_problems_are_solved_alone() -> None:
    costs = torch.randn(8, 7, 12, generator=torch.Generator().manual_seed(0))
    together = assign(costs)
    assert torch.equal(together, torch.cat([assign(one[None]) for one in costs]))
    scipy = pytest.importorskip("scipy.optimize")
    for one, columns in zip(costs, together, strict=True):
        assert columns.tolist() == scipy.linear_sum_assignment(one.numpy())[1].tolist()
    with pytest.raises(ValueError, match="7 rows cannot have one of 5 columns each"):
        assign(costs[..., :5])


def training_words(golden: Golden) -> Words:  # noqa: F811
    vocabulary = Vocabulary.from_names(golden.meta["train_vocabulary"])
    return Words.of(vocabulary, golden.tensors["train.text_features"][:-1])


def test_the_released_losses_and_gradients(golden: Golden) -> None:  # noqa: F811
    golden.model.zero_grad()
    meta, tensors, words = golden.meta, golden.tensors, training_words(golden)
    inputs = {"pixel_values": tensors["train.images"].float(), "object_masks": tensors["train.object_masks"]}
    labels = tensors["train.part_labels"].long()
    labels = torch.where(labels == 255, -1, labels)
    model = golden.model.train()
    model.trained_parameters(ZSSegSettings(loss=SetLossConfig(prompt_weight=0)))
    output = model(inputs, words)
    model.eval()
    torch.testing.assert_close(output.mask_logits[-1], tensors["train.mask_logits"], atol=5e-4, rtol=0)
    torch.testing.assert_close(output.class_logits[-1], tensors["train.class_logits"], atol=5e-3, rtol=0)
    loss = ZSSegLoss(SetLossConfig(prompt_weight=0), 12, 16)
    terms = loss(output, labels, labels)
    for ours, theirs in (("classes", "loss_ce"), ("focal", "loss_mask"), ("dice", "loss_dice")):
        expected = sum(value for name, value in meta["losses"].items() if name.startswith(theirs))
        assert terms[ours].item() == pytest.approx(expected, rel=1e-4)
    assert terms["total"].item() == pytest.approx(sum(meta["losses"].values()), rel=1e-4)
    terms["total"].backward()
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            place = place_of(name).name
            squares[place] = squares.get(place, 0.0) + float(parameter.grad.square().sum())
    assert squares.keys() == meta["gradient_norms"].keys()
    for name, expected in meta["gradient_norms"].items():
        assert math.sqrt(squares[name]) == pytest.approx(expected, rel=2e-3, abs=1e-4), name


def test_photos_without_a_part_and_absent_parts_do_not_count(golden: Golden) -> None:  # noqa: F811
    """A photo without labels adds nothing; and the shares of two micro-batches are the batch's."""
    words, tensors = training_words(golden), golden.tensors
    labels = torch.where(tensors["train.part_labels"] == 255, -1, tensors["train.part_labels"].long())
    labels[1] = -1
    model = golden.model.train()
    with torch.no_grad():
        inputs = {"pixel_values": tensors["train.images"].float(), "object_masks": tensors["train.object_masks"]}
        loss = ZSSegLoss(SetLossConfig(), 12, 16)
        whole = loss(model(inputs, words), labels, labels)
        rest = [0, 2]
        alone = loss(model({name: value[rest] for name, value in inputs.items()}, words), labels[rest], labels[rest])
        parts = [loss.counts(labels[i : i + 1], labels, words.class_to_object, (16, 16)) for i in range(3)]
        counts = type(parts[0])(*(sum(values) for values in zip(*parts, strict=True)))
        outputs = [model({name: value[i : i + 1] for name, value in inputs.items()}, words) for i in range(3)]
        shares = [loss(output, labels[i : i + 1], labels, counts=counts) for i, output in enumerate(outputs)]
    model.eval()
    for name, value in whole.items():
        torch.testing.assert_close(alone[name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sum(share[name] for share in shares), value, rtol=1e-4, atol=1e-5)
