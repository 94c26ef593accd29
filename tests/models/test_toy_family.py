"""The interface is enough: a family defined here, in some sixty lines, goes through every room of the house."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.tester import FamilyTester, noise
from torch import Tensor, nn
from transformers import PreTrainedConfig

from partclipseg.apps.cli import main
from partclipseg.data.augment import Augmentation
from partclipseg.data.datasets import open_dataset
from partclipseg.errors import PartCLIPSegError
from partclipseg.evaluation.choices import PROTOCOLS
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.photos import group_records, read_batches
from partclipseg.evaluation.run import score
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models import registry
from partclipseg.models.interface import Inputs, PartModel, PartOutput, Words, register
from partclipseg.models.settings import MethodSettings
from partclipseg.training.data import TrainingData
from partclipseg.training.loop import run_training
from partclipseg.training.observer import Observer, Progress
from partclipseg.training.recipe import Recipe, Retention
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_dict({"dog": ["ear", "tail"], "bus": ["wheel", "door"]})


class ToyConfig(PreTrainedConfig):
    model_type = "toy"

    image_shape: tuple[int, int] = (64, 64)
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.25, 0.25, 0.25)
    width: int = 16
    vocab_size: int = 600


@dataclass(frozen=True)
class ToySettings(MethodSettings):
    family: ClassVar[str] = "toy"


@register
class ToyModel(PartModel):
    """Compares patches with the mean of a phrase's tokens."""

    config_class = ToyConfig
    settings_class = ToySettings

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.patches = nn.Conv2d(3, config.width, 8, stride=8)
        self.background = nn.Parameter(torch.zeros(1, config.width))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding | nn.Conv2d):
            nn.init.normal_(module.weight, std=0.2)

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        return [f"{part} of {object_}" for object_, part in vocabulary.object_parts]

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1)  # [K, L, 1]
        return (self.tokens(input_ids) * mask).sum(1) / mask.sum(1)

    def forward(self, inputs: Inputs, words: Words, attention_pairs: Tensor | None = None) -> PartOutput:
        patches = self.patches(inputs["pixel_values"])  # [B, D, h, w]
        classes = torch.cat([words.embeddings.to(self.dtype), self.background])  # [N_c + 1, D]
        return PartOutput(object_part_logits=torch.einsum("bdhw,kd->bkhw", patches, classes))


def toy() -> ToyModel:
    torch.manual_seed(0)
    return ToyModel(ToyConfig()).eval()


@pytest.fixture(autouse=True)
def registered(monkeypatch) -> None:
    monkeypatch.setitem(registry.FAMILIES, "toy", f"{__name__}:ToyModel")


@pytest.fixture
def directory(tmp_path: Path, tokenizer_directory: Path) -> Path:
    """A toy model as any other lies on the disk."""
    toy().save_pretrained(tmp_path / "toy")
    registry.load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def segmenter(directory: Path) -> PartSegmenter:
    segmenter = PartSegmenter.from_pretrained(directory, device="cpu")
    assert isinstance(segmenter.model, ToyModel)
    return segmenter


class TestToy(FamilyTester):
    @pytest.fixture
    def model(self, config):
        return toy()


# -- inference ------------------------------------------------------------------------------------------------


def test_photos_are_segmented(segmenter):
    photos = noise((64, 64), (50, 90))
    alone, together = segmenter(photos[0], WORDS), segmenter(photos, WORDS)
    assert [result.size for result in together] == [(64, 64), (50, 90)]
    assert np.array_equal(alone.label_map, together[0].label_map)
    assert len(np.unique(alone.label_map)) > 1
    known = segmenter(photos[0], WORDS, objects=["dog"])
    assert set(np.unique(known.object_map)) == {WORDS.object_index("dog")}


def test_photos_are_looked_at_again(segmenter, monkeypatch):
    photo = noise((400, 500))[0]
    looks: list[int] = []
    prepare = segmenter.model.prepare
    monkeypatch.setattr(segmenter.model, "prepare", lambda photos: (looks.append(len(photos)), prepare(photos))[1])
    plain, zoomed = segmenter(photo, WORDS), segmenter(photo, WORDS, zoom=True)
    assert len(looks) > 2
    assert zoomed.size == plain.size
    assert not np.array_equal(zoomed.scores, plain.scores)
    assert set(np.unique(segmenter(photo, WORDS, zoom=True, objects=["bus"]).object_map)) == {WORDS.object_index("bus")}


def test_scores_are_counted(segmenter, own_data):
    dataset = open_dataset("index-png", own_data, "test")
    evaluators = {name: Evaluator(dataset.vocabulary, dataset.seen, name) for name in PROTOCOLS}
    for batch in read_batches(dataset, group_records(dataset), segmenter.model.image_shape, batch_size=4, workers=0):
        score(segmenter, dataset.vocabulary, batch, evaluators)
    for evaluator in evaluators.values():
        assert 0 < evaluator.running_iou() < 100


# -- training -------------------------------------------------------------------------------------------------


class StopAt(Observer):
    """Tells the run to stop, as SIGTERM does, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progressed(self, progress: Progress) -> None:
        if progress.step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def recipe(directory) -> Recipe:
    return Recipe(
        dataset="index-png",
        start=str(directory),
        settings=ToySettings(),
        augmentation=Augmentation(crop_edge=None),
        held_out=1,
        steps=3,
        batch_size=2,
        gradient_accumulation=2,
        learning_rate=1e-2,
        precision="float32",
        evaluate_every=3,
        log_every=1,
    )


def test_a_run_is_stopped_and_continued(recipe, own_data, tmp_path):
    assert recipe.method == "toy"
    data = TrainingData.split(open_dataset("index-png", own_data, "train"), recipe.held_out, recipe.seed)
    assert run_training(recipe, data, tmp_path / "whole").finished
    stopped = run_training(recipe, data, tmp_path / "parts", observer=StopAt(1))
    assert (stopped.step, stopped.finished) == (1, False)
    finished = run_training(recipe, data, tmp_path / "parts")
    assert finished.finished
    assert finished.scores is not None
    whole, parts = (registry.load_model(tmp_path / name / "model") for name in ("whole", "parts"))
    start = toy().state_dict()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
        assert not torch.equal(tensor, start[name]), name
    assert PartSegmenter.from_pretrained(finished.directory)(noise((30, 40))[0]).vocabulary == data.vocabulary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 32}, "photos of 64x64 pixels only: leave image_size out"),
        ({"retention": Retention(weight=1.0, words=("dog",))}, "is no CLIPSeg, whose maps word retention could keep"),
    ],
)
def test_settings_that_a_family_does_not_follow(recipe, own_data, tmp_path, changes, message):
    data = TrainingData.split(open_dataset("index-png", own_data, "train"), recipe.held_out, recipe.seed)
    with pytest.raises(PartCLIPSegError, match=message):
        run_training(replace(recipe, **changes), data, tmp_path / "run")


# -- applications ---------------------------------------------------------------------------------------------


def files(folder: Path, photos: Sequence[np.ndarray]) -> Path:
    folder.mkdir()
    for index, photo in enumerate(photos):
        Image.fromarray(photo).save(folder / f"{index}.png")
    return folder


def test_a_server_answers(segmenter):
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from partclipseg.apps.serve.command import create_app
    from partclipseg.apps.serve.engine import Engine

    buffer, photo = io.BytesIO(), noise((50, 90))[0]
    Image.fromarray(photo).save(buffer, "PNG")
    engine = Engine({"toy": segmenter})
    try:
        with TestClient(create_app(engine)) as client:
            assert client.get("/v1/models").json()["models"][0]["name"] == "toy"
            answer = client.post(
                "/v1/segment",
                files={"photo": buffer.getvalue()},
                data={"vocabulary": "dog: ear, tail; bus: wheel, door"},
            )
            assert answer.status_code == 200, answer.text
    finally:
        engine.close()
    found = {segment["name"] for segment in answer.json()["segments"]}
    assert found == {segment.name for segment in segmenter(photo, WORDS).segments()}


def test_a_folder_is_labelled(directory, tmp_path, capsys):
    folder = files(tmp_path / "photos", noise((50, 90), (64, 64), (30, 30)))
    arguments: list[Any] = ["label", folder, "--model", directory, "--vocabulary", "dog: ear, tail; bus: wheel"]
    arguments += ["--output", tmp_path / "labels", "--formats", "coco", "--workers", "1", "--device", "cpu"]
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    written = json.loads((tmp_path / "labels" / "annotations.coco.json").read_text())
    assert len(written["images"]) == 3
    assert written["annotations"]


def test_a_result_is_explained(segmenter):
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.explain import explain

    photo = noise((50, 90))[0]
    explained = explain(segmenter, photo, WORDS)
    assert np.array_equal(explained.result.label_map, segmenter(photo, WORDS).label_map)
    assert {heat.kind for heat in explained.probabilities} == {"object-part"}
    assert explained.attention == ()


def test_what_a_family_lacks_is_said(directory, tmp_path, capsys):
    out = tmp_path / "onnx"
    assert main(["export", str(directory), str(out)]) != 0
    assert "models of type toy cannot be exported to ONNX" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
