"""Annotations that nothing can be learnt from, and values of wrong types: each is a problem with a name."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partclipseg.apps.cli import main
from partclipseg.data.check import check_dataset
from partclipseg.data.classes import class_list, meanings_of
from partclipseg.data.datasets import open_dataset
from partclipseg.data.datasets.own import read_class_list
from partclipseg.data.problem import DataError
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.formats.coco import coco_categories
from partclipseg.json_file import read_json
from partclipseg.vocabulary import Vocabulary

EAR = ("ear", "dog")
SQUARE = [[0, 0, 2, 0, 2, 2, 0, 2]]


@pytest.fixture
def edited(coco: Callable) -> Callable[[Callable[[dict], object]], Path]:
    """A sound file of one photo and two annotations, changed by a function; returns the root."""

    def write(change: Callable[[dict], object]) -> Path:
        files = coco([EAR, ("tail", "dog")], [("ear", SQUARE), ("tail", [[3, 0, 5, 0, 5, 2, 3, 2]])])
        content = json.loads((files.root / "annotations.json").read_text())
        change(content)
        files.json("annotations.json", content)
        return files.root

    return write


def problems(root: Path) -> list[str]:
    return [f"{problem.kind}: {problem.message}" for problem in check_dataset("coco", root).problems]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "it has no outline, and a box alone labels nothing"),
        ([[]], "it has no outline"),
        ([[0, 0, 3, 3]], "fewer than three corners"),
        ([[0, 0, 3, 3], [1, 1]], "fewer than three corners"),
        ([[0, 0, 2, 2, 4, 4]], "encloses no pixel"),
        ([[1, 1, 1, 1, 1, 1]], "encloses no pixel"),
        ([[3.1, 2.1, 3.2, 2.1, 3.2, 2.2]], "encloses no pixel"),
        ([[6, 0, 9, 0, 9, 2, 6, 2]], "it lies outside the photo"),
        ([[0, -3, 2, -3, 2, -1, 0, -1]], "it lies outside the photo"),
        ([[0, 20, 2, 20, 2, 30, 0, 30]], "it lies outside the photo"),
        ({"size": [4, 6], "counts": [24]}, "its run lengths mark no pixel"),
        ({"size": [4, 6], "counts": [24, 0]}, "its run lengths mark no pixel"),
        ({"size": [4, 6], "counts": "h0"}, "its run lengths mark no pixel"),
    ],
)
def test_masks_that_cover_no_pixel(edited: Callable, segmentation: Any, message: str) -> None:
    root = edited(lambda content: content["annotations"][1].update(segmentation=segmentation, bbox=[0, 0, 3, 3]))
    (problem,) = problems(root)
    assert problem.startswith("empty: annotation 1 of photo a covers no pixel: ")
    assert message in problem


@pytest.mark.parametrize("absent", [None, "removed"])
def test_annotations_without_a_mask(edited: Callable, absent: str | None) -> None:
    def change(content: dict) -> None:
        content["annotations"][1]["segmentation"] = None
        if absent:
            del content["annotations"][1]["segmentation"]

    (problem,) = problems(edited(change))
    assert problem.startswith("annotation: entry 1 of 'annotations' has no segmentation: outline the part, since a box")


def repeat(content: dict, key: str, **changes: object) -> None:
    content[key].append({**content[key][0], **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(categories=[]), "lists no category"),
        (lambda c: c.update(categories=None), "there is no list 'categories'"),
        (lambda c: c.pop("categories"), "there is no list 'categories'"),
        (lambda c: c.update(categories={"1": "ear"}), "there is no list 'categories'"),
        (lambda c: c.update(annotations=[]), "no part is labelled in any photo: label some"),
        (lambda c: c.update(annotations={}), "there is no list 'annotations'"),
        (lambda c: c.update(images=[], annotations=[]), "no labelled photo"),
        (lambda c: repeat(c, "categories", name="paw"), "the categories 'ear' and 'paw' have the same id 1"),
        (lambda c: repeat(c, "categories", id="1", name="paw"), "the categories 'ear' and 'paw' have the same id 1"),
        (lambda c: repeat(c, "images"), "two entries of 'images', 'a.jpg' and 'a.jpg', have the same id 5"),
        (lambda c: repeat(c, "images", id=5.0), "have the same id 5"),
        (lambda c: repeat(c, "images", id=6), "the entries 5 and 6 of 'images' are the same photo 'a.jpg'"),
        (
            lambda c: repeat(c, "images", id=6, file_name="./a.jpg"),
            "the entries 5 and 6 of 'images' are the same photo",
        ),
    ],
)
def test_nothing_to_learn_from_and_things_given_twice(edited: Callable, change: Callable, message: str) -> None:
    assert any(message in problem for problem in problems(edited(change)))


@pytest.mark.parametrize("form", [int, float, str, lambda number: f"{number}.0"])
@pytest.mark.parametrize("reference", [int, float, str, lambda number: f"{number}.0"])
def test_an_id_may_be_written_as_integer_float_or_text(edited: Callable, form: Callable, reference: Callable) -> None:
    def change(content: dict) -> None:
        for entry in (*content["images"], *content["categories"]):
            entry["id"] = form(entry["id"])
        for entry in content["annotations"]:
            entry["image_id"], entry["category_id"] = reference(entry["image_id"]), reference(entry["category_id"])
        content["images"][0].update(height=form(4), width=reference(6))
        content["annotations"][0]["segmentation"] = {"size": [form(4), form(6)], "counts": [reference(20), form(4)]}

    root = edited(change)
    assert problems(root) == []
    assert set(open_dataset("coco", root)[0].part_labels.ravel()) == {-1, 0, 1}


def test_text_is_an_id_as_it_is(edited: Callable) -> None:
    def change(content: dict) -> None:
        content["images"][0]["id"] = "0005"
        content["annotations"][0]["image_id"] = content["annotations"][1]["image_id"] = "0005"
        repeat(content, "images", id=5, file_name="b.jpg")

    assert problems(edited(change)) == [
        "missing photo: the photo is missing: restore it or remove its labels"
    ]  # the two photos are told apart


BAD = [None, [1], {"a": 1}, True, 10**400, float("nan"), float("inf"), 1.5, "\ud800", ""]
FIELDS = [("images", "id"), ("categories", "id"), ("annotations", "image_id"), ("annotations", "category_id")]


@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(("key", "name"), [*FIELDS, ("categories", "name"), ("images", "file_name")])
def test_values_that_are_no_id_and_no_name(edited: Callable, key: str, name: str, value: Any) -> None:
    root = edited(lambda content: content[key][0].update({name: value}))
    found = problems(root)
    entry = "the photo 5" if (name, value) in (("file_name", None), ("file_name", "")) else f"entry 0 of '{key}' has "
    assert any(entry in problem and name in problem for problem in found), found
    with pytest.raises(PartCLIPSegError):
        open_dataset("coco", root)
    "\n".join(found).encode()  # can be shown


@pytest.mark.parametrize("value", [value for value in BAD if value != ""], ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (lambda c, v: c["images"][0].update(width=v), "has the width"),
        (lambda c, v: c["images"][0].update(height=v), "has the height"),
        (lambda c, v: c["annotations"][0].update(iscrowd=v), "has the iscrowd"),
        (lambda c, v: c["annotations"][0].update(segmentation={"size": [4, 6], "counts": [v, 4]}), "run lengths"),
        (lambda c, v: c["annotations"][0].update(segmentation={"size": [v, 6], "counts": [20, 4]}), "the size"),
        (lambda c, v: c["annotations"][0].update(segmentation={"size": [4, 6], "counts": v}), "run lengths"),
        (lambda c, v: c["annotations"][0].update(segmentation=[[v, 0, 4, 0, 4, 4]]), "the coordinate"),
        (lambda c, v: c["categories"][0].update(supercategory=v or 0), "has the supercategory"),
    ],
)
def test_values_that_are_no_number(edited: Callable, place: Callable, message: str, value: Any) -> None:
    harmless = (value is True and message == "has the iscrowd") or (value == 1.5 and message == "the coordinate")
    if harmless:
        assert problems(edited(lambda content: place(content, value))) == []
        return
    found = problems(edited(lambda content: place(content, value)))
    assert any(message in problem for problem in found), found
    assert not any("resized" in problem for problem in found)
    "\n".join(found).encode()


def test_only_what_is_stated_of_the_size_is_compared(edited: Callable) -> None:
    assert problems(edited(lambda content: content["images"][0].pop("height"))) == []
    (problem,) = problems(edited(lambda content: content["images"][0].update(width=9)))
    assert "says 9x4: one of them was resized" in problem


ACCENT = unicodedata.normalize("NFC", "café 1.jpg")


@pytest.mark.parametrize(
    ("there", "written", "message"),
    [
        (ACCENT, unicodedata.normalize("NFD", ACCENT), "in the Unicode normal form"),
        (unicodedata.normalize("NFD", ACCENT), ACCENT, "in the Unicode normal form"),
        ("a b.jpg", quote("a b.jpg"), "in percent-encoding"),
        (quote(ACCENT), ACCENT, "in percent-encoding"),
        ("IMG_1.JPG", "img_1.jpg", "in capitals"),
        ("Sub/a.jpg", "sub/a.jpg", "in capitals"),
        ("sub/a b.jpg", "sub%2Fa%20b.jpg", "name differs"),
    ],
)
def test_a_photo_of_almost_the_same_name_is_pointed_at(files, there: str, written: str, message: str) -> None:
    path = files.photo(there)
    content = {
        "images": [{"id": 1, "file_name": written}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": SQUARE}],
        "categories": [{"id": 1, "name": "dog's ear"}],
    }
    files.json("annotations.json", content)
    (problem,) = check_dataset("coco", files.root).problems
    assert problem.kind == "missing photo"
    assert f"{path} is there" in problem.message
    assert message in problem.message
    with pytest.raises(DataError) as caught:
        open_dataset("coco", files.root)[0]
    assert caught.value.problem == problem


def test_a_label_picture_of_almost_the_same_name(files) -> None:
    files.text("classes.txt", "dog's ear")
    photo = files.photo(f"images/{ACCENT}")
    files.labels("labels/CAFÉ 1.png", [[0]])
    found = check_dataset("index-png", files.root).problems
    assert any(f"{photo} is there" in problem.message for problem in found)


@pytest.mark.parametrize(
    "names", [("images/a.jpg", "images/a.png"), ("images/a.jpg", "images/a.JPG"), ("labels/a.PNG", "images/a.jpg")]
)
def test_one_stem_twice(files, names: tuple[str, str]) -> None:
    files.text("classes.txt", "dog's ear")
    files.labels("labels/a.png", [[0]])
    for name in names:
        files.photo(name, 1, 1)
    (problem,) = [one for one in check_dataset("index-png", files.root).problems if one.kind == "repeated"]
    assert "has the same name but for the suffix" in problem.message
    with pytest.raises(DataError, match="but for the suffix"):
        open_dataset("index-png", files.root)


def test_a_label_picture_in_capitals_is_read(files) -> None:
    files.text("classes.txt", "dog's ear")
    files.labels("labels/a.PNG", [[0, 255]])
    files.photo("images/a.jpg", 1, 2)
    assert check_dataset("index-png", files.root).ok


@pytest.mark.parametrize("file", ["images/a.jpg", "labels/a.png"])
def test_formats_that_are_no_pictures_of_ours_are_not_opened(files, file: str) -> None:
    files.text("classes.txt", "dog's ear")
    files.labels("labels/a.png", [[0]])
    files.photo("images/a.jpg", 1, 1)
    (files.root / file).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\nquit\n")
    (problem,) = check_dataset("index-png", files.root).problems
    assert (problem.kind, problem.file) == ("unreadable", files.root / file)


# -- files that are no JSON -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\0" * 600, "zero bytes"),
        (b"<!DOCTYPE html><html></html>", "is a web page in place of the file"),
        (b"\n  <HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer"),
        (b"outs:\n- md5: 00\n  path: annotations.json\n", "is a DVC pointer"),
        (b"\x1f\x8b\x08", "is packed \\(gzip\\)"),
        (b"PK\x03\x04", "is packed \\(ZIP\\)"),
        ('{"images": "café"}'.encode("latin-1"), "is not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"images": [{"id": 1', "perhaps since the file is cut off"),
        (b'{"images": "a', "perhaps since the file is cut off"),
        (b'{"images": [] "a"}', "is not valid JSON .Expecting"),
        (b"9" * 5000, "is not valid JSON"),
        (b'{"images": [], "images": [], "annotations": [], "categories": []}', "has the key 'images' twice"),
        (b'{"images": [{"id": 1, "id": 2}], "annotations": []}', "has the key 'id' twice"),
        (b'{"info": {"a": {"b": 1, "b": 1}}}', "has the key 'b' twice"),
        (b'{"images": [], "\\u0069mages": []}', "has the key 'images' twice"),
        (b'{"' + b"x" * 900 + b'": 1, "' + b"x" * 900 + b'": 2}', "has the key 'x{100}'… twice"),
        (b"[]", "there is no list 'images'"),
        (b"null", "there is no list 'images'"),
        (b'{"images": {}}', "there is no list 'images'"),
    ],
)
def test_files_that_are_no_annotation_files(files, content: bytes, message: str) -> None:
    (files.root / "annotations.json").write_bytes(content)
    (problem,) = check_dataset("coco", files.root).problems
    with pytest.raises(DataError, match=message) as caught:
        open_dataset("coco", files.root)
    assert caught.value.problem == problem


def pipe(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD = [
    (pipe, "is no regular file"),
    (device, "is no regular file"),
    (dangling, "is a link that leads nowhere"),
    (circle, "is a link that leads nowhere"),
    (Path.mkdir, "folder|directory"),
]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes")
@pytest.mark.parametrize(("odd", "message"), ODD, ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize("file", ["annotations.json", "train.json", "classes.txt", "mapping.yaml", "labels/a.png"])
def test_what_is_no_file_is_named_and_not_waited_for(files, file: str, odd: Callable, message: str) -> None:
    """A file of an odd kind is never passed over for another one, nor called missing."""
    files.photo("images/a.jpg", 2, 3)
    files.labels("labels/a.png", [[0, 1, 1], [2, 255, 0]])
    files.text("classes.txt", "background\ncar's wheel\ncar's left door\n")
    files.json("annotations.json", {"images": [], "annotations": [], "categories": []})
    (files.root / file).unlink(missing_ok=True)
    odd(files.root / file)
    name = "coco" if file.endswith(".json") else "index-png"
    options = {"mapping": files.root / file} if file.startswith("mapping") else {}
    with pytest.raises(PartCLIPSegError, match=message) as caught:
        open_dataset(name, files.root, "train", **options)[0]
    assert file in str(caught.value)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_in_every_unicode_encoding(tmp_path: Path, codec: str) -> None:
    (tmp_path / "a.json").write_bytes('{"é": 1}'.encode(codec))
    assert read_json(tmp_path / "a.json") == {"é": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.json", '{"1": "dog\'s ear", "1": "dog\'s tail"}', "has the key '1' twice"),
        ("classes.yaml", "1: dog's ear\n1: dog's tail", "has the key 1 twice"),
        ("classes.yaml", "1: dog's ear\n0x1: dog's tail", "has the key 1 twice"),
        ("classes.json", '{"1": "dog\'s ear", "1.0": "dog\'s tail"}', "the label number 1 stands in it twice"),
        ("classes.json", '{"²": "dog\'s ear"}', "is not a label number"),
        ("classes.json", '{"1": null}', "is not a label number"),
        ("classes.json", '["dog\'s ear", "\\ud800"]', "is not a label number"),
        ("classes.yaml", "true: dog's ear", "is not a label number"),
        ("classes.yaml", "&a [*a]", "is not a label number"),
        ("classes.yaml", "[" * 5000, "is not valid YAML"),
        ("classes.yaml", "!!timestamp x", "is not valid YAML"),
        ("classes.txt", "<!doctype html>\n<title>dog's ear</title>", "is a web page"),
        ("classes.txt", "dog's ear\n\ndog's tail", "has an empty line 2, .* if label 1 is no class"),
        ("classes.txt", "\ndog's ear", "has an empty line 1, "),
        ("classes.txt", "dog's ear\r\n \t\r\ndog's tail\r\n", "has an empty line 2, "),
        ("classes.txt", "dog's ear\r\rdog's tail", "has an empty line 2, "),
        ("classes.txt", "__ignore__\n_background_\near", "is a list for labelme, .*delete that line"),
        ("classes.txt", "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_class_lists_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_class_list(path)


@pytest.mark.parametrize("text", ["a\nb", "a\nb\n", "a\r\nb\r\n\r\n", "a\rb", "\ufeffa\nb\n \n\n"])
def test_empty_lines_at_the_end_of_a_class_list_are_no_labels(tmp_path: Path, text: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    assert read_class_list(path) == {0: ("a", None), 1: ("b", None)}


# -- names ------------------------------------------------------------------------------------------------------------

WORDS = st.text("ab'’s_ éÉ", min_size=1, max_size=8).filter(str.strip)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
@example([("potter's wheel", "rim"), ("potter", "wheel's rim"), ("none", "root"), ("traffic_light", "lamp")])
def test_categories_that_the_product_writes_are_read_back(pairs: list[tuple[str, str]]) -> None:
    try:
        vocabulary = Vocabulary.from_names(pairs)
    except UsageError:  # two words that differ in capitals alone
        return
    written = [(category["name"], category["supercategory"]) for category in coco_categories(vocabulary)]
    assert class_list(meanings_of(written, Path("annotations.json")))[0] == vocabulary.object_parts


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_class_lists_that_the_product_writes_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    try:
        vocabulary = Vocabulary.from_names(pairs)
    except UsageError:
        return
    path = tmp_path_factory.getbasetemp() / "vocabulary.json"
    vocabulary.save(path)
    names = read_class_list(path)
    assert list(names) == list(range(len(vocabulary)))
    assert class_list(meanings_of(names.values(), path))[0] == vocabulary.object_parts


@pytest.mark.parametrize(
    ("category", "options", "expected"),
    [
        (("potter's wheel's rim", "potter's wheel"), {}, ("potter's wheel", "rim")),
        (("Potter’s wheel's rim", "potter's wheel"), {}, ("Potter’s wheel", "rim")),
        (("potter's wheel's rim", "pottery"), {}, ("potter", "wheel's rim")),
        (("potter's wheel's rim", ""), {"object": "potter's wheel"}, ("potter's wheel", "rim")),
        (("car's door", "x"), {"object": "car"}, ("car", "door")),
        (("k", ""), {"mapping": {"potter's wheel": ["k"]}}, ("potter's wheel", "k")),
    ],
)
def test_the_object_says_where_a_name_splits(category: tuple, options: dict, expected: tuple) -> None:
    assert meanings_of([category], Path("annotations.json"), **options) == [expected]


def test_words_in_another_unicode_form_keep_their_labels(edited: Callable) -> None:
    root = edited(lambda content: content["categories"][0].update(name=unicodedata.normalize("NFD", "épaule")))
    assert problems(root) == []
    assert 0 in open_dataset("coco", root)[0].part_labels


# -- the command, and time --------------------------------------------------------------------------------------------


def test_check_data_fails_on_boxes_alone(edited: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: dict) -> None:
        for annotation in content["annotations"]:
            annotation.update(segmentation=[], bbox=[0, 0, 3, 3])

    assert main(["check-data", "coco", "--data", str(edited(change))]) == 1
    out = capsys.readouterr().out
    assert "Problems: 2" in out
    assert "All is well" not in out


def test_time_grows_with_the_file_alone(files) -> None:
    """4,000 photos that are missing, in one folder, of which each has a namesake in capitals: no square in there."""
    count = 4000
    (files.root / "x").mkdir()
    for number in range(count):
        (files.root / f"x/P{number}.JPG").touch()
    content = {
        "images": [{"id": number, "file_name": f"x/p{number}.jpg"} for number in range(count)],
        "categories": [{"id": number, "name": f"dog's part {number}"} for number in range(count)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": number, "segmentation": SQUARE} for number in range(count)
        ],
    }
    files.json("annotations.json", content)
    start = time.process_time()
    report = check_dataset("coco", files.root)
    assert len(report.problems) == count
    assert time.process_time() - start < 10


@pytest.mark.parametrize("there", [0, 1])
def test_where_no_photo_is_there_their_folder_is_asked_for(files, there: int) -> None:
    names = [f"{number}.jpg" for number in range(3)]
    for name in names[:there]:
        files.photo(name)
    ear = {"category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    annotations = [{**ear, "id": number, "image_id": number} for number in range(3)]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    categories = [{"id": 1, "name": "ear", "supercategory": "dog"}]
    files.json("annotations.json", {"images": images, "categories": categories, "annotations": annotations})
    found = problems(files.root)
    assert len([one for one in found if "the photo is missing" in one]) == 3 - there
    asked = "missing photo: none of its 3 photos is there: name their folder with --images"
    assert (found[0] == asked) == (there == 0)
