"""No training step reads a value back from the device: on a GPU it is captured as one CUDA graph, which cannot wait.

Steps run on the CPU here, while every operation is watched for those that wait on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.models.partcatseg.small import build, small_config
from tests.models.test_families import small_zsseg
from tests.waiting import NoWaiting
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from partclipseg.models.cuda_graphs import StepGradients
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.settings import CATSegSettings, PartCATSegSettings
from partclipseg.models.registry import load_tokenizer
from partclipseg.models.zsseg.model import ZSSegModel
from partclipseg.models.zsseg.settings import ZSSegSettings
from partclipseg.shapes.cache import render_split
from partclipseg.training import loop, pretraining
from partclipseg.training.aggregation import train_aggregation
from partclipseg.training.backbone import train_backbone
from partclipseg.training.detector import train_detector
from partclipseg.training.guidance import train_guidance
from partclipseg.training.recipe import Recipe, Retention, as_partcatseg
from partclipseg.training.towers import AggregationRecipe, BackboneRecipe, DetectorRecipe, GuidanceRecipe


class WatchedGradients(StepGradients):
    """Repeats each step while it is watched: the first run may make what it keeps."""

    steps = 0

    def __call__(self, inputs: Mapping[str, Tensor], add: bool = False) -> dict[str, Tensor]:
        super().__call__(inputs, add)
        # Prompts in main memory are cut to the longest, those on a GPU and in a compiled pass are not.
        with NoWaiting(), mock.patch.object(torch.compiler, "is_compiling", return_value=True):
            terms = super().__call__(inputs, add)
        type(self).steps += 1
        return terms


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> type[WatchedGradients]:
    for module in (loop, pretraining):
        monkeypatch.setattr(module, "StepGradients", WatchedGradients)
    monkeypatch.setattr(WatchedGradients, "steps", 0)
    return WatchedGradients


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: x.prod(0).sum().backward(),
        lambda x: x * torch.tensor([1.0, 2.0]),
        lambda x: bool(x.any()),
        lambda x: x.repeat_interleave((x > 0).long()),
    ],
)
def test_what_waits_is_found(wait: Any) -> None:
    x = torch.ones(2, requires_grad=True)
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        wait(x)


TOWERS = {
    "backbone": (BackboneRecipe, train_backbone, "base"),
    "guidance": (GuidanceRecipe, train_guidance, "base"),
    "detector": (DetectorRecipe, train_detector, "detection"),
}


@pytest.mark.parametrize("name", TOWERS)
def test_steps_of_towers(name: str, watched: type[WatchedGradients], tmp_path: Path) -> None:
    kind, train, split = TOWERS[name]
    recipe: Any = kind(steps=1, batch_size=4, scenes=8, image_size=32, warmup_steps=0)
    train(recipe, tmp_path, render_split(split, 8, 32, workers=1))
    assert watched.steps == 1


def partclipseg(recipe: Recipe, folder: Path) -> Recipe:
    return replace(recipe, retention=KEPT)


def zsseg(recipe: Recipe, folder: Path) -> Recipe:
    ZSSegModel(small_zsseg(longest_edge=64, shortest_edge=64, backbone_norm="group")).save_pretrained(folder)
    return replace(recipe, start=str(folder), settings=ZSSegSettings())


def catseg(recipe: Recipe, folder: Path) -> Recipe:
    config_class: Any = CATSegConfig
    build(small_config(config_class)).save_pretrained(folder)
    return replace(as_partcatseg(recipe), start=str(folder), settings=CATSegSettings())


def filtered(recipe: Recipe, folder: Path) -> Recipe:
    build(small_config(PartCATSegConfig)).save_pretrained(folder)
    settings = PartCATSegSettings(attention_filter=True, pair_affinity=True)
    return replace(as_partcatseg(recipe), start=str(folder), settings=settings, recompute=True)


def partcatseg(recipe: Recipe, folder: Path) -> Recipe:
    """PartCATSeg on a CLIPSeg's towers, which keeps the maps of words."""
    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=128, patch_size=16)
    Dinov2Model(config).save_pretrained(folder)
    settings = PartCATSegSettings(guidance=str(folder), sizes="tiny")
    method = replace(as_partcatseg(recipe), start=recipe.start, settings=settings)
    return replace(method, retention=KEPT, image_size=None)


KEPT = Retention(weight=1.0, words=("dog", "bus", "boat"), words_per_step=2)


def test_steps_of_the_aggregation(watched: type[WatchedGradients], tmp_path: Path) -> None:
    scenes = render_split("base", 4, 32, workers=1)
    small: Any = {"steps": 1, "batch_size": 2, "scenes": 4, "image_size": 32, "warmup_steps": 0}
    backbone = train_backbone(BackboneRecipe(**small, part_weight=1.0), tmp_path / "backbone", scenes)
    guidance = train_guidance(GuidanceRecipe(**small), tmp_path / "guidance", scenes)
    towers: dict[str, Any] = {"backbone": str(backbone), "guidance": str(guidance)}
    train_aggregation(AggregationRecipe(**small, **towers), tmp_path / "aggregation", scenes)
    assert watched.steps == 3


@pytest.mark.parametrize("of", [partclipseg, zsseg, catseg, filtered, partcatseg])
def test_steps_of_methods(of: Any, recipe: Recipe, squares, tokenizer_directory: Path, watched, tmp_path: Path) -> None:
    load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "start")
    run = of(recipe, tmp_path / "start")
    run = replace(run, steps=1, batch_size=4, held_out=0, gradient_accumulation=2, precision="bfloat16")
    loop.run_training(run, replace(squares, held_out=[]), tmp_path / "run")
    assert watched.steps == 2
