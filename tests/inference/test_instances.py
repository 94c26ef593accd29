"""Results with instances: small random models, objects given or found by a source that is played."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from partclipseg.data.photo import PhotoError
from partclipseg.errors import UsageError
from partclipseg.formats.segment import Instance
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.found import FoundObject
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

WORDS = {"dog": ["ear", "head"], "bus": ["wheel", "door"]}


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Three photos of different sizes, smooth enough to have regions."""
    generator = np.random.default_rng(0)
    made = []
    for size in ((80, 60), (64, 64), (120, 97)):
        coarse = Image.fromarray(generator.integers(0, 255, (4, 5, 3), np.uint8))
        made.append(np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)))
    return made


@pytest.fixture(scope="module", params=[PartCLIPSegModel, CLIPSegBaseline])
def segmenter(request, tokenizer_directory) -> PartSegmenter:
    import torch
    from tests.conftest import small_config
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    model = request.param(request.param.config_class(**small_config().to_dict()))
    return PartSegmenter(model, AutoTokenizer.from_pretrained(tokenizer_directory))


class Finder:
    """A source that finds a dog in the left half of each photo, a bus in the right one, and one thing twice."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def find(self, photos: Sequence[np.ndarray], words: Sequence[str]) -> list[list[FoundObject]]:
        self.asked.append((len(photos), tuple(words)))
        return [self.objects(photo.shape[1], photo.shape[0]) for photo in photos]

    def objects(self, width: int, height: int) -> list[FoundObject]:
        half = width / 2
        return [
            FoundObject("bus", (half, 0, half, height), 0.6),
            FoundObject("dog", (0, 0, half, height), 0.9),
            FoundObject("dog", (1, 0, half, height), 0.8),
            FoundObject("cat", (0, 0, half, height), 0.95),
        ]


class Outliner:
    """Draws the outline of dogs: the upper half of their boxes."""

    def outline(self, photos, found):
        made = []
        for photo, objects in zip(photos, found, strict=True):
            mask = np.zeros(photo.shape[:2], bool)
            mask[: photo.shape[0] // 2, : photo.shape[1] // 2] = True
            dogs = [FoundObject(o.object, o.box, o.score, mask if o.object == "dog" else None) for o in objects]
            made.append(dogs)
        return made


def check(result: PartResult) -> None:
    """The invariants of a result with instances."""
    owner, classes = result.instance_map, result.vocabulary.object_parts
    assert owner.shape == result.label_map.shape
    assert [instance.number for instance in result.instances] == list(range(1, len(result.instances) + 1))
    assert -1 <= owner.min() <= owner.max() < len(result.instances)
    for place, instance in enumerate(result.instances):
        mine = owner == place
        assert instance.area == mine.sum()
        assert result.vocabulary.objects[instance.index] == instance.object
        assert (result.object_map[mine] == instance.index).all()
        found = set(np.unique(result.label_map[mine]).tolist()) - {-1}
        assert all(classes[index].object == instance.object for index in found if index < len(classes))
        if instance.area:
            x, y, width, height = instance.box
            assert mine[y : y + height, x : x + width].sum() == instance.area
    labels = [(segment.instance or np.inf, segment.index) for segment in result.segments()]
    assert labels == sorted(labels), "by instance, then in label order, ownerless last"
    for some in (result.segments(), result.segments("objects"), result.without_part()):
        for segment in some:
            assert segment.mask.sum() == segment.area > 0
    together = np.zeros(result.size, int)
    for segment in result.segments():
        together += segment.mask
    assert np.array_equal(together, result.label_map >= 0)
    assert {s.instance for s in result.segments("objects")} - {None} == {i.number for i in result.instances if i.area}


def same(first: PartResult, second: PartResult) -> None:
    """As far as arithmetic allows: a batch adds up in another order."""
    assert [(i.object, i.source) for i in first.instances] == [(i.object, i.source) for i in second.instances]
    assert np.mean(first.instance_map != second.instance_map) < 1e-3
    assert np.mean(first.label_map != second.label_map) < 1e-3


@pytest.mark.parametrize("options", [{}, {"rest": True}, {"outlines": Outliner()}])
def test_a_batch_equals_its_photos_one_by_one(segmenter, photos, options):
    finder = Finder()
    together = segmenter(photos, WORDS, instances=finder, batch_size=2, **options)
    assert finder.asked == [(2, ("bus", "dog")), (1, ("bus", "dog"))]
    for photo, batched in zip(photos, together, strict=True):
        check(batched)
        same(batched, segmenter(photo, WORDS, instances=Finder(), **options))
        assert [i.object for i in batched.instances] == ["dog", "bus"], "each once, of words asked for, surest first"
        outlined = "detector and outline" if "outlines" in options else "detector"
        assert [i.source for i in batched.instances] == [outlined, "detector"]
        assert [i.score for i in batched.instances] == [0.9, 0.6]


def test_components_together_and_alone(segmenter, photos):
    together = segmenter(photos, WORDS, instances="components")
    for photo, batched in zip(photos, together, strict=True):
        check(batched)
        assert all(instance.area for instance in batched.instances)
        assert {instance.source for instance in batched.instances} <= {"components"}
        same(batched, segmenter(photo, WORDS, instances="components"))
    assert any(result.instances for result in together), "otherwise this shows nothing"


def test_in_outlines_the_parts_share_the_pixels(segmenter, photos):
    result = segmenter(photos[0], WORDS, instances=Finder(), outlines=Outliner())
    half = np.zeros(result.size, bool)
    half[:30, :40] = True
    assert np.array_equal(result.instance_map == 0, half)
    assert (result.label_map[half] >= 0).all()
    strict = segmenter(photos[0], WORDS, instances=Finder(), outlines=Outliner(), min_part_probability=1.0)
    assert np.array_equal(strict.instance_map == 0, half)
    assert (strict.label_map == -1).all(), "a minimum that is asked for counts in outlines too"


def test_no_first_look_where_none_is_needed(segmenter, photos, monkeypatch):
    looks = []
    original = PartSegmenter.label_maps

    def counted(self, inputs, vocabulary, sizes, present_objects=None, with_background=False):
        looks.append(present_objects)
        return original(self, inputs, vocabulary, sizes, present_objects, with_background)

    monkeypatch.setattr(PartSegmenter, "label_maps", counted)
    result = segmenter(photos[0], WORDS, instances=Finder())
    assert looks == [[[1], [0]]]
    assert (result.object_map[result.instance_map < 0] == -1).all(), "outside of the objects there is background"
    looks.clear()
    segmenter(photos[0], WORDS, instances=Finder(), rest=True)
    assert looks == [None, [[1], [0]]]
    looks.clear()
    segmenter(photos[0], WORDS, instances=Finder(), objects=["dog"])
    assert looks == [[[1]]], "only what is in the photo is looked for"


def test_given_objects(segmenter, photos):
    mask = np.zeros(photos[0].shape[:2], bool)
    mask[10:30, 10:50] = True
    objects = [FoundObject("DOG", (0, 0, 20, 20)), FoundObject.from_mask("bus", mask)]
    result = segmenter(photos[0], WORDS, instances=objects)
    check(result)
    assert [(i.object, i.source, i.found) for i in result.instances] == [
        ("dog", "given", (0, 0, 20, 20)),
        ("bus", "given", (10, 10, 40, 20)),
    ], "in the order in which they are given"
    assert np.array_equal(result.instance_map == 1, mask)
    several = segmenter(photos[:2], WORDS, instances=[objects, []])
    same(several[0], result)
    assert several[1].instances == ()
    assert several[1].instance_map.max() == -1


def test_objects_by_path(segmenter, photos, tmp_path):
    for name, photo in zip("ab", photos, strict=False):
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    dog, cat = (FoundObject(word, (0, 0, 9, 9)) for word in ("dog", "cat"))
    given = {paths[0]: [dog], "b.png": [dog, cat]}
    (_, first), (_, second) = segmenter.segment_many(paths, WORDS, instances=given)
    assert len(first.instances) == 1
    assert isinstance(second, PhotoError), "one wrong photo does not end the run"
    assert "object 2 of instances: 'cat' is not an object" in str(second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": "components", "zoom": True}, "instances look at crops already: leave zoom out"),
        ({"rest": True}, "outlines and rest are for instances"),
        ({"outlines": Outliner()}, "outlines and rest are for instances"),
        ({"instances": "components", "outlines": "sam"}, "outlines must be an Outliner, not 'sam'"),
        ({"instances": "dogs"}, "neither 'components' nor a file of objects"),
        ({"instances": 5}, "instances must be 'components', a detector"),
        ({"instances": [("dog", 0, 0, 9, 9)]}, "instances: object 1 must be a FoundObject"),
        ({"instances": [FoundObject("cat", (0, 0, 9, 9))]}, "photo: object 1 of instances: 'cat' is not an object of"),
        ({"instances": [FoundObject("dog", (90, 0, 9, 9))]}, "the box from 90, 0 to 99, 9 has no pixel in the photo"),
    ],
)
def test_wrong_calls(segmenter, photos, options, message):
    with pytest.raises(UsageError, match=message):
        segmenter(photos[0], WORDS, **options)


class Answer:
    """A source of objects, and an outliner, that always gives the same."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def find(self, photos: Any, words: Any) -> Any:
        return self.answer

    def outline(self, photos: Any, found: Any) -> Any:
        return self.answer


DOG = FoundObject("dog", (0, 0, 9, 9))
SMALL = FoundObject.from_mask("dog", np.ones((3, 4), bool))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "must return a list of FoundObject for each photo that it is given, 1 list in all, not None"),
        (7, "for each photo that it is given, 1 list in all, not 7"),
        ([], r"for each photo that it is given, 1 list in all, not \[\]"),
        ([[], []], "for each photo that it is given, 1 list in all"),
        ([None], "for each photo that it is given, 1 list in all"),
        ([DOG], "for each photo that it is given, 1 list in all"),
        ([[("dog", 0, 0, 9, 9)]], "must return a list of FoundObject: object 1 must be a FoundObject, not"),
        (["dog"], "object 1 must be a FoundObject, not 'd'"),
        ([[SMALL]], "mask of a dog has 4x3 pixels, the photo .*: .* must give masks of the photo's size"),
        ([[DOG, SMALL]], "mask of a dog has 4x3 pixels|objects that it was given, 1 in a photo, not 2"),
    ],
)
def test_sources_and_outliners_that_answer_something_else(segmenter, photos, answer, message):
    with pytest.raises(UsageError, match=message):
        segmenter(photos[0], WORDS, instances=Answer(answer))
    with pytest.raises(UsageError, match=message):
        segmenter(photos[0], WORDS, instances=[DOG], outlines=Answer(answer))


def test_an_outliner_loses_no_object(segmenter, photos):
    with pytest.raises(UsageError, match=r"method outline .* the objects that it was given, 1 in a photo, not 0"):
        segmenter(photos[0], WORDS, instances=[DOG], outlines=Answer([[]]))


def test_answers_may_be_any_iterables(segmenter, photos):
    made = segmenter(photos[0], WORDS, instances=Answer(iter((DOG,)) for _ in range(1)))
    assert [one.object for one in made.instances] == ["dog"]


@pytest.mark.parametrize("options", [{"instances": Answer}, {"instances": [DOG], "outlines": Answer}])
def test_a_class_is_no_source(segmenter, photos, options):
    with pytest.raises(UsageError, match="must be"):
        segmenter(photos[0], WORDS, **options)


@pytest.mark.parametrize("instances", [[FoundObject("dog", (0, 0, 9, 9))] * 2, [[]], [[], [], []]])
def test_as_many_lists_as_photos(segmenter, photos, instances):
    with pytest.raises(UsageError, match="one list of FoundObject for each photo, 2 lists in all"):
        segmenter(photos[:2], WORDS, instances=instances)
    with pytest.raises(UsageError, match="given by a mapping from path"):
        segmenter.segment_many(photos[:2], WORDS, instances=instances)


def test_words_without_an_object(segmenter, photos):
    if isinstance(segmenter.model, CLIPSegBaseline):
        pytest.skip("it is asked for them in another way")
    with pytest.raises(UsageError, match="the vocabulary names no object, so there are no instances"):
        segmenter(photos[0], "any: handle", instances="components")
    result = segmenter(photos[0], "any: handle; dog: ear, head", instances=[FoundObject("dog", (0, 0, 60, 60))])
    check(result)


def test_an_object_without_a_pixel_is_listed(segmenter, photos, caplog):
    mask = np.ones(photos[0].shape[:2], bool)
    objects = [FoundObject.from_mask("dog", mask), FoundObject("bus", (0, 0, 30, 30))]
    with caplog.at_level(logging.WARNING):
        result = segmenter(photos[0], WORDS, instances=objects)
    check(result)
    assert result.instances[1].area == 0
    assert result.instances[1].box == (0, 0, 0, 0)
    assert "photo: 1 of 2 objects owns no pixel, and is listed" in caplog.text
    assert {segment.instance for segment in result} == {1}


# -- results, without a model ---------------------------------------------------------------------------------

VOCABULARY = Vocabulary.load([("dog", "ear"), ("dog", "tail"), ("bus", "wheel")])


def instance(number: int, word: str) -> Instance:
    index = VOCABULARY.objects.index(word)
    return Instance(number, word, index, 0.5, 0, (0, 0, 0, 0), (0, 0, 1, 1), "given")


@st.composite
def results(draw) -> PartResult:
    """Any result of up to four instances: patches with an owner, whose labels are of its object, and others without."""
    words = draw(st.lists(st.sampled_from(VOCABULARY.objects), max_size=4))
    size = (6, 9)
    owner, objects, labels = (np.full(size, -1) for _ in range(3))
    for _ in range(draw(st.integers(0, 8))):
        top, left = draw(st.integers(0, 5)), draw(st.integers(0, 8))
        window = slice(top, top + draw(st.integers(1, 4))), slice(left, left + draw(st.integers(1, 4)))
        place = draw(st.integers(-1, len(words) - 1))
        word = draw(st.sampled_from(VOCABULARY.objects)) if place < 0 else words[place]
        parts = [index for index, pair in enumerate(VOCABULARY.object_parts) if pair.object == word]
        owner[window], objects[window] = place, VOCABULARY.objects.index(word)
        labels[window] = draw(st.sampled_from([-1, *parts]))
    scores = np.random.default_rng(draw(st.integers(0, 9))).random(size)
    instances = [instance(number, word) for number, word in enumerate(words, start=1)]
    return PartResult.from_maps(labels, objects, scores, VOCABULARY, instance_map=owner, instances=instances)


@settings(max_examples=60, deadline=None)
@given(results(), st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_invariants_of_results(result, least):
    check(result)
    kept = result.at_least(least)
    check(kept)
    assert np.array_equal(kept.instance_map, result.instance_map), "an object stays although its ear went"
    assert {(s.title, s.area) for s in kept} == {(s.title, s.area) for s in result if s.score >= least}
    for some in (result, kept):
        for index in range(len(VOCABULARY)):
            own = [segment for segment in some if segment.index == index]
            area = sum(segment.area for segment in own)
            assert area == some.mask(VOCABULARY.names[index]).sum()
            if area:
                mean = sum(segment.score * segment.area for segment in own) / area
                assert some.scores[index] == pytest.approx(mean, abs=1e-6)
    for number in range(1, len(result.instances) + 1):
        alone = result.instance(number)
        assert alone.instance_map is None
        assert [(s.name, s.area, s.score) for s in alone] == [
            (s.name, s.area, s.score) for s in result if s.instance == number
        ]
        for name in VOCABULARY.names:
            assert np.array_equal(alone.mask(name), result.mask(name, instance=number))


def test_names_of_owners():
    labels = np.array([[0, 0, 1, -1, 0, 2]])
    owner = np.array([[0, 1, 1, 1, -1, -1]])
    objects = np.array([[1, 1, 1, 1, 1, 0]])
    instances = [instance(1, "dog"), instance(2, "dog")]
    result = PartResult.from_maps(labels, objects, np.ones((1, 6)), VOCABULARY, instance_map=owner, instances=instances)
    titles = ["dog 1's ear", "dog 2's ear", "dog 2's tail", "dog's ear", "bus's wheel"]
    assert [segment.title for segment in result] == titles
    assert [segment.name for segment in result][:2] == ["dog's ear", "dog's ear"]
    assert [segment.title for segment in result.segments("objects")] == ["dog 1", "dog 2", "bus", "dog"]
    assert [(s.title, s.area) for s in result.without_part()] == [("dog 2", 1)]
    assert result["dog 2's EAR"].instance == 2
    assert result["dog's ear"].instance == 1
    assert "dog 3's ear" not in result
    assert "dog 1's ear, dog 2's ear" in repr(result)
    with pytest.raises(UsageError, match="there is no instance 3: the photo has 2, numbered from 1"):
        result.instance(3)
    with pytest.raises(UsageError, match="there is no instance True"):
        result.mask("dog", instance=True)
    with pytest.raises(UsageError, match="this result has no instances: ask for them"):
        result.instance(1).instance(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instance_map": np.zeros((2, 2), np.int32)}, "must have the same shape"),
        ({"instance_scores": np.zeros((1, 3))}, r"instance_scores must be \[2, 3\]"),
        ({"instances": (instance(2, "dog"),)}, "must be numbered from 1"),
        ({"instance_map": None}, "instances need an instance_map"),
    ],
)
def test_fields_that_do_not_fit(change, message):
    from dataclasses import replace

    some = np.full((3, 4), -1)
    made = PartResult.from_maps(some, some, some, VOCABULARY, instance_map=some, instances=[instance(1, "dog")])
    with pytest.raises(ValueError, match=message):
        replace(made, **change)
