"""The benchmark of object lookups: its logits are those of the model with the same lookup."""

import importlib.util
from pathlib import Path

import pytest
import torch

from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.partclipseg.lookup import trained_words
from partclipseg.shapes.renderer import render_scene

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "own_words.py"
SCENE = render_scene("test", 0, 128)


@pytest.fixture(scope="module")
def own_words():
    spec = importlib.util.spec_from_file_location("own_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def segmenter() -> PartSegmenter:
    return PartSegmenter.from_pretrained(device="cpu")


def model_logits(segmenter: PartSegmenter, vocabulary, released: bool) -> torch.Tensor:
    segmenter.model.config.reference_object_lookup = released
    try:
        return segmenter.outputs([SCENE.image], vocabulary).object_part_logits
    finally:
        segmenter.model.config.reference_object_lookup = False


def test_each_lookup_is_the_models(own_words, segmenter):
    world = own_words.WORLD
    words = own_words.small_vocabulary(SCENE, 5, 0, 0)
    found = own_words.outputs(segmenter, SCENE.image, words)
    close = {"rtol": 1e-4, "atol": 1e-4}
    for lookup, released in (("released", True), ("own", False)):
        torch.testing.assert_close(found[lookup].object_part_logits, model_logits(segmenter, words, released), **close)
    # The model's default for own words, once it knows its training list.
    config = segmenter.model.config
    config.object_words = trained_words(world.seen_vocabulary)
    try:
        assert len(words.objects) < len(world.seen_vocabulary.objects)
        torch.testing.assert_close(found["mixed"].object_part_logits, model_logits(segmenter, words, True), **close)
    finally:
        config.object_words = None
    # Trained objects read what training read, whatever else is asked for; other objects read their own word.
    trained = own_words.outputs(segmenter, SCENE.image, world.seen_vocabulary)
    expected = model_logits(segmenter, world.seen_vocabulary, released=True)
    torch.testing.assert_close(trained["trained"].object_part_logits, expected, **close)
    every = own_words.outputs(segmenter, SCENE.image, world.vocabulary)
    classes = [world.vocabulary.object_parts.index(pair) for pair in world.seen_vocabulary.object_parts]
    torch.testing.assert_close(
        every["trained"].object_part_logits[:, classes], trained["trained"].object_part_logits[:, :-1], **close
    )
    unseen = sorted(set(range(len(world.vocabulary))) - set(world.seen))
    torch.testing.assert_close(
        every["trained"].object_part_logits[:, unseen], every["own"].object_part_logits[:, unseen], **close
    )
    assert not torch.allclose(every["trained"].object_part_logits, every["own"].object_part_logits, atol=0.1)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_vocabularies(own_words, size):
    words = own_words.small_vocabulary(SCENE, size, 0, 0)
    present = {own_words.WORLD.vocabulary.objects[item] for item in own_words.objects_in(SCENE.objects)}
    assert len(words.objects) == size
    assert len(present & set(words.objects)) == min(size, len(present))
    assert words == own_words.small_vocabulary(SCENE, size, 0, 0)
    assert size < 5 or words != own_words.small_vocabulary(SCENE, size, 1, 0), "the fillers are drawn by the seed"
    for word in words.objects:
        assert [pair.part for pair in words.object_parts if pair.object == word] == list(
            own_words.WORLD.objects_by_word[word].parts
        )


def test_scores_of_the_own_lookup_are_those_of_the_model(own_words, segmenter):
    """One scene, the built-in model: a trained model finds more with its own lookup than with a wrong one."""
    found = own_words.run(segmenter, [SCENE], 1, lambda _: own_words.WORLD.vocabulary)
    ious = {lookup: found[lookup]["oracle_obj"].compute().all.iou for lookup in own_words.LOOKUPS}
    assert ious["own"] > 20
    assert ious["own"] > ious["released"]
