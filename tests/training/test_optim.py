"""The published optimisation, figure by figure."""

from __future__ import annotations

import pytest
from tests.models.partcatseg.small import build, small_config

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.training import optim


def names_by_decay(model: PartCLIPSegModel) -> dict[float, set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in model.parameter_groups(1e-4, 1e-4)
    }


def test_norms_embeddings_and_the_background_are_not_decayed(config) -> None:
    model = PartCLIPSegModel(config)
    model.train_published_parameters()
    groups = names_by_decay(model)
    assert groups.keys() == {0.0, 1e-4}
    assert {name for name in groups[0.0] if "norm" not in name} == {
        "background",
        "clip.text_model.embeddings.token_embedding.weight",
        "clip.text_model.embeddings.position_embedding.weight",
    }
    assert {"decoder.layers.0.norm1.weight", "decoder.layers.2.norm2.bias"} <= groups[0.0]
    assert {"visual_adapter.down.weight", "decoder.film.mul.weight", "decoder.film.mul.bias"} <= groups[1e-4]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert groups[0.0] | groups[1e-4] == trained


def test_a_frozen_model_is_refused(config) -> None:
    model = PartCLIPSegModel(config).requires_grad_(False)
    with pytest.raises(PartCLIPSegError, match="every parameter of the model is frozen: let some of them be trained"):
        optim.build_optimizer(model, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("step", "steps", "warmup", "expected"),
    [
        (0, 20_000, 0, 1.0),
        (10_000, 20_000, 0, 0.5358867312681466),  # 0.5 ** 0.9
        (19_999, 20_000, 0, 0.0001346086609098478),  # 0.00005 ** 0.9
        (0, 100, 4, 0.25),
        (1, 100, 4, 0.4954977417064171),  # 2/4 * 0.99 ** 0.9
        (4, 100, 4, 0.9639269212585509),  # 0.96 ** 0.9
    ],
)
def test_schedule_by_hand(step: int, steps: int, warmup: int, expected: float) -> None:
    # rel: one power of doubles.
    assert optim.polynomial_decay(step, steps, 0.9, warmup) == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_is_set_for_every_group(config) -> None:
    model = PartCLIPSegModel(config)
    model.train_published_parameters()
    optimizer = optim.build_optimizer(model, 1e-4, 1e-4)
    optim.set_learning_rate(optimizer, 3e-5)
    assert [group["lr"] for group in optimizer.param_groups] == [3e-5, 3e-5]


def test_a_group_keeps_its_share_of_the_learning_rate() -> None:
    model = build(small_config())
    model.trained_parameters()
    optimizer = optim.build_optimizer(model, 2e-4, 1e-4)
    for rate in (2e-4, 1e-4):
        optim.set_learning_rate(optimizer, rate)
        tower = {id(parameter) for parameter in model.guidance.parameters()}
        for group in optimizer.param_groups:
            slow = {id(parameter) in tower for parameter in group["params"]}
            assert slow == {group["lr"] == pytest.approx(rate / 100)}  # one kind in each group


@pytest.mark.parametrize(
    ("step", "warmup", "expected"), [(0, 0, 1.0), (50, 0, 0.5), (25, 0, 0.8535533905932737), (0, 4, 0.25)]
)
def test_cosine_by_hand(step: int, warmup: int, expected: float) -> None:
    assert optim.cosine_decay(step, 100, warmup) == pytest.approx(expected, rel=1e-12)
