"""Words that the start's tokenizer lacks: they get embeddings of their own, and the old words stay what they were."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from partclipseg import PartSegmenter
from partclipseg.errors import PartCLIPSegError
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import load_tokenizer
from partclipseg.shapes.tokenizer import build_tokenizer
from partclipseg.training.data import TrainingData
from partclipseg.training.loop import run_training
from partclipseg.training.new_words import learn_new_words
from partclipseg.training.recipe import Recipe, as_baseline
from partclipseg.training.start import build_model, find_start


@pytest.fixture
def word_level(model_directory: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer knows whole words: those of the squares but for *wheel* and *door*."""
    tokenizer = build_tokenizer(["cat", "car", "head", "leg"], max_length=24)
    model = PartCLIPSegModel.from_pretrained(model_directory)
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {**model.config.text_config.to_dict(), **tokens}
    config = type(model.config)(**{**model.config.to_dict(), "text_config": text})
    PartCLIPSegModel(config).save_pretrained(tmp_path / "words")
    tokenizer.save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def embeddings(model: PartCLIPSegModel, tokenizer, words: list[str]) -> torch.Tensor:
    tokens = tokenizer(words, padding=True, return_tensors="pt")
    return model.encode_text(tokens["input_ids"], tokens["attention_mask"]).detach()


def test_new_words_can_be_told_apart_and_old_ones_stay(word_level: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = PartCLIPSegModel.from_pretrained(word_level), load_tokenizer(word_level)
    old, new = ["cat", "head"], ["Front hood", "front tailgate", "hood"]
    before = embeddings(model, tokenizer, old)
    trap = embeddings(model, tokenizer, ["hood", "tailgate"])  # rows of one batch may differ by rounding
    torch.testing.assert_close(trap[0], trap[1], rtol=0, atol=1e-5)

    with caplog.at_level(logging.WARNING):
        assert learn_new_words(model, tokenizer, [*old, *new]) == ["front", "hood", "tailgate"]
    assert "front, hood, tailgate" in caplog.text
    assert torch.equal(embeddings(model, tokenizer, old), before)
    assert torch.pdist(embeddings(model, tokenizer, [*old, *new])).min() > 1e-3
    assert len(tokenizer) == len(model.clip.text_model.embeddings.token_embedding.weight) == 4 + 4 + 3
    assert tokenizer.unk_token_id in tokenizer("wing")["input_ids"]  # nobody asked for it
    assert learn_new_words(model, tokenizer, new) == []


def test_a_tokenizer_that_spells_needs_no_new_words(model_directory: Path) -> None:
    model, tokenizer = PartCLIPSegModel.from_pretrained(model_directory), load_tokenizer(model_directory)
    size = len(tokenizer)
    assert learn_new_words(model, tokenizer, ["carburettor"]) == []
    assert len(tokenizer) == size


def test_a_run_trains_continues_and_exports_its_new_words(
    word_level: Path, recipe: Recipe, squares: TrainingData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(recipe, start=str(word_level), steps=2, checkpoint_every=1)
    run_training(recipe, squares, tmp_path / "run")
    (tmp_path / "run/model/config.json").unlink()
    run_training(recipe, squares, tmp_path / "run")  # from the checkpoint, whose text tower has grown
    torch.manual_seed(recipe.seed)
    start, tokenizer = build_model(recipe), load_tokenizer(word_level)
    words = learn_new_words(start, tokenizer, start.prompts(squares.vocabulary))
    assert words == ["door", "wheel"]

    caplog.clear()
    segmenter = PartSegmenter.from_pretrained(tmp_path / "run/model", device="cpu")
    ids = [segmenter.tokenizer.convert_tokens_to_ids(word) for word in words]
    rows = segmenter.model.clip.text_model.embeddings.token_embedding.weight[ids]
    assert (rows != start.clip.text_model.embeddings.token_embedding.weight[ids]).any(1).all()  # both were trained
    segmenter(squares.train[0].image)
    assert "never seen" not in caplog.text


def test_the_built_in_model_is_a_start(
    recipe: Recipe, squares: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = replace(recipe, start="partshapes", steps=1, image_size=None)
    result = run_training(recipe, squares, tmp_path / "run")
    built_in = PartSegmenter.from_pretrained(None, device="cpu").model.config
    assert PartCLIPSegModel.from_pretrained(result.directory).config.image_shape == built_in.image_shape
    with pytest.raises(PartCLIPSegError, match="partshapes"):  # it is a PartCLIPSeg
        build_model(as_baseline(recipe))
    (tmp_path / "partshapes").mkdir()
    assert find_start(recipe) == "partshapes"  # a directory of that name comes first, as for `predict`
