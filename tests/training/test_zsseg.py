"""ZSSeg+ in the loop: it starts from CLIP, learns, stops, goes on bit for bit, and shares a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.test_families import small_zsseg
from tests.training.tester import MethodTester, moved_by_training, trace

from partclipseg.losses.config import SetLossConfig
from partclipseg.models.registry import load_model, load_tokenizer
from partclipseg.models.zsseg.model import ZSSegModel
from partclipseg.models.zsseg.settings import ZSSegSettings
from partclipseg.training.loop import run_training
from partclipseg.training.recipe import Recipe


@pytest.fixture
def run(recipe: Recipe, tokenizer_directory: Path, tmp_path: Path) -> Recipe:
    torch.manual_seed(0)
    config = small_zsseg(longest_edge=64, shortest_edge=64, backbone_norm="group")
    ZSSegModel(config).save_pretrained(tmp_path / "start")
    load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "start")
    recipe = replace(recipe, steps=8, max_gradient_norm=1.0, evaluate_every=8)
    return replace(recipe, start=str(tmp_path / "start"), settings=ZSSegSettings())


class TestZSSeg(MethodTester):
    stop_at, split_steps, tolerance = 3, 2, 1e-5


@pytest.mark.parametrize("prompts", [1.0, 0.0])
def test_clip_stays_and_the_rest_learns(prompts: float, run: Recipe, squares, tmp_path: Path) -> None:
    settings = ZSSegSettings(loss=SetLossConfig(prompt_weight=prompts))
    run = replace(run, steps=25, learning_rate=5e-3, held_out=0, settings=settings)
    run_training(run, replace(squares, held_out=[]), tmp_path / "run")
    moved = moved_by_training(tmp_path / "start", tmp_path / "run")
    assert moved == {"background", "proposals"} | ({"composed"} if prompts else set())
    assert ("prompts" in trace(tmp_path / "run")) == bool(prompts)


def test_a_start_from_clip_and_a_tokenizer_of_whole_words(recipe: Recipe, squares, tmp_path: Path) -> None:
    """The built-in model's tokenizer has neither comma nor full stop: both are added, and kept with the model."""
    from transformers import CLIPConfig, CLIPModel

    from partclipseg.models.registry import built_in_model

    tokenizer = load_tokenizer(built_in_model())
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**tower, "image_size": 64, "patch_size": 16}
    text = {**tower, **text, "max_position_embeddings": 48}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    run = replace(recipe, start=str(tmp_path / "clip"), settings=ZSSegSettings(sizes="tiny"), steps=1)
    run_training(run, squares, tmp_path / "run")
    model, words = load_model(tmp_path / "run/model"), load_tokenizer(tmp_path / "run/model")
    assert words.convert_ids_to_tokens([model.config.separator_id, model.config.dot_id]) == [",", "."]
    assert len(model.clip.text_model.embeddings.token_embedding.weight) == len(words) == len(tokenizer) + 2
    assert model.image_shape == (64, 64)
    assert not any("running_mean" in name for name in model.state_dict())
