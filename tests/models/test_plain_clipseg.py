"""CLIPSeg without training: transformers' own logits and masks, a threshold, and object words that decide first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import shallow_config
from tests.models.tester import FamilyTester, noise
from transformers import CLIPSegForImageSegmentation

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.upsample import upsample
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg.plain import PlainCLIPSeg, write_processor
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.prompting import Prompting
from partclipseg.models.registry import load_model, load_tokenizer
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_text("dog: ear, tail; bus: wheel, door; cat: ear")
SIZES = [(64, 64), (40, 90)]


def plain(config) -> PlainCLIPSeg:
    values = config.to_dict()
    del values["model_type"]
    return PlainCLIPSeg(PlainCLIPSeg.config_class(**values)).eval()


class TestPlainCLIPSeg(FamilyTester):
    @pytest.fixture
    def model(self):
        return plain(shallow_config())

    def test_save_and_load_is_bit_equal(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        loaded = load_model(tmp_path)
        assert type(loaded) is PlainCLIPSeg
        assert loaded.image_shape == model.image_shape
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name

    def test_every_trained_parameter_gets_a_gradient(self, model):
        with pytest.raises(PartCLIPSegError, match="is not trained as it is: choose the method"):
            model.trained_parameters(model.settings_class())


class TestPlainCLIPSegWithoutTheGate(TestPlainCLIPSeg):
    @pytest.fixture
    def model(self):
        model = plain(shallow_config())
        model.ask(Prompting(("the {part} of the {object}", "{object} {part}"), 0.4, object_gate=False))
        return model


@pytest.fixture
def directory(random_clipseg, config, tmp_path, tokenizer_directory) -> Path:
    """A small random CLIPSeg as transformers saves it, with a tokenizer and the processor's file."""
    with torch.no_grad():  # transformers draws decoders whose logits are in the thousands: every probability 0 or 1
        for name, parameter in random_clipseg.decoder.named_parameters():
            if "norm" not in name:
                parameter.mul_(0.15)
    random_clipseg.save_pretrained(tmp_path / "clipseg")
    load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "clipseg")
    write_processor(tmp_path / "clipseg", config)
    return tmp_path / "clipseg"


def their_logits(directory: Path, prompts: list[str], pixels: torch.Tensor) -> torch.Tensor:
    """Transformers' logits `[B, K, h, w]` of each prompt."""
    source = CLIPSegForImageSegmentation.from_pretrained(directory).eval()
    tokens = load_tokenizer(directory)(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return torch.stack(
            [source(pixel_values=photo.expand(len(prompts), -1, -1, -1), **tokens).logits for photo in pixels]
        )


FIVE = ["dog ear", "dog tail", "bus wheel", "bus door", "cat ear"]


def test_the_logits_are_those_of_transformers(directory):
    segmenter = PartSegmenter.from_pretrained(directory, device="cpu", dtype="float32")
    assert segmenter.model.prompts(WORDS) == [*FIVE, "bus", "cat", "dog"]
    inputs = segmenter.prepare(noise(*SIZES))
    ours = segmenter.outputs(noise(*SIZES), WORDS)
    theirs = their_logits(directory, segmenter.model.prompts(WORDS), inputs["pixel_values"])
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours.object_part_logits[:, :-1], theirs[:, :5], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.object_logits[:, :-1], theirs[:, 5:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("threshold", [0.5, 0.45, 0.0])
@pytest.mark.parametrize("gate", [True, False], ids=["gate", "no gate"])
def test_the_masks_are_those_of_transformers(directory, threshold, gate):
    """A map for each prompt, the best above the threshold; with the gate among the parts of the best object word."""
    prompting = Prompting(threshold=threshold, object_gate=gate)
    segmenter = PartSegmenter.from_pretrained(directory, device="cpu", dtype="float32", prompting=prompting)
    photos = noise(*SIZES)
    results = segmenter(photos, WORDS)
    theirs = their_logits(directory, [*FIVE, "bus", "cat", "dog"], segmenter.prepare(photos)["pixel_values"])
    owner = np.array([2, 2, 0, 0, 1])
    for logits, size, result in zip(theirs, SIZES, results, strict=True):
        probability = upsample(logits, size).sigmoid().numpy()
        parts, objects = probability[:5], probability[5:]
        allowed = objects.argmax(0) == owner[:, None, None] if gate else np.ones_like(parts, bool)
        best = np.where(allowed, parts, -1)
        expected = np.where(best.max(0) >= threshold, best.argmax(0), -1)
        assert (result.label_map == expected).mean() > 0.999  # but for ties to the last digit
        assert len(np.unique(expected)) > 2
        has_part = result.label_map >= 0
        assert np.array_equal(result.object_map[has_part], owner[result.label_map[has_part]])
        if gate:  # the rest of an object: its word reaches the threshold, none of its parts does
            rest = (result.label_map < 0) & (result.object_map >= 0)
            assert (objects.max(0)[rest] >= threshold - 1e-5).all()
        else:
            assert (result.object_map[~has_part] == -1).all()


def test_a_word_without_an_object_is_its_bare_prompt(directory):
    prompting = Prompting(threshold=0.45)
    segmenter = PartSegmenter.from_pretrained(directory, device="cpu", dtype="float32", prompting=prompting)
    photos = noise(*SIZES)
    theirs = their_logits(directory, ["tail", "wheel"], segmenter.prepare(photos)["pixel_values"])
    for logits, size, result in zip(theirs, SIZES, segmenter(photos, "tail, wheel"), strict=True):
        probability = upsample(logits, size).sigmoid().numpy()
        expected = np.where(probability.max(0) >= 0.45, probability.argmax(0), -1)
        assert (result.label_map == expected).mean() > 0.999  # but for ties to the last digit
        assert (result.label_map >= 0).any()


def test_the_same_twice(directory):
    first, second = (
        PartSegmenter.from_pretrained(directory, device="cpu")(noise((50, 70))[0], WORDS) for _ in range(2)
    )
    assert np.array_equal(first.label_map, second.label_map)
    assert np.array_equal(first.object_map, second.object_map)
    assert np.array_equal(first.scores, second.scores)


def test_templates_are_averaged(config, tokenizer_directory):
    model, templates = plain(config), ("{object} {part}", "the {part} of the {object}")
    segmenter, photo = PartSegmenter(model, load_tokenizer(tokenizer_directory)), noise((64, 64))
    embeddings = []
    for template in templates:
        model.ask(Prompting((template,)))
        embeddings.append(segmenter.words(WORDS).embeddings)
    mean = Words.of(WORDS, torch.stack(embeddings).mean(0))
    with torch.no_grad():
        expected = model(model.prepare(photo), mean).object_part_logits
    model.ask(Prompting(templates))
    actual = segmenter.outputs(photo, WORDS).object_part_logits
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("file", "content", "shape", "mean"),
    [
        (None, None, (352, 352), 0.485),
        ("preprocessor_config.json", {"size": 96}, (96, 96), 0.485),
        ("preprocessor_config.json", {"size": {"height": 64, "width": 96}, "image_mean": [0.5] * 3}, (64, 96), 0.5),
        ("preprocessor_config.json", {"size": {"shortest_edge": 80}, "do_normalize": False}, (80, 80), 0.0),
        ("processor_config.json", {"image_processor": {"size": {"height": 64, "width": 64}}}, (64, 64), 0.485),
    ],
)
def test_photos_are_prepared_as_the_processor_says(directory, file, content, shape, mean):
    (directory / "preprocessor_config.json").unlink()
    if file:
        (directory / file).write_text(json.dumps(content))
    model = load_model(directory)
    assert model.image_shape == shape
    assert model.config.image_mean[0] == mean


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"size": {"height": 64}}', "image_size"),
        ('{"size": -3}', "image_size"),
        ('{"image_mean": [1, 2]}', "image_mean"),
        ("[1]", "must hold a JSON object"),
    ],
)
def test_a_damaged_processor_is_named(directory, content, message):
    (directory / "preprocessor_config.json").write_text(content)
    with pytest.raises(PartCLIPSegError, match=message):
        load_model(directory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": ()}, "no prompt is given"),
        ({"prompts": ("a photo of a {object}",)}, "must have {part}"),
        ({"prompts": ("{part} {0}",)}, "no other braces"),
        ({"prompts": ("{part} of {",)}, "no other braces"),
        ({"threshold": 1.5}, "--threshold must be from 0 to 1, not 1.5"),
        ({"threshold": float("nan")}, "--threshold must be from 0 to 1"),
    ],
)
def test_wrong_prompting(options, message):
    with pytest.raises(UsageError, match=message):
        Prompting(**options)


def test_words_with_braces_stay_as_they_are():
    assert Prompting().fill("the {part} of the {object}", "{part}", "{object}") == "the {object} of the {part}"


@pytest.mark.parametrize("cls", [PartCLIPSegModel, CLIPSegBaseline])
def test_other_families_start_from_it_and_keep_their_own_prompts(directory, cls):
    model = cls.from_start(str(directory), cls.settings_class())
    assert type(model) is cls
    with pytest.raises(UsageError, match="are for a plain CLIPSeg, and this is"):
        model.ask(Prompting())


def test_it_says_what_it_is_and_is_not_trained(directory):
    model = load_model(directory)
    assert model.title == (
        'CLIPSeg without training: prompt "{object} {part}", threshold 0.5, object words decide first'
    )
    with pytest.raises(PartCLIPSegError, match="choose the method partclipseg or clipseg-baseline"):
        PlainCLIPSeg.from_start(str(directory), model.settings_class())
