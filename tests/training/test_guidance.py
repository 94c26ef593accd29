"""The guidance tower of PartShapes: trained, stopped, continued, and taken as the guidance of PartCATSeg."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.training.conftest import Squares
from tests.training.tester import TowerTester
from transformers import Dinov2Model

import partclipseg
from partclipseg.errors import UsageError
from partclipseg.shapes.cache import SceneArrays, render_split
from partclipseg.training.aggregation import train_aggregation
from partclipseg.training.backbone import train_backbone
from partclipseg.training.data import TrainingData
from partclipseg.training.guidance import at_same_places, balanced, draw_windows, patch_targets, train_guidance
from partclipseg.training.recipe import RECIPES, with_settings
from partclipseg.training.start import build_model
from partclipseg.training.towers import AggregationRecipe, BackboneRecipe, GuidanceRecipe

RECIPE = GuidanceRecipe(
    steps=6, batch_size=4, scenes=16, image_size=32, warmup_steps=2, checkpoint_every=2, log_every=1,
    small_crops=2, prototypes=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes() -> SceneArrays:
    return render_split("base", RECIPE.scenes, RECIPE.image_size, workers=1)


@pytest.fixture(scope="module")
def trained(scenes: SceneArrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = train_guidance(RECIPE, tmp_path_factory.mktemp("guidance"), scenes)
    assert model is not None
    return model


class TestGuidance(TowerTester):
    recipe, other, train = RECIPE, replace(RECIPE, prototypes=8), staticmethod(train_guidance)
    difference = r"the guidance in \S+ is of another recipe(?s:.*)prototypes: 16 then, 8 now"


def test_the_student_learns_and_scenes_stay_apart(scenes: SceneArrays, tmp_path: Path) -> None:
    """A tower that gave the same for all scenes would have a low loss too, but for the balancing."""
    losses: list[float] = []
    recipe = replace(RECIPE, steps=20, log_every=5, checkpoint_every=20, learning_rate=3e-3)
    directory = train_guidance(recipe, tmp_path, scenes, lambda _, values: losses.append(values["crops"]))
    assert losses[-1] < losses[0]
    tower: Any = Dinov2Model.from_pretrained(directory, dtype=torch.float32)
    photos = torch.from_numpy(scenes.images[:16].copy()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        tokens = tower((photos - 0.45) / 0.225).last_hidden_state[:, 0]
    tokens = torch.nn.functional.normalize(tokens - tokens.mean(0), dim=-1)
    assert (tokens @ tokens.T).fill_diagonal_(0).mean() < 0.1


@given(
    logits=st.lists(st.lists(st.floats(-1, 1), min_size=4, max_size=4), min_size=8, max_size=8),
    temperature=st.floats(0.04, 1),
)
def test_balanced_rows_are_distributions(logits: list[list[float]], temperature: float) -> None:
    shares = balanced(torch.tensor(logits), temperature)
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    assert (shares >= 0).all()


def test_balancing_spreads_rows_that_are_all_the_same_over_the_prototypes() -> None:
    shares = balanced(torch.tensor([[0.9, 0.1, 0.0]] * 6), 0.06, iterations=50)
    torch.testing.assert_close(shares.sum(0), torch.full((3,), 2.0))


def test_rows_that_do_not_count_take_no_share_of_the_prototypes() -> None:
    counted = torch.tensor([True, False, True, True])
    logits = torch.rand(4, 3)
    shares = balanced(logits, 0.1, counted=counted)
    assert not shares[1].any()
    torch.testing.assert_close(shares[counted], balanced(logits[counted], 0.1))


@pytest.mark.parametrize("area", [(0.4, 1.0), (1.0, 1.0)])
def test_patches_are_compared_at_the_same_place_of_the_scene(area: tuple[float, float]) -> None:
    """Values that name the place in the scene come back as the place of the patch that asks, mirrored crops or not."""
    edge = 8
    windows = torch.cat([draw_windows(20, area, torch.device("cpu")) for _ in range(2)])
    centres = (2 * torch.arange(edge) + 1) / edge - 1
    across, down, left, top = windows[:, :, None, None].unbind(1)
    columns, rows = across * centres + left, down * centres[:, None] + top
    own = torch.stack(torch.broadcast_tensors(columns, rows), -1).flatten(1, 2)  # [40, 64, 2]
    found, both = at_same_places(own, windows)
    other = windows.roll(20, 0)[:, None]  # [40, 1, 4]
    inner = both & (((own - other[..., 2:]) / other[..., :2]).abs() < 1 - 1 / edge).all(-1)
    torch.testing.assert_close(found[inner], own[inner], atol=1e-5, rtol=0)
    assert inner.float().mean() > 0.2
    # Half a patch from the border, where nothing can be interpolated, the nearest patch answers.
    assert ((found - own).abs() <= other[..., 1:2] / edge + 1e-5)[both].all()
    if area == (1.0, 1.0):
        assert both.all()


def test_what_all_patches_of_a_crop_share_is_no_target() -> None:
    """Else the loss of patches is learnt from the crop's colours alone, and features say nothing of parts."""
    windows = torch.cat([draw_windows(3, (0.4, 1.0), torch.device("cpu")) for _ in range(2)])
    of_crops = torch.randn(6, 1, 10).expand(-1, 16, -1)
    target, both = patch_targets(of_crops, windows, 0.06)
    torch.testing.assert_close(target[both], torch.full_like(target[both], 0.1))
    places = torch.randn(6, 16, 10)
    target, _ = patch_targets(places, windows, 0.06)
    torch.testing.assert_close(patch_targets(places + of_crops, windows, 0.06)[0], target)
    assert target.max() > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"image_size": 40}, "multiple of 16"),
        ({"warmup_steps": 6}, "less than the 6 steps"),
        ({"prototypes": 1}, "at least 2, not 1"),
        ({"teacher_momentum": 1.0}, "from 0 to below 1"),
        ({"teacher_temperature": 0.0}, "must be positive"),
        ({"most_masked": 1.0}, "between 0 and 1"),
        ({"small_crops": -1}, "must not be negative"),
    ],
)
def test_impossible_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(RECIPE, **changes)


def test_the_towers_are_a_start_for_the_recipes(tmp_path: Path) -> None:
    """From two towers of the size of PartShapes: a step of training, and a photo labelled with the model."""
    output = tmp_path / "run"
    scenes = render_split("base", 2, 128, workers=1)
    small: dict[str, Any] = {"steps": 1, "batch_size": 1, "scenes": 2, "warmup_steps": 0}
    backbone = train_backbone(BackboneRecipe(**small), output / "backbone", scenes)
    guidance = train_guidance(GuidanceRecipe(small_crops=0, **small), output / "guidance", scenes)
    towers: dict[str, Any] = {"backbone": str(backbone), "guidance": str(guidance)}
    train_aggregation(AggregationRecipe(**small, **towers), output / "aggregation", scenes)
    recipe = replace(
        RECIPES["partshapes-partcatseg"](), steps=1, batch_size=1, scenes=2, held_out=0, precision="float32"
    )
    # The words of all scenes would take a step of many seconds.
    result = partclipseg.train(recipe, TrainingData.split(Squares(2, 128), held_out=0, seed=0), output)
    assert result.finished
    segmenter = partclipseg.PartSegmenter.from_pretrained(result.directory)
    assert segmenter(scenes.images[0], "dog: head, leg; bus: wheel").label_map.shape == (128, 128)

    plain = RECIPES["partshapes-catseg"]()
    model = build_model(replace(with_settings(plain, guidance=str(guidance)), start=str(backbone)))
    source = load_file(Path(str(guidance)) / "model.safetensors")
    # The file holds half precision, which float32 holds exactly.
    assert torch.equal(model.guidance.tower.embeddings.cls_token, source["embeddings.cls_token"].float())
    source = load_file(Path(str(backbone)) / "model.safetensors")
    assert torch.equal(model.clip.visual_projection.weight, source["clip.visual_projection.weight"].float())
