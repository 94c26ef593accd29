"""A class has one colour, everywhere."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from partclipseg.errors import UsageError
from partclipseg.inference.palette import object_colours, part_colour, part_colours
from partclipseg.vocabulary import Vocabulary

words = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="'"), min_size=1, max_size=12)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=8), st.randoms())
def test_colours_do_not_depend_on_the_other_words(pairs, random):
    try:
        vocabulary = Vocabulary(tuple(pairs))
    except UsageError:  # a word twice, or in two spellings
        return
    alone = {pair: part_colours(Vocabulary((pair,)))[0] for pair in vocabulary.object_parts}
    shuffled = list(vocabulary.object_parts)
    random.shuffle(shuffled)
    for pair, colour in zip(shuffled, part_colours(Vocabulary(tuple(shuffled))), strict=True):
        assert np.array_equal(colour, alone[pair])


@given(words, words)
def test_every_colour_can_be_seen_on_black_and_on_white(object_word, part_word):
    red, green, blue = (value / 255 for value in part_colour(object_word, part_word))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # OKLab lightness 0.50 to 0.88: its cube is about the luminance, less or more by hue.
    assert 0.08 < luminance < 0.78


def test_colours_stay_from_run_to_run():
    """Python's own hash of strings is another one in every process."""
    code = "from partclipseg.inference.palette import part_colour; print(part_colour('dog', 'ear'))"
    for seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        assert output.strip() == str(part_colour("dog", "ear")) == "(19, 143, 187)"


def test_capitals_do_not_change_a_colour():
    assert part_colour("Dog", "EAR") == part_colour("dog", "ear")


def test_the_parts_of_the_catalogues_objects_can_be_told_apart():
    for catalog in ("pascal-part-116", "part-imagenet"):
        vocabulary = Vocabulary.load(catalog)
        colours = part_colours(vocabulary).astype(int)
        for index in range(len(vocabulary.objects)):
            own = colours[vocabulary.class_to_object == index]
            distances = np.abs(own[:, None] - own[None]).sum(-1)[np.triu_indices(len(own), 1)]
            # Sum over the channels; below some 12 of 765 two patches look alike side by side.
            assert distances.size == 0 or distances.min() > 12, vocabulary.objects[index]


def test_objects_have_colours_of_their_own():
    colours = object_colours(Vocabulary.from_dict({"dog": ["ear"], "bus": ["wheel"], "cat": ["ear"]}))
    assert len(np.unique(colours, axis=0)) == 3
