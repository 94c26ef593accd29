"""The words that stand for objects in reference mode: those of training for trained objects, in a user's own list."""

from __future__ import annotations

import json

import pytest
import torch
from tests.models.tester import smoothed

from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.label_maps import pred_all
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.lookup import own_words, trained_words
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import load_model
from partclipseg.vocabulary import Catalog, Vocabulary

TRAINED = Vocabulary.from_text("bird: beak, wing; bus: door, wheel; dog: ear, tail")
"""Parts are beak, door, ear, …, so that the released lookup reads bird as beak, bus as door and dog as ear."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dog: tail, wing", ["ear"]),
        ("DOG: tail", ["ear"]),
        ("bus: wheel; dog: tail", ["door", "ear"]),
        ("cat: paw; dog: tail, ear", ["ear", "ear"]),  # cat was not trained: the word at its index, ear
        ("cat: paw; cow: hoof", ["hoof", "paw"]),
        ("cat: leg; cow: leg; dog: leg", ["leg", "cat", "ear"]),  # fewer parts than objects: objects follow the parts
        (TRAINED.to_text(), []),
        (f"{TRAINED.to_text()}; cat: paw", []),  # every trained object: a benchmark's list
    ],
)
def test_words_of_a_list(words, expected):
    assert trained_words(TRAINED) == {"bird": "beak", "bus": "door", "dog": "ear"}
    assert own_words(Vocabulary.from_text(words), trained_words(TRAINED)) == expected
    assert own_words(Vocabulary.from_text(words), None) == []


@pytest.fixture
def model(model_directory):
    values = PartCLIPSegConfig.from_pretrained(model_directory).to_dict()
    torch.manual_seed(0)
    made = smoothed(PartCLIPSegModel(PartCLIPSegConfig(**{**values, "reference_object_lookup": True}))).eval()
    made.trained_on(TRAINED)
    return made


@pytest.fixture
def segmenter(model, model_directory):
    return PartSegmenter(model, PartSegmenter.from_pretrained(model_directory, device="cpu").tokenizer)


def class_logits(segmenter, words: str) -> dict[str, torch.Tensor]:
    vocabulary = Vocabulary.from_text(words)
    torch.manual_seed(1)
    with torch.no_grad():
        output = segmenter.model({"pixel_values": torch.randn(1, 3, 64, 64)}, segmenter.words(vocabulary))
    assert output.part_logits.shape[1] == len(vocabulary.parts)
    assert output.object_logits.shape[1] == len(vocabulary.objects) + 1
    return dict(zip(vocabulary.names, output.object_part_logits[0], strict=False))


def test_a_trained_object_reads_the_same_in_every_list(segmenter):
    as_trained = class_logits(segmenter, TRAINED.to_text())
    for words in ("dog: ear, tail", "dog: tail; bus: wheel", "cat: paw, wing, neck; dog: ear, tail"):
        for name, logits in class_logits(segmenter, words).items():
            if not name.startswith("cat"):
                torch.testing.assert_close(logits, as_trained[name], rtol=1e-4, atol=1e-5)
    segmenter.model.config.object_words = None  # the training list is not known
    released = class_logits(segmenter, "dog: tail; bus: wheel")
    assert not torch.allclose(released["dog's tail"], as_trained["dog's tail"], atol=1e-3)


def test_an_object_that_was_not_trained_is_looked_up_as_released(segmenter):
    found = class_logits(segmenter, "cat: paw, wing")
    segmenter.model.config.object_words = None
    torch.testing.assert_close(found["cat's paw"], class_logits(segmenter, "cat: paw, wing")["cat's paw"])


@pytest.mark.parametrize("words", ["dog: ear, tail", "cat: paw, wing; dog: tail; bus: wheel", TRAINED.to_text()])
@pytest.mark.parametrize("named", [False, True])
def test_pruned_maps_are_those_of_full_decoding(segmenter, words, named):
    vocabulary, sizes = Vocabulary.from_text(words), [(40, 50), (64, 64)]
    torch.manual_seed(2)
    pixels = {"pixel_values": torch.randn(2, 3, 64, 64)}
    present = [[0], [len(vocabulary.objects) - 1]] if named else None
    found = segmenter.label_maps(pixels, vocabulary, sizes, present)
    with torch.inference_mode():
        output = segmenter.model(pixels, segmenter.words(vocabulary))
        expected = segmenter.model.maps_of(output, pixels, segmenter.words(vocabulary), sizes, present)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.label_map == theirs.label_map).float().mean() > 0.999
    assert named or (pred_all(output, sizes, vocabulary.class_to_object)[0].label_map >= 0).any()


def test_the_intended_method_needs_no_note(model_directory):
    model = load_model(model_directory)
    model.trained_on(TRAINED)
    assert model.config.object_words is None
    assert model.prompts(Vocabulary.from_text("dog: ear")) == ["ear", "dog"]


def test_the_note_is_saved_and_checked(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    assert load_model(tmp_path / "model").config.object_words == trained_words(TRAINED)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "object_words": {"dog": 3}}))
    with pytest.raises(PartCLIPSegError, match=r"object_words.* table from word to word"):
        load_model(tmp_path / "model")


def test_embeddings_without_words_for_objects_are_taken_as_released(model):
    """Callers that give embeddings of parts and objects alone get the released lookup."""
    vocabulary = Vocabulary.from_text("dog: ear, tail")
    with torch.no_grad():
        words = Words.of(vocabulary, torch.randn(3, model.config.projection_dim))
        output = model({"pixel_values": torch.randn(1, 3, 64, 64)}, words)
    assert output.object_part_logits.shape[1] == 3


@pytest.mark.parametrize(("words", "known"), [("pascal-part-116", True), ("dog: ear, tail", False)])
def test_convert_notes_the_training_list_of_a_catalogue(model, tokenizer_directory, tmp_path, words, known):
    from partclipseg.models.clipseg_weights import foreign_names

    tensors = {}
    for name, tensor in model.state_dict().items():
        names = foreign_names(name, model.config)
        shares = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
        tensors.update(zip((f"partclipseg_model.{theirs}" for theirs in names), shares, strict=True))
    torch.save({"model": tensors}, tmp_path / "released.pth")
    (tmp_path / "config.json").write_text(json.dumps({**model.config.to_dict(), "object_words": None}))
    arguments = [str(tmp_path / "released.pth"), "--output", str(tmp_path / "out"), "--vocabulary", words]
    arguments += ["--config", str(tmp_path / "config.json"), "--tokenizer", str(tokenizer_directory)]
    assert main(["convert", *arguments]) == 0
    expected = trained_words(Vocabulary.from_catalog("pascal-part-116", "seen")) if known else None
    assert load_model(tmp_path / "out").config.object_words == expected


def test_a_catalogue_is_known_by_its_words():
    found = Catalog.of(Vocabulary.from_catalog("ade20k-part-234"))
    assert found is not None
    assert found.name == "ade20k-part-234"
    assert Catalog.of(TRAINED) is None
