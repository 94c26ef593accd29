"""The second world: other words for the same scenes."""

from __future__ import annotations

import numpy as np
import pytest

from partclipseg.errors import UsageError
from partclipseg.evaluation.cross import SharedWords
from partclipseg.evaluation.tasks import TaskScoring, jobs_of
from partclipseg.shapes.captions import words
from partclipseg.shapes.coarse import OBJECTS, PARTS, CoarseShapesDataset, coarse_vocabulary, other_pair
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.shapes.world import partshapes_world

WORLD = partshapes_world()


def test_every_part_is_one_of_the_other_words() -> None:
    for item in WORLD.objects:
        table = PARTS[item.family]
        for part in item.parts:
            assert sum(part in those.split() for those in table.values()) == 1, (item.word, part)
    for family, table in PARTS.items():  # and no word stands for a part that the family does not have
        used = {part for item in WORLD.objects if item.family == family for part in item.parts}
        assert {part for those in table.values() for part in those.split()} == used, family
    assert {*OBJECTS, *OBJECTS.values()} <= set(WORLD.vocabulary.objects)


def test_the_towers_know_the_words_but_not_the_pairs() -> None:
    coarse, known = coarse_vocabulary(), set(words())
    assert {word for text in (*coarse.objects, *coarse.parts) for word in text.split()} <= known
    assert len(coarse) < len(WORLD.vocabulary) * 0.6
    shared = SharedWords.of(WORLD.seen_vocabulary, coarse)
    assert 0 < len(shared.pairs) < len(coarse) / 2
    assert len(shared.objects) < len(coarse.objects)


def test_labels_are_those_of_the_first_world_by_their_other_names() -> None:
    first, second = PartShapesDataset("test", 6, 64), CoarseShapesDataset("test", 6, 64)
    assert first.keys() == second.keys()
    found = 0
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.object_labels >= 0, other.object_labels >= 0)
        for label in np.unique(one.part_labels[one.part_labels >= 0]):
            pair = WORLD.vocabulary.object_parts[label]
            family = WORLD.objects_by_word[pair.object].family
            expected = second.vocabulary.object_parts.index(other_pair(family, pair))
            place = one.part_labels == label
            assert (other.part_labels[place] == expected).all()
            assert (other.object_labels[place] == second.vocabulary.class_to_object[expected]).all()
            found += 1
    assert found > 10


def test_seen_are_the_parts_that_no_unseen_object_has() -> None:
    dataset = CoarseShapesDataset("test", 1)
    seen = {dataset.vocabulary.objects[dataset.vocabulary.class_to_object[index]] for index in dataset.seen}
    assert "dog" in seen
    assert not seen & {"rabbit", "castle", "motorcycle"}
    with pytest.raises(UsageError, match="the words of partshapes-coarse are one set, not 'seen'"):
        CoarseShapesDataset("test", 1, vocabulary="seen")


def test_a_model_of_the_first_world_is_asked_across() -> None:
    across = TaskScoring("cross-dataset", "partshapes-coarse")
    assert jobs_of(WORLD.seen_vocabulary, []) == [TaskScoring("zero-shot", "partshapes"), across]
    assert jobs_of(WORLD.vocabulary, [], few=True) == [TaskScoring("few-shot", "partshapes"), across]
    assert jobs_of(None, ["pascal-part-116"]) == [TaskScoring("zero-shot", "pascal-part-116")]
