"""Exported PartCATSeg and CAT-Seg against PyTorch, through the script that ships with the graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tests.apps.export.sharing import sharing
from tests.models.partcatseg.small import build, small_config

from partclipseg.apps.cli import main
from partclipseg.apps.export import segment as onnx_segment
from partclipseg.apps.export.command import AGREEMENT
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.registry import load_tokenizer
from partclipseg.shapes.renderer import render_scene
from partclipseg.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

WORDS = "dog: ear, tail, leg; bus: wheel, window; bird: wing, leg"


@pytest.fixture(scope="session")
def programs() -> dict[str, Any]:
    """Graphs that the models here have in common: their weights are the same."""
    return {}


@pytest.fixture(scope="session", params=["PartCATSeg", "PartCATSeg as released", "CAT-Seg"])
def exported(
    request, programs: dict[str, Any], tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PartSegmenter, Path]:
    config_class = CATSegConfig if request.param == "CAT-Seg" else PartCATSegConfig
    model = build(tiny(config_class, reference=request.param.endswith("released")))
    model.clip.load_state_dict(build(tiny(PartCATSegConfig)).clip.state_dict())
    folder = tmp_path_factory.mktemp("export")
    model.save_pretrained(folder / "model")
    load_tokenizer(tokenizer_directory).save_pretrained(folder / "model")
    same = ("text_encoder",) if request.param == "CAT-Seg" else ("text_encoder", "decoder")
    with sharing(programs, same):
        assert main(["export", str(folder / "model"), "--output", str(folder / "onnx")]) == 0
    return PartSegmenter.from_pretrained(folder / "model", device="cpu"), folder / "onnx"


def tiny(config_class: Any, reference: bool = False) -> Any:
    """A configuration with one layer, which leaves PartCATSeg classes of less than the minimum probability."""
    config = small_config(config_class, num_layers=1, reference=reference)
    config.clip_config.text_config.num_hidden_layers = 1
    return config


@pytest.mark.parametrize("size", [(96, 128), (150, 61), (64, 300)], ids=str)
def test_label_maps_are_equal(exported, size):
    segmenter, folder = exported
    photo = Image.fromarray(render_scene("test", 3, 160).image).resize(size)
    check_equal(segmenter, onnx_segment.Segmenter(folder), photo)


@pytest.mark.parametrize("name", ["dog.jpg", "truck.jpg"])
def test_label_maps_of_a_real_photo_are_equal(exported, name, shared: Path):
    segmenter, folder = exported
    check_equal(segmenter, onnx_segment.Segmenter(folder), Image.open(shared / "data" / "photos" / name).convert("RGB"))


def check_equal(segmenter: PartSegmenter, onnx: onnx_segment.Segmenter, photo: Image.Image) -> None:
    """Compare what a user gets: the script with its minimum probability, and `PartSegmenter` with its own."""
    found = onnx(photo, onnx_segment.read_words(WORDS))
    expected = segmenter(photo, WORDS)
    assert len(np.unique(found)) >= 3, "a map of one label would agree by chance"
    # float32 sums in another order decide ties differently, and nothing else.
    assert (found == expected.label_map).mean() >= AGREEMENT


def test_the_minimum_probability_counts(exported):
    """Pixels below it are background in the script and have no part in `PartSegmenter`."""
    segmenter, folder = exported
    photo = Image.fromarray(render_scene("test", 3, 160).image)
    onnx, pairs = onnx_segment.Segmenter(folder), onnx_segment.read_words(WORDS)
    onnx.config["min_part_probability"] = least = 0.55
    found, free = onnx(photo, pairs), segmenter(photo, WORDS, min_part_probability=0.0)
    assert 0 < (found != free.label_map).mean() < 1, "the minimum must change some pixels, not all"
    assert (found == segmenter(photo, WORDS, min_part_probability=least).label_map).mean() >= AGREEMENT


@pytest.mark.parametrize(("batch", "words"), [(1, "dog: ear"), (3, WORDS)])
def test_photos_and_words_come_in_any_number(exported, batch, words):
    segmenter, folder = exported
    onnx, vocabulary = onnx_segment.Segmenter(folder), Vocabulary.from_text(words)
    images = [Image.fromarray(render_scene("test", index, 96).image) for index in range(batch)]
    found = onnx.decode(onnx.encode_photos(onnx.photo_inputs(images)), vocabulary.object_parts)
    prepared = segmenter.model.prepare([np.asarray(image) for image in images])
    with torch.inference_mode():
        expected = segmenter.model(prepared, segmenter.words(vocabulary)).object_part_logits.sigmoid()
    assert found["object_part_probabilities"].shape == expected.shape
    # Logits of order 1 after some hundred float32 sums in another order.
    np.testing.assert_allclose(found["object_part_probabilities"], expected.numpy(), atol=5e-5)


def test_the_card_tells_how_photos_are_prepared(exported):
    card = (exported[1] / "README.md").read_text()
    assert "resized to a shortest edge of 70 pixels (at most 100)" in card
    assert "64 x 64 (`pixel_values`)" in card
    assert ("padded to multiples" in card) == (not exported[0].model.config.repaired("padding"))
