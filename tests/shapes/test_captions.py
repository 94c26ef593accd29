"""Sentences are true, name whole objects only, and use known words only."""

from itertools import pairwise

import numpy as np
import pytest

from partclipseg.shapes.captions import caption, referring_phrases, words
from partclipseg.shapes.scene import SPLITS, Scene, SceneObject
from partclipseg.shapes.world import partshapes_world

WORLD = partshapes_world()


@pytest.mark.parametrize("split", SPLITS)
def test_captions_name_the_visible_objects(scenes: dict[str, list[Scene]], split: str) -> None:
    generator = np.random.default_rng(0)
    known, objects = set(words()), set(WORLD.vocabulary.objects)
    parts = set(WORLD.vocabulary.parts)
    for scene in scenes[split]:
        spoken = caption(scene, generator).split()
        assert set(spoken) <= known
        assert sorted(word for word in spoken if word in objects) == sorted(m.object for m in scene.members)
        # "top" is a desk's part and a place in the picture.
        assert not set(spoken) & (parts - {"top"})


def test_captions_follow_the_generator(scenes: dict[str, list[Scene]]) -> None:
    scene = next(scene for scene in scenes["base"] if len(scene.members) == 3)
    texts = [caption(scene, np.random.default_rng(seed)) for seed in range(30)]
    assert texts == [caption(scene, np.random.default_rng(seed)) for seed in range(30)]
    assert len(set(texts)) > 20


def test_a_scene_without_objects_has_a_caption(scenes: dict[str, list[Scene]]) -> None:
    scene = scenes["base"][0]
    nothing = np.full_like(scene.objects, -1)
    empty = Scene(scene.image, np.full_like(scene.parts, -1), nothing, nothing, (), "empty")
    assert set(caption(empty, np.random.default_rng(0)).split()) <= set(words())
    assert referring_phrases(empty) == []


def test_articles(scenes: dict[str, list[Scene]]) -> None:
    generator = np.random.default_rng(1)
    for scene in scenes["base"]:
        spoken = caption(scene, generator).split()
        for article, word in pairwise(spoken):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou")


@pytest.mark.parametrize("split", ["base", "train"])
def test_phrases_mean_their_pixels(scenes: dict[str, list[Scene]], split: str) -> None:
    known = set(words())
    for scene in scenes[split]:
        phrases = dict(referring_phrases(scene))
        assert len(phrases) == len(referring_phrases(scene))
        for phrase, mask in phrases.items():
            assert set(phrase.split()) <= known
            assert mask.dtype == bool
            assert mask.any()
            (word,) = set(phrase.split()) & set(WORLD.vocabulary.objects)
            assert not (mask & (scene.objects != WORLD.label[word])).any()
        for rank, member in enumerate(scene.members):
            assert np.array_equal(phrases[member.object], scene.objects == WORLD.label[member.object])
            assert phrases[f"{member.colour} {member.object}"][scene.instances == rank].all()


def test_phrases_with_a_colour_leave_others_out(scenes: dict[str, list[Scene]]) -> None:
    pairs = 0
    for split in SPLITS:
        for scene in scenes[split]:
            phrases = dict(referring_phrases(scene))
            for rank, member in enumerate(scene.members):
                for other in scene.members[:rank]:
                    if other.object == member.object and other.colour != member.colour:
                        pairs += 1
                        mask = phrases[f"{other.colour} {other.object}"]
                        assert not mask[scene.instances == rank].any()
    assert pairs > 3


def test_phrases_mean_every_object_they_fit() -> None:
    dogs = tuple(SceneObject("dog", (x, 0, x + 2, 4), "red", "small", "left") for x in (0, 2))
    instances = np.array([[0, 0, 1, 1, -1]] * 4, dtype=np.int8)
    objects = np.where(instances < 0, -1, WORLD.label["dog"]).astype(np.int8)
    scene = Scene(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int16), objects, instances, dogs, "two dogs")
    phrases = dict(referring_phrases(scene))
    assert set(phrases) == {"dog", "red dog", "small dog", "dog on the left"}
    assert all(np.array_equal(mask, instances >= 0) for mask in phrases.values())


def test_words_are_sorted_and_single() -> None:
    every = words()
    assert every == sorted(set(every))
    assert all(word.isalpha() and word.islower() for word in every)
    assert {
        word for text in (*WORLD.vocabulary.objects, *WORLD.vocabulary.parts) for word in text.split()
    } <= set(every)
