"""Exported CLIPSeg without training against PyTorch, through the script that ships with the graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tests.apps.export.sharing import sharing
from tests.conftest import shallow_config

from partclipseg.apps.cli import main
from partclipseg.apps.export import segment as onnx_segment
from partclipseg.apps.export.command import AGREEMENT
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.clipseg.plain import write_processor
from partclipseg.models.prompting import Prompting
from partclipseg.models.registry import load_tokenizer
from partclipseg.shapes.renderer import render_scene

WORDS = "dog: ear, tail, leg; bus: wheel; bird: wing, leg"

ASKED = {
    "default": ([], Prompting()),
    "no gate": (
        ["--prompt", "{part}", "the {part} of the {object}", "--threshold", "0.45", "--no-object-gate"],
        Prompting(("{part}", "the {part} of the {object}"), 0.45, object_gate=False),
    ),
    "averaged": (
        ["--prompt", "{object} {part}", "the {part} of the {object}", "--threshold", "0.48"],
        Prompting(("{object} {part}", "the {part} of the {object}"), 0.48),
    ),
}


@pytest.fixture(scope="module")
def directory(tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIPSeg as transformers saves it, with a tokenizer and the processor's file."""
    config, folder = shallow_config(), tmp_path_factory.mktemp("plain") / "clipseg"
    values = config.to_dict()
    fields = ("text_config", "vision_config", "projection_dim", "reduce_dim", "extract_layers")
    torch.manual_seed(0)
    source = CLIPSegForImageSegmentation(
        CLIPSegConfig(
            **{field: values[field] for field in fields},
            decoder_intermediate_size=32,
            use_complex_transposed_convolution=True,
        )
    )
    with torch.no_grad():  # transformers draws decoders whose logits are in the thousands
        for name, parameter in source.decoder.named_parameters():
            if "norm" not in name:
                parameter.mul_(0.15)
    source.save_pretrained(folder)
    load_tokenizer(tokenizer_directory).save_pretrained(folder)
    write_processor(folder, config)
    return folder


@pytest.fixture(scope="module")
def programs() -> dict:
    """The encoders of the model, which are the same however it is asked."""
    return {}


@pytest.fixture(
    scope="module",
    params=["averaged", *(pytest.param(name, marks=pytest.mark.slow) for name in ("default", "no gate"))],
)
def exported(request, programs, directory, tmp_path_factory) -> tuple[PartSegmenter, Path]:
    options, prompting = ASKED[request.param]
    folder = tmp_path_factory.mktemp("export") / "onnx"
    with sharing(programs, ("photo_encoder", "text_encoder")):
        assert main(["export", str(directory), "--output", str(folder), *options]) == 0
    return PartSegmenter.from_pretrained(directory, device="cpu", prompting=prompting), folder


@pytest.mark.parametrize("words", [WORDS, "dog: ear"])
def test_label_maps_are_equal(exported, words):
    segmenter, folder = exported
    photos = [Image.fromarray(render_scene("test", index, 160).image).resize((173, 121)) for index in range(3)]
    onnx = onnx_segment.Segmenter(folder)
    found = [onnx(photo, onnx_segment.read_words(words)) for photo in photos]
    expected = [segmenter(photo, words).label_map for photo in photos]
    # float32 sums in another order decide ties differently, and nothing else.
    assert np.mean([a == b for a, b in zip(found, expected, strict=True)]) >= AGREEMENT
    if words == WORDS:
        assert len(np.unique(expected)) >= 3, "a map of one label would agree by chance"
        assert -1 in np.unique(expected)


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.55, 1.0])
def test_the_script_keeps_the_threshold_of_the_configuration(exported, threshold):
    segmenter, folder = exported
    photo = Image.fromarray(render_scene("test", 3, 128).image)
    onnx, before = onnx_segment.Segmenter(folder), segmenter.model.prompting
    onnx.config["threshold"] = threshold
    segmenter.model.ask(Prompting(before.prompts, threshold, before.object_gate))
    try:
        expected = segmenter(photo, WORDS).label_map
    finally:
        segmenter.model.ask(before)
    assert (onnx(photo, onnx_segment.read_words(WORDS)) == expected).mean() >= AGREEMENT


def test_the_card_tells_what_was_asked(exported):
    segmenter, folder = exported
    card, gate = (folder / "README.md").read_text(), segmenter.model.prompting.object_gate
    assert f"a probability of {segmenter.model.prompting.threshold:g}, the `threshold`" in card
    assert ("the best object of a pixel decides" in card) == gate
    assert ("| decoder | in | `object_embeddings` |" in card) == gate


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--threshold", "2"], "--threshold must be from 0 to 1"), (["--prompt", "dog"], "must have {part}")],
)
def test_wrong_options(directory, tmp_path, capsys, option, message):
    assert main(["export", str(directory), "--output", str(tmp_path / "x"), *option]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_options_are_for_a_plain_clipseg(model_directory, tmp_path, capsys):
    assert main(["export", str(model_directory), "--output", str(tmp_path / "x"), "--threshold", "0.4"]) == 2
    assert "are for a plain CLIPSeg" in " ".join(capsys.readouterr().err.split())


def test_words_with_braces_stay_as_they_are():
    assert onnx_segment.fill("the {part} of the {object}", "{part}", "{object}") == "the {object} of the {part}"
