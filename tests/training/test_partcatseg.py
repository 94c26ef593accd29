"""PartCATSeg and CAT-Seg in the loop: they start, learn, stop, go on bit for bit, and share a batch."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.partcatseg.small import build, small_config
from tests.training.tester import MethodTester, moved_by_training, trace
from transformers import Dinov2Config, Dinov2Model

from partclipseg import PartCLIPSegError
from partclipseg.errors import UsageError
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.settings import CATSegSettings, PartCATSegSettings
from partclipseg.models.registry import load_tokenizer
from partclipseg.training.loop import run_training
from partclipseg.training.recipe import Recipe, Retention, as_partcatseg, with_settings
from partclipseg.training.start import build_model, word_retention

METHODS = {"partcatseg": (PartCATSegConfig, PartCATSegSettings()), "catseg": (CATSegConfig, CATSegSettings())}


@pytest.fixture(params=list(METHODS))
def run(request: pytest.FixtureRequest, recipe: Recipe, tokenizer_directory: Path, tmp_path: Path) -> Recipe:
    config_class, settings = METHODS[request.param]
    build(small_config(config_class, num_layers=1)).save_pretrained(tmp_path / "start")
    load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "start")
    recipe = replace(as_partcatseg(recipe), precision="float32", batch_size=4, learning_rate=1e-3)
    recipe = replace(recipe, steps=10, evaluate_every=5)
    return replace(recipe, start=str(tmp_path / "start"), settings=settings)


class TestPartCATSeg(MethodTester):
    stop_at, split_steps, tolerance = 7, 3, 1e-6


def test_clip_stays_and_the_rest_learns(run: Recipe, squares, tmp_path: Path) -> None:
    run = replace(run, steps=40, max_gradient_norm=1.0, learning_rate=5e-3, evaluate_every=40, checkpoint_every=40)
    run_training(run, squares, tmp_path / "run")
    moved = moved_by_training(tmp_path / "start", tmp_path / "run")
    assert moved == {"background", "guidance", "aggregator"}


@pytest.mark.parametrize("size", [32, 128])
def test_another_image_size_is_refused(run: Recipe, size: int) -> None:
    """The windows of its layers are made for one feature grid."""
    with pytest.raises(UsageError, match="start takes photos of 64x64 pixels only: leave image_size out"):
        build_model(replace(run, image_size=size))
    assert build_model(replace(run, image_size=64)).image_shape == (64, 64)


@pytest.fixture
def from_clipseg(recipe: Recipe, clipseg_directory: Path, tmp_path: Path) -> Recipe:
    """PartCATSeg on a CLIPSeg's towers, with word retention of words that the labels do not have."""
    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=128, patch_size=16)
    Dinov2Model(config).save_pretrained(tmp_path / "guidance")
    recipe = replace(as_partcatseg(recipe), precision="float32", batch_size=4, steps=1, log_every=1)
    settings = replace(recipe.settings, guidance=str(tmp_path / "guidance"), sizes="tiny")
    keep = Retention(weight=1.0, words=("dog", "bus", "boat"), words_per_step=3)
    return replace(
        recipe, start=str(clipseg_directory), settings=settings, retention=keep, learning_rate=3e-3,
        max_gradient_norm=1.0, image_size=None,
    )  # fmt: skip


def test_word_retention_pulls_to_the_maps_of_the_clipseg_at_the_start(from_clipseg: Recipe) -> None:
    device = torch.device("cpu")
    model = build_model(from_clipseg)
    retention = word_retention(from_clipseg, model, load_tokenizer(from_clipseg.start), device)
    photos = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    inputs, of_teacher, rows = model.prepare(photos), retention.teacher.prepare(photos), torch.tensor([0, 2])
    optimizer = torch.optim.Adam(model.aggregator.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(retention(model, inputs, of_teacher, rows))
        losses[-1].backward()
        optimizer.step()
    assert 0 <= losses[-1] < 0.3 * losses[0]
    assert all(parameter.grad is None for parameter in retention.teacher.parameters())


def test_word_retention_joins_the_total(from_clipseg: Recipe, squares, tmp_path: Path) -> None:
    run_training(from_clipseg, squares, tmp_path / "whole")
    run_training(replace(from_clipseg, gradient_accumulation=2), squares, tmp_path / "split")
    whole, split = trace(tmp_path / "whole"), trace(tmp_path / "split")
    terms = ("object_part", "object", "part", "retention")
    np.testing.assert_allclose(whole["total"], np.sum([whole[name] for name in terms], axis=0), rtol=1e-5)
    assert whole["retention"][0] > 0
    for name in terms:  # the same sums in another order
        np.testing.assert_allclose(split[name], whole[name], rtol=1e-4, err_msg=name)


def test_a_run_is_of_its_start_and_guidance_wherever_these_lie(
    from_clipseg: Recipe, squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(from_clipseg, squares, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    moved = with_settings(from_clipseg, guidance="guidance")
    assert run_training(moved, squares, tmp_path / "run").finished
    moved = replace(moved, start=str(shutil.copytree(from_clipseg.start, "clipseg")))
    assert run_training(moved, squares, tmp_path / "run").finished

    configuration = Path(shutil.copytree("guidance", "other"), "config.json")
    configuration.write_text(configuration.read_text() + " ")
    with pytest.raises(PartCLIPSegError, match=r"recipe: .*\n  settings\.guidance: '.*guidance' then, 'other' now$"):
        run_training(with_settings(moved, guidance="other"), squares, tmp_path / "run")


def test_catseg_has_no_maps_of_single_words(from_clipseg: Recipe, squares, tmp_path: Path) -> None:
    settings = CATSegSettings(guidance=from_clipseg.settings.guidance, sizes="tiny")
    with pytest.raises(PartCLIPSegError, match=r"no CLIPSeg, whose maps .* --retention\.weight 0"):
        run_training(replace(from_clipseg, settings=settings), squares, tmp_path / "run")
