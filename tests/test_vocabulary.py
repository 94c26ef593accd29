"""Words in, index arrays out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from partclipseg.errors import UsageError
from partclipseg.vocabulary import CATALOGS, Catalog, ObjectPart, Vocabulary, split_words


def test_indices_point_into_sorted_words():
    words = Vocabulary.from_dict({"dog": ["tail", "ear"], "bus": ["wheel"], "cat": ["ear"]})
    assert words.names == ("dog's tail", "dog's ear", "bus's wheel", "cat's ear")  # the caller's order
    assert words.objects == ("bus", "cat", "dog")
    assert words.parts == ("ear", "tail", "wheel")
    assert words.class_to_object.tolist() == [2, 2, 0, 1]
    assert words.class_to_part.tolist() == [1, 0, 2, 0]
    assert words.class_to_part.dtype == words.class_to_object.dtype == np.int64


WORDLESS = [
    "kettle: body, spout; handle; any: wheel",
    "any: handle, wheel\nkettle: body, spout",
    "kettle's body, kettle's spout\nAny's handle; wheel",
    {"any": ["handle", "wheel"], "kettle": ["body", "spout"]},
    ["handle", "kettle's body", ("kettle", "spout"), ["any", "wheel"]],
]


@pytest.mark.parametrize("written", WORDLESS, ids=str)
def test_words_without_an_object_come_after_the_object_parts(written, tmp_path):
    words = Vocabulary.load(written)
    assert words.names == ("kettle's body", "kettle's spout", "handle", "wheel")
    assert (words.anywhere, len(words)) == (("handle", "wheel"), 4)
    assert (words.objects, words.parts) == (("kettle",), ("body", "spout"))
    assert words.class_to_object.tolist() == [0, 0]
    assert words.classes[2] == ("any", "handle")
    assert words.paired == Vocabulary.load("kettle: body, spout") == words.paired.with_objects("a data set")
    assert Vocabulary.from_text(words.to_text()) == Vocabulary.from_dict(words.to_dict()) == words
    words.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == words


@pytest.mark.parametrize("written", ["handle", "any: handle", ["handle"], {"any": ["handle"]}])
def test_a_vocabulary_may_have_no_object(written):
    words = Vocabulary.load(written)
    assert (words.names, words.objects, words.parts, words.paired) == (("handle",), (), (), None)


SEPARATORS = ",;:，；：、،؛﹐﹑﹔﹕､\u037e"
WORD = st.text(
    st.characters(codec="utf-8", categories=["L", "M", "N", "P", "S", "Zs"], exclude_characters=SEPARATORS),
    min_size=1,
    max_size=12,
).filter(str.strip)


@given(st.dictionaries(WORD, st.lists(WORD, min_size=1, max_size=4, unique_by=str.casefold), min_size=1, max_size=5))
@example({"{left} dog": ["ear", "tail"], "bus": ["wheel"]})  # would be taken for JSON
@example({"[": ["["]})
def test_any_words_survive_a_file_and_what_is_printed(tmp_path_factory, words):
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
    text = vocabulary.to_text()
    for written in (text, text.replace("; ", "\n"), text.replace(", ", "，").replace("; ", "；").replace(": ", "：")):
        assert Vocabulary.from_text(written) == vocabulary
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
        (lambda: Vocabulary.from_names("dog's ear"), "expected a list of names"),
        (lambda: Vocabulary.from_names([3]), "3 is neither a name"),
        (lambda: Vocabulary.from_text("dog:"), "'dog' has no part"),
        (lambda: Vocabulary.from_text("dog: ear, bus: wheel"), "'bus: wheel' has a colon, so it cannot be a part"),
        (lambda: Vocabulary.from_text("dog: ear bus: wheel"), 'put ";" or a new line between objects'),
        (lambda: Vocabulary.from_text("dog: ear,,tail"), "^'dog: ear,,tail' has a comma too many: remove it$"),
        (lambda: Vocabulary.from_text("bus: wheel; dog: ear,"), "^'dog: ear,' has a comma too many"),
        (lambda: Vocabulary.from_text("dog: ，"), "^'dog: ,' has a comma too many"),
        (
            lambda: Vocabulary.load("dog's ear, tail"),
            "'tail' names no object, while others of its entry do: .*\"dog's tail\"",
        ),
        (lambda: Vocabulary.load("dog's ear,, dog's tail"), "a comma too many"),
        (lambda: Vocabulary.load("dog's ear, bus: wheel"), '"dog\'s ear, bus" has a comma, so it cannot be an object'),
        (lambda: Vocabulary.load("dog’s ear, dog's ear"), "dog's ear.* twice"),
        (lambda: Vocabulary.from_names(["dog's ear,, dog's tail"]), "has a comma, semicolon or line end too many"),
        (lambda: Vocabulary.from_names([("dog", "ear, tail")]), "'ear, tail' .* has a comma"),
        (lambda: Vocabulary.from_dict({"dog": ["ear、"]}), "'ear、' has a comma, semicolon or line end too many"),
        (lambda: Vocabulary.from_dict({"dog: ear": ["tail"]}), "has a colon"),
        (lambda: Vocabulary.from_dict({"dog": ["e\0ar"]}), r"invisible character \(U\+0000\)"),
        (lambda: Vocabulary.load("dog: e\x1bar"), r"U\+001B"),
        (lambda: Vocabulary.load("dog: \u202eear"), r"U\+202E"),
        (lambda: Vocabulary.load("dog: e\u200bar"), r"U\+200B"),
        (lambda: Vocabulary.load("dog: ear\u200d"), r"U\+200D"),
        (lambda: Vocabulary.load(["dog's \ud800"]), "not valid Unicode"),
        (lambda: Vocabulary.load({"dog": ["x" * 201]}), "201 characters, more than the limit of 200"),
        (lambda: Vocabulary.load("dog: " + "x" * 100_000), "100,000 characters"),
        (lambda: Vocabulary.load("x" * 5000), "5,000 characters, more than the limit of 200"),
        (lambda: Vocabulary.load("a\0b"), r"invisible character \(U\+0000\)"),
        (lambda: Vocabulary.load("pascal-part-117"), "'pascal-part-117' is neither a file nor a catalogue"),
        (lambda: Vocabulary.load("C:\\words"), r"'C:\\\\words' is neither a file nor a catalogue"),
        (lambda: Vocabulary.load("d:/my words.yaml"), "'d:/my words.yaml' is neither a file nor a catalogue"),
        (lambda: Vocabulary.load("words/own"), "'words/own' is neither a file nor a catalogue"),
        (lambda: Vocabulary.load("handle; any: Handle"), "'Handle' is in the vocabulary twice"),
        (lambda: Vocabulary.load("kettle: handle; any: Handle"), "differ only in capitals"),
        (lambda: Vocabulary.load("handle,, wheel"), "a comma too many"),
        (lambda: Vocabulary.load({"any": []}), "'any' has no part"),
        (lambda: Vocabulary.load("dog: head; handle").with_objects("a data set"), "'handle' has no object"),
        (lambda: Vocabulary.load("handle").object_index("any"), "'any' is not an object"),
        (lambda: Vocabulary.load("x" * 300 + ".yaml"), "is neither a file nor a catalogue"),
        (lambda: Vocabulary.from_file("x" * 300), "cannot read the vocabulary file"),
        (lambda: Vocabulary.from_file("a\0b.txt"), "cannot read the vocabulary file"),
        (lambda: Vocabulary.load(""), "the vocabulary is empty"),
        (lambda: Vocabulary.load(" ;\n, "), "the vocabulary is empty"),
        (lambda: Vocabulary.load(3), "expected a list of names"),
        (lambda: Vocabulary.from_catalog("pascal"), "unknown catalogue 'pascal'"),
        (lambda: Vocabulary.from_catalog("part-imagenet", "unseen"), "unknown split 'unseen'"),
        (lambda: Vocabulary.load("nothing.yaml"), "'nothing.yaml' is neither a file nor a catalogue"),
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
        ("{", "words.json: it is not valid JSON .*perhaps since the file is cut off"),
        ("", "words.json: it is empty"),
        ("<html>", "words.json: it is a web page"),
        ("3", "expected a mapping"),
        ('{"dog": ["ear", "ear"]}', "words.json: .*twice"),
        ('{"dog": ["ear"], "dog": ["tail"]}', "words.json: it has the key 'dog' twice"),
        ("[" * 100_000, "words.json: it is not valid JSON of any use .*nested too deeply"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, message):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        Vocabulary.load(tmp_path / "words.json")


@pytest.mark.parametrize("name", ["words.yaml", "words.yml", "words.txt"])
@pytest.mark.parametrize("content", ["", "\n\n", "# a comment\n"])
def test_an_empty_file_has_no_words(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=f"{name}: the vocabulary is empty: name at least one"):
        Vocabulary.load(tmp_path / name)


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


@pytest.mark.parametrize(
    "text",
    [
        "dog: ear, tail; bus: wheel",
        "dog：ear，tail；bus：wheel",
        "dog: ear、 tail\r\nbus: wheel\r\n",
        "dog:\u00a0ear,\u3000tail\u2028bus: wheel",
        "dog's ear, dog's tail, bus's wheel",
        "dog’s ear；dog＇s tail\nbus´s wheel;",
        "\ufeffdog's ear, dog's\ttail; bus: wheel",
        "dog: ear\u037e dog: tail\u037e bus: wheel",  # the Greek question mark, which NFC takes for a semicolon
    ],
)
def test_one_grammar_wherever_words_come_from(tmp_path, text):
    expected = ("dog's ear", "dog's tail", "bus's wheel")
    (tmp_path / "words.txt").write_text(text, encoding="utf-8", newline="")
    assert Vocabulary.load(text).names == expected
    assert Vocabulary.load(tmp_path / "words.txt").names == expected


@pytest.mark.parametrize(
    "text", ['{"dog": ["ear", "tail"]}', ' ["dog\'s ear", ["dog", "tail"]]\n', '["dog’s ear, dog’s tail"]']
)
def test_json_is_read_wherever_words_come_from(tmp_path, text):
    (tmp_path / "words.txt").write_text(text, encoding="utf-8")
    for words in (text, tmp_path / "words.txt"):
        assert Vocabulary.load(words).names == ("dog's ear", "dog's tail")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"dog": ["ear"], "dog": ["tail"]}', "it has the key 'dog' twice"),
        ('{"dog": ["ear"', "begins like JSON, but it is not valid JSON"),
        ("{dog: [ear]}", "begins like JSON, but it is not valid JSON"),
        ("[" * 10_000, "nested too deeply"),
        ("[[[1]]]", "is neither a name such as"),
        ("[]", "the vocabulary is empty"),
        ('{"dog": "ear"}', "the parts of 'dog' must be a list"),
    ],
)
def test_text_that_begins_like_json_is_no_word(text, message):
    with pytest.raises(UsageError, match=message):
        Vocabulary.load(text)


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        ("O’Shea's ear", [("O'Shea", "ear")]),  # 's ends the object only where it ends a word
        ("o'shea's ear", [("o'shea", "ear")]),
        ({"driver’s cab": ["door"]}, [("driver's cab", "door")]),
        ("driver's cab: door", [("driver's cab", "door")]),
        ("car: driver's seat, wheel", [("car", "driver's seat"), ("car", "wheel")]),
        (["dog’s ear", ("cat", "left\u00a0ear")], [("dog", "ear"), ("cat", "left ear")]),
        ({"گربه": ["می\u200cخواهد"]}, [("گربه", "می\u200cخواهد")]),  # a joiner that Persian needs
        (" part-imagenet\n", list(Catalog.load("part-imagenet").object_parts)),
    ],
)
def test_words_as_they_are_kept(words, pairs):
    assert list(Vocabulary.load(words).object_parts) == pairs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "it is no regular file"),
        (Path.mkdir, "it is a folder"),
        (lambda path: path.symlink_to("nowhere"), "it is a link that leads nowhere"),
        (lambda path: path.write_bytes(b"\xff\xfed\0"), "it is not UTF-8 text"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "it is a Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("name", ["words.txt", "words.yaml", "words.json"])
def test_what_is_no_file_of_words_is_named(tmp_path, name, make, message):
    make(tmp_path / name)
    if name == "words.json" and "UTF-8" in message:
        message = "it is not valid JSON|it is not UTF-8 text"
    with pytest.raises(UsageError, match=rf"cannot read the vocabulary file .*{name}: ({message})"):
        Vocabulary.from_file(tmp_path / name)


def test_yaml_keys_stand_once_and_anchors_are_read(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text("dog: [ear]\ndog: [tail]\n")
    with pytest.raises(UsageError, match=r"words\.yaml: it has the key 'dog' twice"):
        Vocabulary.load(path)
    path.write_text("base: &animal [ear, tail]\ndog: *animal\n")
    assert Vocabulary.load(path).names == ("base's ear", "base's tail", "dog's ear", "dog's tail")


def test_known_objects_are_written_with_commas():
    assert split_words(["dog, bus", "  Indian   cobra；cat", ""]) == ("dog", "bus", "Indian cobra", "cat")


def test_catalogues_survive_a_file_and_what_is_printed(tmp_path):
    for name in CATALOGS:
        words = Vocabulary.from_catalog(name)
        words.save(tmp_path / "words.json")
        assert Vocabulary.load(tmp_path / "words.json") == Vocabulary.load(words.to_text()) == words


def test_the_name_of_a_pair():
    assert ObjectPart("dog", "ear").name == "dog's ear"
    assert ObjectPart.from_name("jack-o'-lantern's stem") == ("jack-o'-lantern", "stem")


@pytest.mark.parametrize(
    "words",
    [
        {"dog": ["ear, tail"]},
        {"dog": ["ear、tail"]},
        {"dog": ["ear; tail"]},
        {"dog": ["ear\ntail"]},
        {"dog": ["ear", " tail"]},
        ["dog's ear, dog\u2019s tail"],
        ["dog's ear\uff1b dog's tail"],
        [("dog", "ear"), "dog's tail"],
        "dog: ear, tail",
        "dog's ear, dog's tail",
    ],
    ids=str,
)
def test_separators_separate_words_everywhere_alike(words):
    assert Vocabulary.load(words).names == ("dog's ear", "dog's tail")


@pytest.mark.parametrize("words", ["dog's ear, tail", ["dog's ear, tail"], ["cat's ear", "dog's ear, tail"]], ids=str)
def test_a_name_without_an_object_beside_others_is_refused_everywhere_alike(words):
    with pytest.raises(UsageError, match="'tail' names no object, while others of its entry do"):
        Vocabulary.load(words)
