"""The backbone of PartShapes: trained, stopped, continued, and taken as a start."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.training.tester import TowerTester

from partclipseg.errors import UsageError
from partclipseg.models.registry import load_tokenizer
from partclipseg.shapes.cache import render_split
from partclipseg.shapes.world import partshapes_world
from partclipseg.training import pretraining
from partclipseg.training.backbone import part_words, train_backbone
from partclipseg.training.recipe import partshapes, partshapes_clipseg
from partclipseg.training.start import build_model
from partclipseg.training.towers import BackboneRecipe

RECIPE = BackboneRecipe(
    steps=6, batch_size=4, scenes=16, image_size=32, warmup_steps=2, checkpoint_every=2, log_every=1
)


@pytest.fixture(scope="module")
def scenes():
    return render_split("base", RECIPE.scenes, RECIPE.image_size, workers=1)


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> Path:
    model = train_backbone(RECIPE, tmp_path_factory.mktemp("backbone"), scenes)
    assert model is not None
    return model


class TestBackbone(TowerTester):
    recipe, other, train = RECIPE, replace(RECIPE, batch_size=3), staticmethod(train_backbone)
    difference = "batch_size: 4 then, 3 now"


def test_several_processes_are_refused(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "join_processes", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(UsageError, match=r"by one process.*partshapes-backbone --output .*model"):
        train_backbone(RECIPE, tmp_path / "model", scenes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", [partshapes, partshapes_clipseg])
def test_it_is_a_start_for_the_recipes(trained, recipe):
    model = build_model(replace(recipe(), start=str(trained), image_size=32))
    source = load_file(trained / "model.safetensors")
    # The file holds half precision, which float32 holds exactly.
    assert torch.equal(model.decoder.film.mul.weight, source["decoder.film_mul.weight"].float())
    tokenizer = load_tokenizer(trained)
    ids = tokenizer(["rabbit", "antler", "zeppelin"])["input_ids"]
    assert tokenizer.unk_token_id not in ids[0] + ids[1]
    assert tokenizer.unk_token_id in ids[2]


def test_the_losses_fall(scenes, tmp_path):
    losses = []
    recipe = replace(RECIPE, steps=20, log_every=5, checkpoint_every=20, learning_rate=3e-3)
    train_backbone(recipe, tmp_path, scenes, lambda _, values: losses.append(values["masks"]))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"image_size": 30}, "multiple of 8"),
        ({"warmup_steps": 6}, "less than the 6 steps"),
    ],
)
def test_impossible_recipes(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(RECIPE, **changes)


def test_part_words_are_those_of_seen_objects():
    world = partshapes_world()
    vocabulary = world.vocabulary
    labels = np.arange(-1, len(vocabulary), dtype=np.int16)
    words = part_words(labels)
    assert words[0] == -1
    for pair, word in zip(vocabulary.object_parts, words[1:], strict=True):
        assert word == (-1 if pair.object in world.unseen_objects else vocabulary.parts.index(pair.part))


def test_part_words_are_learnt_where_they_have_a_weight(scenes, tmp_path):
    losses = []
    recipe = replace(RECIPE, steps=20, checkpoint_every=20, part_weight=1.0, learning_rate=3e-3)
    train_backbone(recipe, tmp_path, scenes, lambda _, values: losses.append(values["parts"]))
    assert losses[-1] < losses[0]
