"""A data set that renders itself, and recipes small enough for a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from partclipseg.data.augment import Augmentation
from partclipseg.data.sample import OUTSIDE, UNLABELLED, PartSample
from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_weights import to_clipseg
from partclipseg.models.partcatseg.settings import PartCATSegSettings
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.training.data import TrainingData
from partclipseg.training.recipe import Recipe
from partclipseg.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_dict({"cat": ["head", "leg"], "car": ["wheel", "door"]})


class Squares:
    """Noise with a two-part square: the object says which half of the photo, the part which half of the square."""

    def __init__(self, size: int = 12, edge: int = 64) -> None:
        self.size, self.edge = size, edge
        self.vocabulary = VOCABULARY

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> PartSample:
        generator = np.random.default_rng(index)
        edge = self.edge
        image = generator.integers(0, 80, (edge, edge, 3), dtype=np.uint8)
        parts = np.full((edge, edge), UNLABELLED, np.int32)
        objects = np.full((edge, edge), UNLABELLED, np.int32)
        kind = index % 2
        height = int(generator.integers(edge // 4, edge // 2))
        top, left = edge // 8, edge // 8 + kind * edge // 2
        width = edge // 3
        for half in range(2):
            rows = slice(top + half * height // 2, top + (half + 1) * height // 2)
            columns = slice(left, left + width)
            image[rows, columns, half + kind] = 250
            parts[rows, columns] = 2 * kind + half
            objects[rows, columns] = VOCABULARY.class_to_object[2 * kind + half]
        objects[-4:] = OUTSIDE
        return PartSample(image, parts, objects, key=f"square-{index}")


def training_data() -> TrainingData:
    return TrainingData.split(Squares(), held_out=2, seed=0)


@pytest.fixture
def squares() -> TrainingData:
    return training_data()


@pytest.fixture(scope="session")
def clipseg_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """A random CLIPSeg of the size of `model_directory`, with its tokenizer: what a run starts from."""
    torch.manual_seed(0)
    values = PartCLIPSegConfig.from_pretrained(model_directory).to_dict()
    values.pop("model_type")
    directory = tmp_path_factory.mktemp("clipseg")
    to_clipseg(CLIPSegBaseline(CLIPSegBaselineConfig(**values))).save_pretrained(directory)
    AutoTokenizer.from_pretrained(model_directory).save_pretrained(directory)
    return directory


@pytest.fixture
def recipe(clipseg_directory: Path) -> Recipe:
    return tiny_recipe(clipseg_directory)


def tiny_recipe(start: Path | str, **changes: object) -> Recipe:
    recipe = Recipe(
        dataset="coco",
        start=str(start),
        image_size=64,
        augmentation=Augmentation(crop_edge=None),
        held_out=2,
        steps=20,
        batch_size=4,
        learning_rate=1e-3,
        seed=5,
        precision="float32",
        evaluate_every=10,
        checkpoint_every=5,
        log_every=1,
    )
    return replace(recipe, **changes)  # pyright: ignore[reportArgumentType]


def recipe_from(start: Path | str, **changes: object) -> Recipe:
    """The tiny recipe of the method of `start`: PartCATSeg's, or PartCLIPSeg's."""
    recipe = tiny_recipe(start, **changes)
    kind = json.loads((Path(start) / "config.json").read_text())["model_type"]
    return replace(recipe, settings=PartCATSegSettings()) if kind == "partcatseg" else recipe


@pytest.fixture
def squares_dataset() -> Squares:
    return Squares()
