"""Words in, index arrays out."""

import json

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from partclipseg.errors import UsageError
from partclipseg.vocabulary import CATALOGS, Catalog, ObjectPart, Vocabulary


def test_indices_point_into_sorted_words():
    words = Vocabulary.from_dict({"dog": ["tail", "ear"], "bus": ["wheel"], "cat": ["ear"]})
    assert words.names == ("dog's tail", "dog's ear", "bus's wheel", "cat's ear")  # the caller's order
    assert words.objects == ("bus", "cat", "dog")
    assert words.parts == ("ear", "tail", "wheel")
    assert words.class_to_object.tolist() == [2, 2, 0, 1]
    assert words.class_to_part.tolist() == [1, 0, 2, 0]
    assert words.class_to_part.dtype == words.class_to_object.dtype == np.int64


WORD = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=12)


@given(st.dictionaries(WORD, st.lists(WORD, min_size=1, max_size=4, unique_by=str.casefold), min_size=1, max_size=5))
def test_any_words_survive_a_file(tmp_path_factory, words):
    try:
        vocabulary = Vocabulary.from_dict(words)
    except UsageError as error:
        # Different objects may spell a word in two capitalisations; nothing else is wrong with such words.
        if "capitals" in str(error) or "twice" in str(error):
            reject()
        raise
    path = tmp_path_factory.mktemp("words") / "vocabulary.json"
    vocabulary.save(path)
    assert Vocabulary.from_file(path) == vocabulary
    assert [vocabulary.parts[p] for p in vocabulary.class_to_part] == [p for _, p in vocabulary.object_parts]
    assert [vocabulary.objects[o] for o in vocabulary.class_to_object] == [o for o, _ in vocabulary.object_parts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.json", json.dumps({"dog": ["ear", "tail"], "bus": ["wheel"]})),
        ("words.json", json.dumps(["dog's ear", ["dog", "tail"], "bus's wheel"])),
        ("words.yaml", "dog: [ear, tail]\nbus:\n  - wheel\n"),
        ("words.yml", "- dog's ear\n- dog's tail\n- bus's wheel\n"),
        ("words.txt", "# what I look for\ndog's ear\n\ndog’s tail\nbus's wheel\n"),
        ("words", "dog: ear, tail; bus: wheel"),
    ],
)
def test_files(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert Vocabulary.load(tmp_path / name).names == ("dog's ear", "dog's tail", "bus's wheel")
    assert Vocabulary.load(str(tmp_path / name)) == Vocabulary.load("dog: ear, tail\nbus: wheel")


def test_words_with_blanks_apostrophes_capitals_and_other_letters():
    words = Vocabulary.from_dict({"  Indian   cobra ": ["Kopf"], "bull's eye": ["rim"], "Müller": ["Füße", "鼻"]})
    assert words.names == ("Indian cobra's Kopf", "bull's eye's rim", "Müller's Füße", "Müller's 鼻")
    assert Vocabulary.from_dict({"Mu\u0308ller": ["x"]}).objects == ("Müller",)  # composed and decomposed alike
    assert words.object_index("INDIAN COBRA") == words.objects.index("Indian cobra")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary(()), "the vocabulary is empty"),
        (lambda: Vocabulary.from_dict({}), "the vocabulary is empty"),
        (lambda: Vocabulary.from_dict({"dog": []}), "'dog' has no part"),
        (lambda: Vocabulary.from_dict({"dog": None}), "parts of 'dog' must be a list"),
        (lambda: Vocabulary.from_dict({"dog": "ear"}), "parts of 'dog' must be a list"),
        (lambda: Vocabulary.from_dict({"dog": ["ear", " "]}), "has no part: 'dog' stands alone"),
        (lambda: Vocabulary.from_dict({" ": ["ear"]}), "has no object: 'ear' stands alone"),
        (lambda: Vocabulary.from_dict({"dog": [True]}), "the part True .* must be a word"),
        (lambda: Vocabulary.from_dict({"dog": ["ear", "ear"]}), "dog's ear.* twice"),
        (lambda: Vocabulary.from_dict({"dog": ["ear", "Ear"]}), "dog's Ear.* twice"),
        (lambda: Vocabulary.from_dict({"dog": ["ear"], "Dog": ["tail"]}), "'dog' and 'Dog' differ only in capitals"),
        (lambda: Vocabulary.from_names(["dog's"]), "has no part: 'dog'"),
        (lambda: Vocabulary.from_names(["'s ear"]), "has no object: 'ear'"),
        (lambda: Vocabulary.from_names(["dog ear"]), "'dog ear' is not an object-part"),
        (lambda: Vocabulary.from_names("dog's ear"), "expected a list of names"),
        (lambda: Vocabulary.from_names([3]), "3 is neither a name"),
        (lambda: Vocabulary.from_text("dog:"), "'dog' has no part"),
        (lambda: Vocabulary.from_text("dog: ear, bus: wheel"), "'bus: wheel' has a colon, so it cannot be a part"),
        (lambda: Vocabulary.from_text("dog: ear bus: wheel"), "put \";\" or a new line between objects"),
        (lambda: Vocabulary.from_text("dog: ear,,tail"), "'dog' stands alone"),
        (lambda: Vocabulary.from_catalog("pascal"), "unknown catalogue 'pascal'"),
        (lambda: Vocabulary.from_catalog("part-imagenet", "unseen"), "unknown split 'unseen'"),
        (lambda: Vocabulary.load("nothing.yaml"), "'nothing.yaml' is neither a file nor a catalogue"),
        (lambda: Vocabulary.load("dog"), "words are written as"),
        (lambda: Vocabulary.from_file("nothing.txt"), "cannot read the vocabulary file nothing.txt"),
        (lambda: Vocabulary.from_names(["dog's ear"]).object_index("cat"), r"'cat' is not an object .*\(dog\)"),
    ],
)
def test_wrong_words_are_named(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "words.json: not a valid JSON"),
        ("3", "expected a mapping"),
        ('{"dog": ["ear", "ear"]}', "words.json: .*twice"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, message):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        Vocabulary.load(tmp_path / "words.json")


@pytest.mark.parametrize(
    ("name", "counts_all", "counts_seen"),
    [  # objects with parts, parts, object-parts: figures of the published benchmarks
        ("pascal-part-116", (16, 42, 116), (11, 41, 74)),
        ("ade20k-part-234", (44, 85, 234), (33, 83, 176)),
        ("part-imagenet", (40, 13, 147), (25, 13, 92)),
    ],
)
def test_catalogues(name, counts_all, counts_seen):
    for split, counts in (("all", counts_all), ("seen", counts_seen)):
        words = Vocabulary.from_catalog(name, split)
        assert (len(words.objects), len(words.parts), len(words)) == counts
    catalog = Catalog.load(name)
    unseen = {pair.object for index, pair in enumerate(catalog.object_parts) if index not in catalog.seen}
    assert unseen == set(catalog.unseen_objects)
    assert set(catalog.vocabulary.objects) <= set(catalog.objects)
    assert Vocabulary.load(name) == catalog.vocabulary
    assert name in CATALOGS


def test_the_name_of_a_pair():
    assert ObjectPart("dog", "ear").name == "dog's ear"
    assert ObjectPart.from_name("jack-o'-lantern's stem") == ("jack-o'-lantern", "stem")
