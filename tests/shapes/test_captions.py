"""Sentences are true, name whole objects only, and use known words only."""

from itertools import pairwise

import numpy as np
import pytest

from partclipseg.shapes.captions import caption, words
from partclipseg.shapes.scene import SPLITS, Scene
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


def test_articles(scenes: dict[str, list[Scene]]) -> None:
    generator = np.random.default_rng(1)
    for scene in scenes["base"]:
        spoken = caption(scene, generator).split()
        for article, word in pairwise(spoken):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou")


def test_words_are_sorted_and_single() -> None:
    every = words()
    assert every == sorted(set(every))
    assert all(word.isalpha() and word.islower() for word in every)
    assert {
        word for text in (*WORLD.vocabulary.objects, *WORLD.vocabulary.parts) for word in text.split()
    } <= set(every)
