"""A class has one colour, everywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partclipseg.errors import UsageError
from partclipseg.formats.palette import object_colours, part_colours
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import CATALOGS, Vocabulary

words = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="'"), min_size=1, max_size=12)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=8), st.randoms())
def test_colours_depend_on_the_object_and_its_parts_alone(pairs, random):
    try:
        vocabulary = Vocabulary(tuple(pairs))
    except UsageError:  # a word twice, or in two spellings
        return
    by_object = {
        (word, part): colour
        for word, parts in vocabulary.to_dict().items()
        for part, colour in zip(parts, part_colours(Vocabulary.from_dict({word: parts})), strict=True)
    }
    shuffled = list(vocabulary.object_parts)
    random.shuffle(shuffled)
    for pair, colour in zip(shuffled, part_colours(Vocabulary(tuple(shuffled))), strict=True):
        assert np.array_equal(colour, by_object[pair])


def test_colours_of_a_vocabulary_cannot_be_changed_for_those_who_ask_next():
    vocabulary = Vocabulary.from_catalog("pascal-part-116")
    with pytest.raises(ValueError, match="read-only"):
        part_colours(vocabulary)[0] = 0


@given(words, st.lists(words, min_size=1, max_size=30, unique_by=str.casefold))
def test_every_colour_can_be_seen_on_black_and_on_white(object_word, part_words):
    try:
        vocabulary = Vocabulary.from_dict({object_word: part_words})
    except UsageError:  # words that are one in NFC
        return
    luminance = linear(part_colours(vocabulary)) @ [0.2126, 0.7152, 0.0722]
    # OKLab lightness 0.50 to 0.88: its cube is about the luminance, less or more by hue.
    assert luminance.min() > 0.08
    assert luminance.max() < 0.78


def test_colours_stay_from_run_to_run():
    """Python's own hash of strings is another one in every process."""
    code = (
        "from partclipseg.formats.palette import part_colours; from partclipseg.vocabulary import Vocabulary;"
        "print(part_colours(Vocabulary.load('dog: ear, tail')).tolist())"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert output.strip() == "[[19, 143, 187], [195, 199, 255]]"


def test_capitals_do_not_change_a_colour():
    capitals, small = (part_colours(Vocabulary.load(text)) for text in ("Dog: EAR, eye", "dog: ear, Eye"))
    assert np.array_equal(capitals, small)


@pytest.mark.parametrize("name", [*CATALOGS, "partshapes", "25 parts"])
def test_the_parts_of_an_object_can_be_told_apart(name):
    if name == "partshapes":
        vocabulary = partshapes_world().vocabulary
    elif name == "25 parts":
        parts = [f"part {number}" for number in range(25)]
        vocabulary = Vocabulary.from_dict(dict.fromkeys(("building", "car", "person"), parts))
    else:
        vocabulary = Vocabulary.load(name)
    colours = cielab(part_colours(vocabulary))
    for index, word in enumerate(vocabulary.objects):
        own = colours[vocabulary.class_to_object == index]
        distances = np.linalg.norm(own[:, None] - own, axis=-1)[np.triu_indices(len(own), 1)]
        assert distances.min(initial=np.inf) > (15 if len(own) == 25 else 20), word


def test_objects_have_colours_of_their_own():
    colours = object_colours(Vocabulary.from_dict({"dog": ["ear"], "bus": ["wheel"], "cat": ["ear"]}))
    assert len(np.unique(colours, axis=0)) == 3


def linear(colours: np.ndarray) -> np.ndarray:
    values = colours / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def cielab(colours: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = linear(colours) @ to_xyz.T / to_xyz.sum(axis=1)
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
