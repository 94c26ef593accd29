"""Towers of PartShapes: each is trained on those before it, and what cannot be is told before any of them is."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

import partclipseg
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.training import pretraining
from partclipseg.training.aggregation import train_aggregation
from partclipseg.training.recipe import RECIPES, Recipe, with_settings
from partclipseg.training.tower_runs import TRAINED_BY, train_tower
from partclipseg.training.towers import AggregationRecipe, BackboneRecipe, GuidanceRecipe, TowerRecipe

NARROW = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, patch in (("own", 8), ("coarse", 14)):
        Dinov2Model(Dinov2Config(**NARROW, patch_size=patch, image_size=56)).save_pretrained(folder / name)
    for name, patch in (("clip", 8), ("clip of large patches", 24)):
        config = CLIPConfig(text_config={**NARROW, "vocab_size": 20}, vision_config={**NARROW, "patch_size": patch})
        CLIPModel(config).save_pretrained(folder / name)
    return folder


@pytest.fixture
def given(models: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, TowerRecipe]:
    """Recipes of the towers in the order of their training, which here copies a model or, of an aggregation, stops."""
    recipes: dict[str, TowerRecipe] = {}

    def train(recipe: TowerRecipe, output: Path, report: Any = None) -> Path | None:
        recipes[recipe.name] = recipe
        if isinstance(recipe, AggregationRecipe):
            return None
        shutil.copytree(models / ("clip" if isinstance(recipe, BackboneRecipe) else "own"), output / "model")
        return output / "model"

    for kind in (BackboneRecipe, GuidanceRecipe, AggregationRecipe):
        monkeypatch.setitem(TRAINED_BY, kind, train)
    return recipes


@pytest.mark.parametrize(
    ("own", "trained"),
    [
        ((), ["backbone", "guidance", "aggregation"]),
        (("guidance",), ["backbone", "aggregation"]),
        (("backbone",), ["guidance", "aggregation"]),
        (("backbone", "guidance"), ["aggregation"]),
    ],
)
def test_towers_are_trained_each_on_those_before_it(
    own: tuple[str, ...], trained: list[str], given: dict[str, TowerRecipe], models: Path, tmp_path: Path
) -> None:
    towers: dict[str, Any] = {
        name: str(models / folder) for name, folder in (("backbone", "clip"), ("guidance", "own")) if name in own
    }
    train_tower(AggregationRecipe(image_size=64, **towers), tmp_path)
    assert list(given) == trained
    assert {recipe.image_size for recipe in given.values()} == {64}
    last: Any = given["aggregation"]
    assert last.backbone == towers.get("backbone", str(tmp_path / "backbone/model"))
    assert last.guidance == towers.get("guidance", str(tmp_path / "guidance/model"))


def test_a_finished_aggregation_needs_its_towers_no_longer(given: dict[str, TowerRecipe], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    train_tower(AggregationRecipe(), tmp_path)
    assert list(given) == ["aggregation"]


@pytest.mark.parametrize(
    ("recipe", "patch_attention"),
    [
        (RECIPES["partshapes-partcatseg"](), True),
        (RECIPES["partshapes-catseg"](), True),
        (with_settings(RECIPES["partshapes-partcatseg"](), patch_attention=None), True),
        (with_settings(RECIPES["partshapes-partcatseg"](), patch_attention=False), False),
        (RECIPES["partshapes-partcatseg-reference"](), False),
    ],
)
def test_the_aggregation_of_a_recipe_keeps_attention_as_the_recipe_does(
    recipe: Recipe, patch_attention: bool, given: dict[str, TowerRecipe], tmp_path: Path
) -> None:
    assert not partclipseg.train(recipe, output=tmp_path).finished
    assert list(given) == ["backbone", "guidance", "aggregation"]
    last: Any = given["aggregation"]
    assert last.patch_attention is patch_attention


@pytest.mark.parametrize(
    ("towers", "message"),
    [
        ({"backbone": "nowhere"}, r"there is no directory 'nowhere'.*give a directory or hub name of CLIP or CLIPSeg"),
        ({"guidance": "nowhere"}, "there is no directory 'nowhere'.*give facebookresearch/dinov2's own"),
        ({"backbone": "own"}, "holds a model of type 'dinov2': give a directory or hub name of CLIP or CLIPSeg"),
        ({"guidance": "clip"}, "holds a model of type 'clip': give a DINOv2"),
        ({"guidance": "coarse"}, r"do not fit scenes of 128x128 pixels \(.*DINOv2's patch of 14 pixels\): give Part"),
        ({"backbone": "clip of large patches"}, r"do not fit scenes of 128x128.*CLIP's patch of 24 pixels"),
        ({"compile": True}, "compiling pays on a GPU only"),
    ],
)
def test_a_tower_that_does_not_fit_is_told_before_others_are_trained(
    towers: dict[str, Any], message: str, given: dict[str, TowerRecipe], models: Path, tmp_path: Path
) -> None:
    if torch.cuda.is_available() and "compile" in towers:
        pytest.skip("a GPU compiles")
    towers = {name: str(models / value) if value in ("own", "coarse") or "clip" in str(value) else value
              for name, value in towers.items()}  # fmt: skip
    with pytest.raises(PartCLIPSegError, match=message):
        train_tower(AggregationRecipe(**towers), tmp_path / "run")
    assert not given
    assert not (tmp_path / "run").exists()


def test_a_recipe_tells_of_its_guidance_before_the_backbone_is_trained(
    given: dict[str, TowerRecipe], models: Path, tmp_path: Path
) -> None:
    recipe: Recipe = with_settings(RECIPES["partshapes-catseg"](), guidance=str(models / "coarse"))
    with pytest.raises(PartCLIPSegError, match="DINOv2's patch of 14 pixels"):
        partclipseg.train(replace(recipe, steps=1), output=tmp_path / "run")
    assert not given


def test_several_processes_are_told_the_command_that_trains_on_the_same_towers(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "join_processes", lambda: SimpleNamespace(num_processes=2))
    recipe = AggregationRecipe(backbone=str(models / "clip"), guidance=str(models / "own"))
    command = (
        f"partclipseg train partshapes-aggregation --backbone {models}/clip --guidance {models}/own --output {tmp_path}"
    )
    with pytest.raises(UsageError, match=re.escape(command)):
        train_aggregation(recipe, tmp_path)
