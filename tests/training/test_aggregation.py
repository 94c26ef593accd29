"""The cost aggregation of PartShapes: trained on whole objects, stopped, continued, and taken as a start."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.training.tester import TowerTester
from transformers import Dinov2Model

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.registry import load_model
from partclipseg.shapes.cache import SceneArrays, render_split
from partclipseg.training.aggregation import train_aggregation
from partclipseg.training.backbone import train_backbone
from partclipseg.training.guidance import train_guidance
from partclipseg.training.recipe import RECIPES
from partclipseg.training.start import build_model
from partclipseg.training.tower_runs import train_start
from partclipseg.training.towers import AggregationRecipe, BackboneRecipe, GuidanceRecipe

SIZE = 32
RECIPE = AggregationRecipe(
    steps=4, batch_size=1, scenes=4, image_size=SIZE, warmup_steps=1, checkpoint_every=2, log_every=1
)
SMALL: dict[str, Any] = {"steps": 1, "batch_size": 1, "scenes": 4, "warmup_steps": 0, "image_size": SIZE}


@pytest.fixture(scope="module")
def scenes() -> SceneArrays:
    return render_split("base", RECIPE.scenes, SIZE, workers=1)


@pytest.fixture(scope="module")
def towers(scenes: SceneArrays, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("towers")
    backbone = train_backbone(BackboneRecipe(**SMALL), output / "backbone", scenes)
    guidance = train_guidance(GuidanceRecipe(small_crops=0, **SMALL), output / "guidance", scenes)
    return {"backbone": str(backbone), "guidance": str(guidance)}


@pytest.fixture(scope="module")
def trained(scenes: SceneArrays, towers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = train_aggregation(replace(RECIPE, **towers), tmp_path_factory.mktemp("aggregation"), scenes)
    assert model is not None
    return model


class TestAggregation(TowerTester):
    recipe, other, difference = RECIPE, replace(RECIPE, batch_size=2), "batch_size: 1 then, 2 now"

    @pytest.fixture(autouse=True)
    def on_towers(self, towers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        def train(recipe: AggregationRecipe, *arguments: Any) -> Path | None:
            return train_aggregation(replace(recipe, **towers), *arguments)

        monkeypatch.setattr(type(self), "train", staticmethod(train), raising=False)


def test_it_learns_the_objects_and_leaves_the_towers_as_they_are(
    scenes: SceneArrays, towers: dict[str, Any], tmp_path: Path
) -> None:
    losses: list[float] = []
    recipe = replace(RECIPE, **towers, steps=12, batch_size=2, checkpoint_every=12, learning_rate=3e-3)
    directory = train_aggregation(recipe, tmp_path, scenes, lambda _, values: losses.append(values["objects"]))
    assert losses[-1] < 0.7 * losses[0]
    model: Any = load_model(str(directory)).float()
    tower: Any = load_model(towers["backbone"]).float()
    for name, weight in tower.clip.state_dict().items():
        assert torch.equal(model.clip.state_dict()[name], weight), name
    guidance = Dinov2Model.from_pretrained(towers["guidance"]).float().state_dict()
    for name, weight in model.guidance.tower.state_dict().items():
        assert torch.equal(weight, guidance[name]), name


@pytest.mark.parametrize("name", ["partshapes-partcatseg", "partshapes-catseg"])
def test_it_is_the_start_of_the_recipes(trained: Path, name: str) -> None:
    recipe = RECIPES[name]()
    model: Any = build_model(replace(recipe, start=str(trained), image_size=None))
    source: Any = load_model(trained)
    assert torch.equal(model.aggregator.head.weight, source.aggregator.head.weight.float())
    assert torch.equal(model.guidance.tower.embeddings.cls_token, source.guidance.tower.embeddings.cls_token.float())
    assert model.config.guidance_image_size == SIZE
    assert model.config.patch_attention


def test_the_released_form_starts_from_an_aggregation_without_the_attention_of_the_last_block(
    scenes: SceneArrays, towers: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, **towers, steps=1, warmup_steps=0, checkpoint_every=1, patch_attention=False)
    start = str(train_aggregation(recipe, tmp_path, scenes))
    reference = replace(RECIPES["partshapes-partcatseg-reference"](), image_size=None)
    assert not cast("Any", build_model(replace(reference, start=start))).config.patch_attention
    with pytest.raises(PartCLIPSegError, match="reference means as released, without"):
        build_model(replace(reference, start=str(trained)))


def test_it_is_of_its_towers_wherever_these_lie(
    scenes: SceneArrays, towers: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    moved = {name: shutil.copytree(path, tmp_path / name / "model") for name, path in towers.items()}
    recipe = replace(RECIPE, **{name: str(path) for name, path in moved.items()})
    assert train_aggregation(recipe, trained.parent, scenes) == trained
    run = tmp_path / "run"
    shutil.copytree(trained.parent, run / "aggregation")
    names = ("backbone", "guidance", "aggregation")
    assert train_start(names, run, None, {}) == str(run / "aggregation/model"), "without towers that are not there"
    for name, path in moved.items():
        shutil.copytree(path, run / name / "model")
    assert train_start(names, run, None, {}) == str(run / "aggregation/model")

    tokenizer = run / "backbone/model/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    message = r"aggregation was trained otherwise: name another output, or move that folder away\n  backbone: 'files "
    with pytest.raises(PartCLIPSegError, match=message):
        train_start(names, run, None, {})
    with pytest.raises(PartCLIPSegError, match=r"the aggregation in .* is of another recipe: name another output"):
        train_aggregation(replace(recipe, backbone=str(run / "backbone/model")), trained.parent, scenes)
    shutil.copytree(towers["backbone"], run / "backbone/model", dirs_exist_ok=True)
    with pytest.raises(PartCLIPSegError, match=r"patch_attention: True then, False now"):
        train_start(names, run, None, {"patch_attention": False})


def test_a_tower_that_is_not_there_is_named(scenes: SceneArrays, towers: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PartCLIPSegError, match="there is no directory 'nowhere'"):
        train_aggregation(replace(RECIPE, **{**towers, "guidance": "nowhere"}), tmp_path, scenes)
