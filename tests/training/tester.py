"""The tests that every training run passes: inherit a tester and give it a small recipe."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from partclipseg.errors import PartCLIPSegError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.registry import load_model
from partclipseg.shapes.cache import SceneArrays
from partclipseg.training.loop import run_training
from partclipseg.training.observer import Observer
from partclipseg.training.recipe import Recipe
from partclipseg.training.towers import TowerRecipe


def log_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def trace(output: Path) -> dict[str, list[float]]:
    lines = [line["losses"] for line in log_of(output) if "losses" in line]
    return {name: [line[name] for line in lines] for name in lines[0]}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def same_weights(first: Path, second: Path) -> bool:
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class StopAt(Observer):
    """Sends this process SIGTERM at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progressed(self, progress: Any) -> None:
        if progress.step == self.step:
            signal.raise_signal(signal.SIGTERM)


class InterruptedRunError(Exception):
    pass


class TowerTester:
    """Training of a tower of PartShapes; the module has the fixtures `scenes` and `trained`."""

    recipe: ClassVar[TowerRecipe]
    """A checkpoint every two steps, a line of the log every step."""
    other: ClassVar[TowerRecipe]
    """A recipe with another value."""
    difference: ClassVar[str]
    """Regular expression of the message about the other recipe."""

    train: ClassVar[Callable[..., Path | None]]
    """The function that is tested."""

    def test_a_broken_off_run_continues_exactly(self, scenes: SceneArrays, trained: Path, tmp_path: Path) -> None:
        last = self.recipe.steps

        def break_off(step: int, _: object) -> None:
            if step == last - 1:  # after the checkpoint of the step before
                raise InterruptedRunError

        with pytest.raises(InterruptedRunError):
            self.train(self.recipe, tmp_path, scenes, break_off)
        steps: list[int] = []
        model = self.train(self.recipe, tmp_path, scenes, lambda step, _: steps.append(step))
        assert steps == [last - 1, last]
        assert model is not None
        assert (model / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
        logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (tmp_path, trained.parent)]
        assert logs[0] == logs[1]
        assert [json.loads(line)["step"] for line in logs[0]] == list(range(1, last + 1))

    def test_a_run_that_is_told_to_stop_continues_exactly(
        self, scenes: SceneArrays, trained: Path, tmp_path: Path
    ) -> None:
        last = self.recipe.steps

        def stop(step: int, _: object) -> None:
            if step == last - 1:  # where there is no checkpoint otherwise
                signal.raise_signal(signal.SIGTERM)

        assert self.train(self.recipe, tmp_path, scenes, stop) is None
        assert not (tmp_path / "model").exists()
        steps: list[int] = []
        model = self.train(self.recipe, tmp_path, scenes, lambda step, _: steps.append(step))
        assert steps == [last]
        assert model is not None
        assert (model / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()

    def test_another_recipe_is_refused(self, scenes: SceneArrays, trained: Path) -> None:
        with pytest.raises(PartCLIPSegError, match=self.difference):
            self.train(self.other, trained.parent, scenes)


class MethodTester:
    """Training of a method on CLIP's frozen towers; the module has the fixture `run`, which starts from ``start``."""

    stop_at: ClassVar[int]
    """Step after which a run is stopped."""
    split_steps: ClassVar[int]
    """Number of steps that are taken in micro-batches."""
    tolerance: ClassVar[float]
    """Relative tolerance of the terms of the loss: float32 sums come in another order, and the weights follow."""

    def test_a_stopped_run_goes_on_bit_for_bit(self, run: Recipe, squares: Any, tmp_path: Path) -> None:
        stopped = run_training(run, squares, tmp_path / "stopped", observer=StopAt(self.stop_at))
        assert (stopped.step, stopped.finished) == (self.stop_at, False)
        assert run_training(run, squares, tmp_path / "stopped").finished
        run_training(run, squares, tmp_path / "whole")
        assert same_weights(tmp_path / "stopped", tmp_path / "whole")
        assert trace(tmp_path / "stopped") == trace(tmp_path / "whole")
        segmenter = PartSegmenter.from_pretrained(tmp_path / "whole" / "model", device="cpu")
        assert segmenter(np.zeros((40, 50, 3), np.uint8)).label_map.shape == (40, 50)

    def test_micro_batches_add_up_to_the_batch(self, run: Recipe, squares: Any, tmp_path: Path) -> None:
        run = replace(run, steps=self.split_steps)
        run_training(run, squares, tmp_path / "whole")
        run_training(replace(run, gradient_accumulation=4), squares, tmp_path / "split")
        whole, split = trace(tmp_path / "whole"), trace(tmp_path / "split")
        for name in whole:
            np.testing.assert_allclose(split[name], whole[name], rtol=1e-4, atol=self.tolerance, err_msg=name)


def moved_by_training(start: Path, output: Path) -> set[str]:
    """Check that the loss of the run fell, and name the modules whose weights differ from those of the start."""
    total = trace(output)["total"]
    assert np.mean(total[-5:]) < 0.7 * total[0]
    before, after = load_model(start).state_dict(), load_model(output / "model").state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
