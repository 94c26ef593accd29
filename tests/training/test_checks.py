"""Every configuration of a run takes the values of its annotations and no others."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partclipseg.checks import check_fields
from partclipseg.data.augment import Augmentation
from partclipseg.errors import UsageError
from partclipseg.losses.config import LossConfig
from partclipseg.models.clipseg.settings import CLIPSegSettings
from partclipseg.models.partcatseg.settings import PartCATSegSettings
from partclipseg.models.partclipseg.settings import PartCLIPSegSettings
from partclipseg.models.prompting import Prompting
from partclipseg.training.recipe import (
    RECIPES,
    Recipe,
    Retention,
    pascal,
    with_current_settings,
    with_settings,
)
from partclipseg.training.towers import BackboneRecipe, GuidanceRecipe

CONFIGURATIONS = {
    "recipe": pascal(),
    "loss": LossConfig(),
    "retention": Retention(),
    "augmentation": Augmentation(),
    "backbone": BackboneRecipe(),
    "guidance": GuidanceRecipe(),
    "partclipseg": PartCLIPSegSettings(),
    "clipseg": CLIPSegSettings(),
    "partcatseg": PartCATSegSettings(),
    "prompting": Prompting(),
}
WRONG: dict[Any, tuple[object, ...]] = {
    bool: (1, 0, "yes", None),
    int: ("10", 2.5, True, math.nan, None),
    float: ("0.1", True, math.nan, math.inf, -math.inf, None),
    str: (3, None, b"bytes"),
}


def wrong_values() -> list[Any]:
    cases = []
    for name, config in CONFIGURATIONS.items():
        hints = get_type_hints(type(config))
        for field in fields(config):
            hint = hints[field.name]
            values = ("nonsense", 3) if get_origin(hint) is Literal else WRONG.get(hint, (object(),))
            cases += [pytest.param(config, field.name, v, id=f"{name}-{field.name}-{v!r:.12}") for v in values]
    return cases


@pytest.mark.parametrize(("config", "field", "value"), wrong_values())
def test_a_value_that_the_annotation_does_not_allow_is_refused(config: Any, field: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"{field} (is .*; give |must be from )"):
        replace(config, **{field: value})


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ("recipe", {"steps": np.int64(5), "learning_rate": 1, "image_size": None, "warmup_steps": 0}),
        ("recipe", {"image_size": 64, "max_gradient_norm": np.float32(1)}),
        ("augmentation", {"crop_edge": [0.5, 1], "shortest_edge": None}),
        ("retention", {"weight": 1, "words": ["dog"]}),
    ],
)
def test_equal_types_are_taken(config: str, changes: dict[str, Any]) -> None:
    assert replace(CONFIGURATIONS[config], **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bfloat"}, "precision is 'bfloat'; give one of bfloat16, float32"),
        ({"colour_order": "gbr"}, "colour_order is 'gbr'; give one of rgb, bgr"),
        ({"steps": "10"}, "steps is '10'; give a whole number"),
        ({"image_size": "big"}, "image_size is 'big'; give a whole number or None"),
        ({"settings": {"merges": "random"}}, "give a MethodSettings"),
        ({"augmentation": None}, "augmentation is None; give an Augmentation"),
    ],
)
def test_the_message_says_what_to_give(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(pascal(), **changes)


@dataclass(frozen=True)
class Pair:
    edge: tuple[float, float] | None
    words: tuple[str, ...] = ()
    choice: Literal["a", 1] = "a"


@given(edge=st.lists(st.floats(), max_size=4))
def test_tuples_have_their_length_and_finite_numbers(edge: list[float]) -> None:
    good = len(edge) == 2 and all(map(math.isfinite, edge))
    if good:
        check_fields(Pair(tuple(edge)))  # pyright: ignore[reportArgumentType]
    else:
        with pytest.raises(
            UsageError, match=r"edge is .*; give a tuple of .* or None"
        ):
            check_fields(Pair(tuple(edge)))  # pyright: ignore[reportArgumentType]


def test_choices_are_compared_with_their_type() -> None:
    check_fields(Pair(None, choice=1))
    for wrong in (True, 1.0, "b", ["a"]):
        with pytest.raises(UsageError, match=r"pair: choice is .*; give one of a, 1"):
            check_fields(Pair(None, choice=wrong), "pair")  # pyright: ignore[reportArgumentType]


def test_the_former_name_of_bfloat16_is_taken_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        recipe = replace(pascal(), precision="bf16")
    assert recipe == pascal()
    assert recipe.precision == "bfloat16"
    assert caplog.messages == [
        "precision bf16 is now called bfloat16; the next release no longer takes the former name"
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_settings_of_an_older_run_are_read_in_current_names(name: str) -> None:
    recipe = RECIPES[name]()
    former = {**recipe.to_dict(), "precision": {"bfloat16": "bf16"}.get(recipe.precision, recipe.precision)}
    assert with_current_settings(former) == recipe.to_dict()


def test_runs_from_before_crops_around_objects_had_none() -> None:
    recipe = pascal().to_dict()
    later = ("object_crop", "fit", "hue", "ssd")
    before = {name: value for name, value in recipe["augmentation"].items() if name not in later}
    assert with_current_settings({**recipe, "augmentation": before}) == recipe


def test_runs_from_before_the_choice_began_with_a_copied_film() -> None:
    for start in ("copy", "identity"):
        recipe = with_settings(pascal(), class_film=start)
        assert with_current_settings(recipe.to_dict())["settings"]["class_film"] == start
    settings = {name: value for name, value in recipe.to_dict()["settings"].items() if name != "class_film"}
    assert with_current_settings({**recipe.to_dict(), "settings": settings})["settings"]["class_film"] == "copy"
    baseline = RECIPES["pascal-clipseg"]().to_dict()
    assert with_current_settings(baseline) == baseline


@pytest.mark.parametrize("name", ["partshapes-partcatseg", "partshapes-catseg"])
def test_runs_from_before_costs_and_guidance_could_be_chosen_had_the_published_ones(name: str) -> None:
    recipe = with_settings(RECIPES[name](), patch_attention=None).to_dict()
    first = ("loss", "guidance", "sizes", "reference", "repairs")
    settings = {name: recipe["settings"][name] for name in first}
    assert with_current_settings({**recipe, "settings": settings}) == recipe


def test_number_types_have_one_spelling_each() -> None:
    assert get_args(get_type_hints(Recipe)["precision"]) == ("bfloat16", "float32", "bf16")  # bf16: for one release
