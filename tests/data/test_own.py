"""Photos annotated by oneself: COCO JSON and folders of index PNGs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partclipseg.data.check import check_dataset
from partclipseg.data.classes import class_list, meanings_of
from partclipseg.data.datasets import open_dataset
from partclipseg.data.paths import inside
from partclipseg.data.problem import DataError
from partclipseg.data.sample import UNLABELLED, objects_in
from partclipseg.errors import UsageError
from partclipseg.vocabulary import ObjectPart

_ = UNLABELLED
FILE = Path("annotations.json")

WHEEL, DOOR, EAR = ObjectPart("car", "wheel"), ObjectPart("car", "left door"), ObjectPart("dog", "ear")


@pytest.mark.parametrize(
    ("categories", "options", "expected"),
    [
        ([("_background_", ""), ("left_door", "car"), ("ear", "dog")], {}, [None, DOOR, EAR]),
        ([("car's wheel", ""), ("dog’s ear", "none")], {}, [WHEEL, EAR]),
        ([("car", "vehicle"), ("wheel", "car")], {}, [ObjectPart("vehicle", "car"), WHEEL]),
        ([("car", "car"), ("wheel", "car")], {}, ["car", WHEEL]),
        ([("car", ""), ("wheel", "car")], {}, ["car", WHEEL]),
        ([("Background", "x"), ("wheel", ""), ("left_door", "")], {"object": "car"}, [None, WHEEL, DOOR]),
        ([("wheel", "vehicle")], {"object": "car"}, [WHEEL]),  # what is said on the command line wins
        ([("car", ""), ("wheel", "")], {"object": "car"}, ["car", WHEEL]),
        ([("rad", "x"), ("tuer", "")], {"mapping": {"RAD": "car's wheel", "tuer": "car's left door"}}, [WHEEL, DOOR]),
        ([("wheel", ""), ("ear", "")], {"mapping": {"car": ["wheel"], "dog": ["ear"]}}, [WHEEL, EAR]),
        ([("w", ""), ("c", ""), ("dirt", "")], {"mapping": {"w": "car's wheel", "c": "car", "dirt": None}},
         [WHEEL, "car", None]),
    ],
)  # fmt: skip
def test_categories_mean_parts_objects_or_nothing(categories: list, options: dict, expected: list) -> None:
    assert meanings_of(categories, FILE, **options) == expected


@pytest.mark.parametrize(
    ("categories", "options", "message"),
    [
        ([("wheel", ""), ("door", "none")], {}, "not said whose parts 'wheel', 'door' are: name it with --object"),
        ([("a", ""), ("b", "")], {"mapping": {"a": "car's wheel"}}, "'b' are: add them to the mapping"),
        ([("a", "")], {"mapping": {"a": "car"}}, "no category is a part"),
        ([("_background_", "")], {"object": "car"}, "no category is a part"),
        ([("a", "")], {"mapping": {"a": 3}}, "'a' must lead to"),
        ([("a", "")], {"mapping": {"a": "car's wheel", "car": ["A"]}}, "'A' stands in it twice"),
        ([("a", "")], {"mapping": {"a": "car's wheel"}, "object": "car"}, "not both"),
    ],
)
def test_unclear_categories_are_named(categories: list, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        meanings_of(categories, FILE, **options)


def test_categories_may_share_a_class() -> None:
    meanings = meanings_of([("l", ""), ("r", "")], FILE, mapping={"l": "car's door", "r": "Car's Door"})
    assert class_list(meanings) == ((ObjectPart("car", "door"),), ("car",))


def test_mapping_files(files, coco: Callable, rectangle: Callable) -> None:
    coco([("rad", "")], [("rad", [rectangle(0, 0, 1, 1)])])
    for name, text in (("m.yaml", "rad: car's wheel\n"), ("m.json", '{"rad": "car\'s wheel"}')):
        dataset = open_dataset("coco", files.root, mapping=files.text(name, text))
        assert dataset.vocabulary.names == ("car's wheel",)
    expected = "expected a mapping"
    for text, message in (("- rad", expected), ("{", "cannot read the mapping"), ("", expected)):
        with pytest.raises(UsageError, match=message):
            open_dataset("coco", files.root, mapping=files.text("bad.yaml", text))


def test_parts_lie_on_their_object_and_small_on_large(coco: Callable, rectangle: Callable) -> None:
    files = coco(
        [("ear", "dog"), ("head", "dog"), ("dog", "dog"), ("wheel", "car"), ("_background_", "")],
        [
            ("ear", [rectangle(0, 0, 1, 1)]),
            ("head", [rectangle(0, 0, 3, 1)]),
            ("dog", [rectangle(0, 0, 4, 2)]),
            ("wheel", {"size": [4, 6], "counts": [19, 1, 4]}),  # row 3, column 4
            ("_background_", [rectangle(0, 3, 2, 1)]),
        ],
    )
    dataset = open_dataset("coco", files.root)
    assert dataset.vocabulary.names == ("dog's ear", "dog's head", "car's wheel")
    assert dataset.seen == (0, 1, 2)
    c, d = 0, 1
    sample = dataset[0]
    np.testing.assert_array_equal(
        sample.part_labels, [[0, 1, 1, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, 2, _]]
    )
    np.testing.assert_array_equal(
        sample.object_labels, [[d, d, d, d, _, _], [d, d, d, d, _, _], [_, _, _, _, _, _], [_, _, _, _, c, _]]
    )
    assert (dataset.keys(), objects_in(sample.object_labels)) == (("a",), [0, 1])


@pytest.mark.parametrize(
    ("photo_at", "annotations_at", "entry"),
    [
        ("a.jpg", "annotations.json", {"file_name": "a.jpg"}),
        ("images/a.jpg", "annotations.json", {"file_name": "a.jpg"}),
        ("images/a.jpg", "annotations.coco.json", {"file_name": "a.jpg"}),
        ("JPEGImages/a.jpg", "annotations.json", {"file_name": "a.jpg", "path": "JPEGImages/a.jpg"}),
        ("a.jpg", "annotations.json", {"file_name": "a.jpg", "path": "gone/a.jpg"}),
        ("images/val/a.jpg", "annotations/val.json", {"file_name": "a.jpg"}),
        ("val/a.jpg", "annotations/instances_val.json", {"file_name": "a.jpg"}),
        ("valid/a.jpg", "valid/_annotations.coco.json", {"file_name": "a.jpg"}),
        ("test/sub/a.jpg", "test.json", {"file_name": "sub\\a.jpg"}),
    ],
)
def test_photos_and_annotation_files_are_found(files, photo_at: str, annotations_at: str, entry: dict) -> None:
    path = files.photo(photo_at)
    content = {"images": [{"id": 1, **entry}], "annotations": [], "categories": [{"id": 1, "name": "dog's ear"}]}
    files.json(annotations_at, content)
    dataset = open_dataset("coco", files.root)
    assert dataset.records[0].photo.path == path
    assert (dataset[0].part_labels == UNLABELLED).all()


def test_annotation_file_and_photo_folder_can_be_named(files, tmp_path: Path) -> None:
    photo = files.photo("elsewhere/a.jpg")
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
    file = files.json("x/mine.json", {**content, "categories": [{"id": 1, "name": "dog's ear"}]})
    with pytest.raises(UsageError, match=r"name one of mine\.json with --annotations"):
        open_dataset("coco", file.parent)
    for options in ({"annotations": file, "images": photo.parent}, {"annotations": str(file), "images": photo.parent}):
        assert open_dataset("coco", file.parent, **options).records[0].photo.path == photo
    assert open_dataset("coco", file, images=photo.parent).records[0].photo.path == photo
    with pytest.raises(UsageError, match="there is no COCO JSON in it, such as test"):
        open_dataset("coco", photo.parent)
    with pytest.raises(UsageError, match="no such folder"):
        open_dataset("coco", tmp_path / "nowhere")


def test_keys_are_unique_and_fit_for_files(files) -> None:
    names = ["x/a.jpg", "y/a.jpg", "b.jpg"]
    for name in names:
        files.photo(name)
    photos = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    categories = [{"id": 1, "name": "dog's ear"}]
    files.json("annotations.json", {"images": photos, "annotations": [], "categories": categories})
    assert open_dataset("coco", files.root).keys() == ("x-a", "y-a", "b")


ESCAPES = [
    "../a.jpg",
    "/etc/passwd",
    "x/../../a.jpg",
    "x/../b.jpg",
    "..\\a.jpg",
    "C:\\a.jpg",
    "\\a.jpg",
    "~/a.jpg",
    "a\0.jpg",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("field", ["file_name", "path"])
def test_photos_outside_the_root_are_refused(
    files, coco: Callable, tmp_path_factory: pytest.TempPathFactory, name: str, field: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    files.photo("a.jpg").rename(outside / "a.jpg")
    (files.root / "x").mkdir()
    coco([("ear", "dog")], [], {"id": 5, "file_name": "a.jpg", field: name})
    with pytest.raises(DataError) as caught:
        open_dataset("coco", files.root)
    assert caught.value.problem.kind == "path"
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("form", ["hub cache", "linked folder", "linked annotations"])
def test_links_are_followed_out_of_the_root(
    coco: Callable, rectangle: Callable, tmp_path_factory: pytest.TempPathFactory, form: str
) -> None:
    """Hub caches and DVC keep the files elsewhere, under other names."""
    store = tmp_path_factory.mktemp("store")
    name = "folder/a.jpg" if form == "linked folder" else "a.jpg"
    photo = {"id": 5, "file_name": name, "height": 4, "width": 6}
    files = coco([("ear", "dog")], [("ear", [rectangle(0, 0, 1, 1)])], photo)
    if form == "linked folder":
        (files.root / "a.jpg").rename(store / "a.jpg")
        (files.root / "folder").symlink_to(store)
    else:
        moved = files.root / ("annotations.json" if form == "linked annotations" else "a.jpg")
        moved.rename(store / "3f786850e387550f")
        moved.symlink_to(store / "3f786850e387550f")
    assert check_dataset("coco", files.root).ok
    assert open_dataset("coco", files.root)[0].part_labels[0, 0] == 0


@pytest.mark.parametrize("name", ["", " ", ".", "./"])
def test_a_path_that_names_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it names no file"):
        inside(tmp_path, name, FILE)


@pytest.mark.parametrize("benchmark_fixture", ["ade20k", "part_imagenet"])
def test_benchmarks_refuse_paths_outside_too(benchmark_fixture: str, request: pytest.FixtureRequest) -> None:
    files = request.getfixturevalue(benchmark_fixture)
    name, file = {
        "ade20k": ("ade20k-part-234", "ade20k_instance_val.json"),
        "part_imagenet": ("part-imagenet", "val.json"),
    }[benchmark_fixture]
    content = json.loads((files.root / file).read_text())
    content["images"][0]["file_name"] = "../../n02422699_7.JPEG"
    files.json(file, content)
    with pytest.raises(DataError, match="is refused because it leads out of"):
        open_dataset(name, files.root)


CLASSES = "background\ncar's wheel\ncar's left door\n"


def index_png(files, classes: str = CLASSES, name: str = "classes.txt") -> None:
    files.photo("images/a.jpg", 2, 3)
    files.labels("labels/a.png", [[0, 1, 1], [2, 255, 0]])
    files.text(name, classes)


@pytest.mark.parametrize(
    ("name", "classes", "options"),
    [
        ("classes.txt", CLASSES, {}),
        ("classes.yaml", "0: background\n1: car's wheel\n2: car's left door", {}),
        ("classes.json", '["background", "car\'s wheel", "car\'s left door"]', {}),
        ("classes.txt", "_background_\nwheel\nleft_door", {"object": "car"}),
        ("classes.json", '["background", "r", "t"]', {"mapping": {"r": "car's wheel", "t": "car's left door"}}),
        ("classes.json", '["background", ["car", "wheel"], ["car", "left door"]]', {}),
    ],
)
def test_index_pngs_with_a_class_list(files, name: str, classes: str, options: dict) -> None:
    index_png(files, classes, name)
    dataset = open_dataset("index-png", files.root, **options)
    assert dataset.vocabulary.names == ("car's wheel", "car's left door")
    sample = dataset[0]
    np.testing.assert_array_equal(sample.part_labels, [[_, 0, 0], [1, _, _]])
    np.testing.assert_array_equal(sample.object_labels, [[_, 0, 0], [0, _, _]])


def test_index_pngs_by_object_with_16_bits_and_splits(files) -> None:
    for split in ("train", "val"):
        files.photo(f"images/{split}/{split}1.jpg", 2, 3)
        files.labels(f"labels/{split}/{split}1.png", [[0, 1, 65535], [2, 2, 0]], np.uint16)
    file = files.text("names.yaml", "car: [wheel, door]\ndog: [ear]")
    dataset = open_dataset("index-png", files.root, classes=file)
    assert dataset.keys() == ("val1",)
    assert open_dataset("index-png", files.root, "train", classes=file).keys() == ("train1",)
    np.testing.assert_array_equal(dataset[0].part_labels, [[0, 1, _], [2, 2, 0]])
    np.testing.assert_array_equal(dataset[0].object_labels, [[0, 0, _], [1, 1, 0]])


def test_index_pngs_of_256_classes_use_255(files) -> None:
    index_png(files, "\n".join(f"car's part {i}" for i in range(256)))
    np.testing.assert_array_equal(open_dataset("index-png", files.root)[0].part_labels, [[0, 1, 1], [2, 255, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "classes.txt").unlink(), "no class list classes.txt"),
        (lambda root: (root / "labels").rename(root / "Labels"), r"no folder labels \(found Labels: rename it\)"),
        (lambda root: (root / "labels/a.png").unlink() or (root / "labels/train").mkdir(), "no folder labels/test"),
        (lambda root: (root / "classes.txt").write_text("wheel\ndoor\near"), "not said whose parts 'wheel'"),
        (lambda root: (root / "classes.txt").write_text(""), "expected a list of class names"),
        (lambda root: (root / "classes.txt").rename(root / "classes.json"), "cannot read the class list"),
    ],
)
def test_incomplete_index_png_roots(files, change: Callable[[Path], object], message: str) -> None:
    index_png(files)
    change(files.root)
    with pytest.raises(UsageError, match=message):
        open_dataset("index-png", files.root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "images/p0.png").rename(root / "images/p0.cr2"), "there is 1 picture of a kind that is"),
        (lambda root: (root / "images/p0.png").rename(root / "images/p0.PSD"), "p0.PSD: convert .psd to JPEG or PNG"),
        (lambda root: convert(root / "labels/p0.png", "JPEG"), "is a JPEG file, which does not keep labels"),
        (lambda root: convert(root / "labels/p0.png", "GIF"), "is a GIF file, which does not keep labels as they are"),
        (lambda root: convert(root / "labels/p0.png", "TIFF"), None),
        (lambda root: convert(root / "labels/p0.png", "BMP"), None),
    ],
)
def test_photos_and_labels_of_other_kinds(own_data: Path, change: Callable[[Path], object], message: str) -> None:
    change(own_data)
    problems = [str(problem) for problem in check_dataset("index-png", own_data).problems]
    assert len(problems) == (message is not None)
    assert message is None or message in problems[0]


def convert(path: Path, kind: str) -> None:
    Image.open(path).save(path, kind)


def test_heic_photos_are_read(own_data: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    photo = own_data / "images/p0.png"
    Image.open(photo).save(photo.with_suffix(".heic"), "HEIF", quality=100)
    photo.unlink()
    assert check_dataset("index-png", own_data).ok
    sample = open_dataset("index-png", own_data)[0]
    assert (sample.key, sample.image.shape) == ("p0", (40, 56, 3))


def test_a_file_in_place_of_a_folder_is_told(own_data: Path) -> None:
    (own_data / "labels").rename(own_data / "kept")
    (own_data / "labels").write_text("x")
    with pytest.raises(UsageError, match=re.escape("no folder labels (found labels: it is no folder: move it away)")):
        open_dataset("index-png", own_data)


@pytest.mark.parametrize("label", ['{"-1": "dog\'s ear"}', '{"65535": "dog\'s ear"}', '{"x": "dog\'s ear"}', "[3]"])
def test_impossible_class_lists(files, label: str) -> None:
    index_png(files, label, "classes.json")
    with pytest.raises(UsageError, match="is not a label number from 0 to 65534 and a class name"):
        open_dataset("index-png", files.root)


LABELME = '{"version": "5.4", "shapes": [], "imagePath": "a.jpg"}'


@pytest.mark.parametrize("name", ["coco", "index-png"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.json": LABELME, "b.json": LABELME}, "these are files of labelme, .* convert them to COCO JSON"),
        ({"labelme/a.json": LABELME}, "these are files of labelme"),
        ({"images/train/a.jpg": "", "labels/train/a.txt": "0 .1 .1 .5 .1 .5 .5"}, "these are labels of YOLO"),
        ({"data.yaml": "names: [ear]", "train/images/a.jpg": "", "train/labels/a.txt": ""}, "these are labels of YOLO"),
        ({"gtFine/train/x/x_gtFine_labelIds.png": ""}, "this is the layout of Cityscapes"),
        ({"SegmentationClass/a.png": "", "JPEGImages/a.jpg": ""}, "this is the layout of VOC: rename JPEGImages"),
    ],
)
def test_data_in_the_form_of_another_tool_is_named(tmp_path: Path, content: dict, message: str, name: str) -> None:
    for file, text in content.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=message):
        open_dataset(name, tmp_path, "train")


@pytest.mark.parametrize("words", ["zebra: hoof", "cat: eye", "horse: ears, legs"])
def test_words_that_are_no_class_of_the_data_are_refused(words: str, own_data: Path) -> None:
    with pytest.raises(UsageError, match=r"no object-part of the vocabulary, .* is a class of index-png, such"):
        open_dataset("index-png", own_data, vocabulary=words)
    assert len(open_dataset("index-png", own_data, vocabulary=f"{words}; Dog: EAR")) == 6
