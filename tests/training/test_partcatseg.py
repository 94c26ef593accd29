"""PartCATSeg and CAT-Seg in the loop: they start, learn, stop, go on bit for bit, and share a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.partcatseg.small import build, small_config
from tests.training.test_loop import StopAt, same_weights, trace

from partclipseg import PartSegmenter
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.settings import CATSegSettings, PartCATSegSettings
from partclipseg.models.registry import load_model, load_tokenizer
from partclipseg.training.loop import run_training
from partclipseg.training.recipe import Recipe, as_partcatseg

METHODS = {"partcatseg": (PartCATSegConfig, PartCATSegSettings()), "catseg": (CATSegConfig, CATSegSettings())}


@pytest.fixture(params=list(METHODS))
def run(request: pytest.FixtureRequest, recipe: Recipe, tokenizer_directory: Path, tmp_path: Path) -> Recipe:
    config_class, settings = METHODS[request.param]
    build(small_config(config_class)).save_pretrained(tmp_path / "start")
    load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "start")
    recipe = replace(as_partcatseg(recipe), precision="float32", batch_size=4, learning_rate=1e-3)
    return replace(recipe, start=str(tmp_path / "start"), settings=settings)


def test_a_stopped_run_goes_on_bit_for_bit(run: Recipe, squares, tmp_path: Path) -> None:
    stopped = run_training(run, squares, tmp_path / "stopped", observer=StopAt(7))
    assert (stopped.step, stopped.finished) == (7, False)
    assert run_training(run, squares, tmp_path / "stopped").finished
    run_training(run, squares, tmp_path / "whole")
    assert same_weights(tmp_path / "stopped", tmp_path / "whole")
    assert trace(tmp_path / "stopped") == trace(tmp_path / "whole")
    result = PartSegmenter.from_pretrained(tmp_path / "whole" / "model", device="cpu")(np.zeros((40, 50, 3), np.uint8))
    assert result.label_map.shape == (40, 50)


def test_micro_batches_add_up_to_the_batch(run: Recipe, squares, tmp_path: Path) -> None:
    run = replace(run, steps=3)
    run_training(run, squares, tmp_path / "whole")
    run_training(replace(run, gradient_accumulation=4), squares, tmp_path / "split")
    whole, split = trace(tmp_path / "whole"), trace(tmp_path / "split")
    for name in whole:  # the same sums in another order in float32; the weights follow
        np.testing.assert_allclose(split[name], whole[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_clip_stays_and_the_rest_learns(run: Recipe, squares, tmp_path: Path) -> None:
    run_training(replace(run, steps=40, max_gradient_norm=1.0, learning_rate=5e-3), squares, tmp_path / "run")
    total = trace(tmp_path / "run")["total"]
    assert np.mean(total[-5:]) < 0.7 * total[0]
    before = load_model(tmp_path / "start").state_dict()
    after = load_model(tmp_path / "run" / "model").state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"background", "guidance", "aggregator"}
