"""Recipes: what is published, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from partclipseg.data.augment import Augmentation
from partclipseg.errors import UsageError
from partclipseg.training.recipe import RECIPES, Recipe, Retention, own_data, partshapes, pascal

BENCHMARKS = ("pascal", "ade20k", "part-imagenet")


def test_every_setting_has_its_recipe() -> None:
    expected = {f"{name}{kind}" for name in (*BENCHMARKS, "partshapes") for kind in ("", "-reference", "-clipseg")}
    expected |= {f"{name}-partcatseg{kind}" for name in (*BENCHMARKS, "partshapes") for kind in ("", "-reference")}
    assert set(RECIPES) == {*expected, "own-data", "own-data-partcatseg", "partshapes-catseg", "partshapes-zsseg"}


@pytest.mark.parametrize("kind", ["", "-reference"])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_partcatseg_is_trained_as_published(name: str, kind: str) -> None:
    recipe = RECIPES[f"{name}-partcatseg{kind}"]()
    assert (recipe.method, recipe.steps, recipe.batch_size, recipe.seed) == ("partcatseg", 20_000, 4, 12345678)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.max_gradient_norm) == (2e-4, 1e-4, 0.01)
    assert (recipe.schedule, recipe.warmup_steps, recipe.colour_order) == ("cosine", 0, "rgb")
    assert (recipe.precision, recipe.settings.loss.outside) == (
        ("float32", "background") if kind else ("bfloat16", "ignore")
    )
    photos = recipe.augmentation
    # The published photos are cut to the model's size; on PartImageNet its code leaves them as they are before that.
    if kind and name == "part-imagenet":
        assert photos == replace(Augmentation.none(), fit="corner")
    elif kind:
        assert (photos.fit, photos.shortest_edge, photos.max_size, photos.flip) == ("crop", (384, 384), 768, 0.5)
        assert (photos.ssd, photos.hue, photos.contrast, photos.saturation) == (True, 36, 0.5, 0.5)
        assert photos.brightness * 255 == pytest.approx(32)
    assert recipe.settings.own_size == (bool(kind) and name == "part-imagenet")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_yaml(name: str) -> None:
    values = RECIPES[name]().to_dict()
    assert yaml.safe_load(yaml.safe_dump(values, sort_keys=False)).keys() == values.keys()


@pytest.mark.parametrize("name", [f"{name}{kind}" for name in BENCHMARKS for kind in ("", "-reference", "-clipseg")])
def test_published_optimisation(name: str) -> None:
    recipe = RECIPES[name]()
    assert (recipe.steps, recipe.batch_size, recipe.seed) == (20_000, 8, 12345678)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.max_gradient_norm) == (1e-4, 1e-4, 0.01)
    assert (recipe.decay_power, recipe.warmup_steps) == (0.9, 0)
    assert recipe.augmentation.shortest_edge == (800, 800)
    assert recipe.augmentation.max_size == 1333
    assert recipe.start == "CIDAS/clipseg-rd64-refined"


@pytest.mark.parametrize("name", [*BENCHMARKS, "partshapes"])
def test_reference_recipes_take_every_departure_and_nothing_else(name: str) -> None:
    intended, reference = RECIPES[name]().to_dict(), RECIPES[f"{name}-reference"]().to_dict()
    changed = {key for key in intended if intended[key] != reference[key]}
    assert changed == {
        "settings", "colour_order", "precision", *(["retention"] if intended["retention"]["weight"] else [])
    }  # fmt: skip
    ours, theirs = intended["settings"], reference["settings"]
    assert {key for key in ours if ours[key] != theirs[key]} == {
        "merges", "class_film", "reference_object_lookup", "train_background", "loss"
    }  # fmt: skip
    assert reference["retention"]["weight"] == 0
    assert theirs["loss"]["attention_control"] == "reference"
    assert theirs["class_film"] == "copy"
    assert theirs["loss"]["outside"] == "background"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 8, "gradient_accumulation": 3}, "cannot be split into 3 micro-batches"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm must be positive"),
        ({"seed": -1}, "seed must be from 0 to 9223372036854775807"),
        ({"seed": 2**70}, "seed must be from 0 to"),
        ({"warmup_steps": 20_000}, "must be less than the 20,000 steps"),
        ({"start": ""}, "start is missing"),
        ({"image_size": 0}, "image_size must be from 1 to 4,096, not 0"),
        ({"image_size": 100_000}, "image_size must be from 1 to 4,096"),
    ],
)
def test_values_that_no_run_can_have(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(pascal(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "must not be negative"),
        ({"weight": 1.0}, "no words"),
        ({"words_per_step": 0}, "at least 1"),
    ],
)
def test_retention_that_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Retention(**changes)


def test_scenes_in_memory_are_neither_cropped_nor_scaled() -> None:
    recipe: Recipe = partshapes()
    assert recipe.augmentation.crop_edge is None
    assert recipe.augmentation.shortest_edge is None
    assert own_data().augmentation.crop_edge is not None
