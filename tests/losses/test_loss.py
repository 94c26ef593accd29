"""Configuration, what the loss is called with, and a loss that is not finite."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from partclipseg.errors import UsageError
from partclipseg.losses.classes import ClassLoss
from partclipseg.losses.config import LossConfig
from partclipseg.losses.finite import NonFiniteLossError, check_finite
from partclipseg.losses.labels import present_pairs
from partclipseg.models.interface import PartOutput
from partclipseg.models.partclipseg.loss import PartLoss

CLASS_TO_PART, CLASS_TO_OBJECT = torch.tensor([0, 1]), torch.tensor([0, 0])


def output(attention: torch.Tensor | None = None) -> PartOutput:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(1, n, 8, 8, generator=generator) for n in (3, 2, 2)]
    return PartOutput(*logits, attention)


def labels() -> tuple[torch.Tensor, torch.Tensor]:
    parts = torch.full((1, 8, 8), -1)
    parts[:, :4, :4], parts[:, 4:, 4:] = 0, 1
    return parts, (parts >= 0).long() - 1


def attention_to_one_map() -> torch.Tensor:
    """Both parts attend to the same few places: both terms of attention control have a value."""
    logits = 2 * torch.randn(1, 1, 17, generator=torch.Generator().manual_seed(1))
    return logits.softmax(-1).expand(2, 17, 17)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("background_weight", -0.1),
        ("background_weight", 1.5),
        ("object_weight", float("nan")),
        ("part_weight", float("inf")),
        ("separation_weight", -1),
        ("enhancement_weight", -1),
        ("threshold", 1.0),
        ("threshold", -0.1),
        ("smoothing", 0.0),
        ("attention_control", "soft"),
        ("outside", "drop"),
    ],
)
def test_config_names_the_wrong_field(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        LossConfig(**{field: value})  # type: ignore[arg-type]


def test_total_is_the_weighted_sum() -> None:
    config = LossConfig(object_weight=2, part_weight=3, separation_weight=4, enhancement_weight=5)
    parts, objects = labels()
    pairs = present_pairs(parts, 2)
    attention = attention_to_one_map()
    terms = PartLoss(config)(output(attention), parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT, pairs)
    names = ("object_part", "object", "part", "separation", "enhancement")
    assert [*terms] == [*names, "total"]
    assert all(terms[name] > 0 for name in names)
    expected = sum(weight * terms[name] for weight, name in zip((1, 2, 3, 4, 5), names, strict=True))
    torch.testing.assert_close(terms["total"], expected)


@pytest.mark.parametrize("control", ["differentiable", "reference", "off"])
def test_nothing_waits_for_the_device(control: str) -> None:
    """Tensors without values raise on whatever a device would have to be asked for."""
    parts, objects = labels()
    pairs = present_pairs(parts, 2)
    with FakeTensorMode() as mode:
        fake = PartOutput(*(mode.from_tensor(x) for x in output(attention_to_one_map()).to_tuple()))
        arguments = [mode.from_tensor(x) for x in (parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT, pairs)]
        terms = PartLoss(LossConfig(attention_control=control))(fake, *arguments)  # type: ignore[arg-type]
        with pytest.raises(DataDependentOutputException):
            check_finite(terms)


def test_autocast_does_not_reach_the_attention_terms() -> None:
    parts, objects = labels()
    pairs = present_pairs(parts, 2)
    attention = attention_to_one_map()
    call = (output(attention), parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT, pairs)
    plain = PartLoss()(*call)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = PartLoss()(*call)
    assert plain == cast


@pytest.mark.parametrize("given", ["nothing", "attention", "pairs", "too few"])
def test_attention_control_without_attention(given: str) -> None:
    parts, objects = labels()
    pairs = present_pairs(parts, 2)
    attention = None if given in ("nothing", "pairs") else torch.ones(2 - (given == "too few"), 17, 17) / 17
    arguments = (output(attention), parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    with pytest.raises(ValueError, match="present_pairs"):
        PartLoss()(*arguments, None if given in ("nothing", "attention") else pairs)


def test_output_of_the_other_model() -> None:
    parts, objects = labels()
    baseline = PartOutput(object_part_logits=output().object_part_logits)
    with pytest.raises(ValueError, match="ClassLoss"):
        PartLoss()(baseline, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    terms = ClassLoss()(baseline, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT, None)
    assert terms["total"].isfinite()


def test_finite_terms_pass() -> None:
    check_finite({"object": torch.tensor(1.0), "total": torch.tensor(2.0, requires_grad=True)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_names_its_terms(value: float) -> None:
    terms = {"object_part": torch.tensor(0.5), "separation": torch.tensor(value), "total": torch.tensor(value)}
    with pytest.raises(NonFiniteLossError, match=rf"in separation, total \(object_part 0\.5, separation {value}"):
        check_finite(terms)


def test_a_logit_that_is_not_a_number_reaches_the_check() -> None:
    parts, objects = labels()
    broken = output()
    assert broken.part_logits is not None
    broken.part_logits[0, 0, 0, 0] = float("nan")
    config = LossConfig(attention_control="off")
    terms = PartLoss(config)(broken, parts, objects, CLASS_TO_PART, CLASS_TO_OBJECT)
    with pytest.raises(NonFiniteLossError, match="in part, total"):
        check_finite(terms)
