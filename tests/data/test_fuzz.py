"""Damaged files of every reader: whatever is in them, nothing but `PartCLIPSegError` comes out.

PARTCLIPSEG_FUZZ_EXAMPLES=20000 pytest tests/data/test_fuzz.py   # a long run; the default is quick
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partclipseg.data.check import check_dataset
from partclipseg.data.coco_masks import encode_mask
from partclipseg.data.datasets import open_dataset
from partclipseg.errors import PartCLIPSegError

EXAMPLES = int(os.environ.get("PARTCLIPSEG_FUZZ_EXAMPLES", "40"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    # The folder is made once; every example writes its damaged file anew.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

deep: Any = []
for _ in range(200):
    deep = [deep]

HOSTILE: list[Any] = [
    *(None, True, False, 0, 1, 2, 5, -1, 1.0, 1.5, 0.1, 1e300, -0.0, float("nan"), float("inf")),
    *(10**400, 2**63, -(2**31), "1", "1.0", "01", "", " ", "x", "²", "\ud800", "\udce9.jpg", "a\0b", "a\nb"),
    *("../a.jpg", "/a.jpg", "a.jpg", "A.JPG", "./", "~", "x" * 5000, "é.jpg", "%2e%2e/a.jpg", "0" * 50),
    *("dog's ear", "'s", "dog's", "dog", "background", "none"),
    *([], {}, [[]], [{}], {"a": 1}, [0], [1, 1], [[0, 0, 3, 0, 3, 3]], [[1, 1, 3, 3]], deep),
    *({"size": [4, 6], "counts": [24]}, {"size": [4, 6], "counts": "0"}, {"size": [4.0, "6"], "counts": [20.0, "4"]}),
]
KEYS = [value[:99] for value in HOSTILE if isinstance(value, str)]
PIECES = [
    # The reader of YAML takes a second for 100,000 brackets on one line, and no time for one a line.
    *(b"[\n" * 50_000, b'{"a":' * 5000),
    *(b"\xef\xbb\xbf", b"9" * 5000, b"NaN", b"<!DOCTYPE html>", b"\xff\xfe", b"1e999"),
    *(
        b"version https://git-lfs.github.com/spec/v1\n",
        b"&a [*a]",
        b"!!python/object:x ",
        b'"\\ud800"',
        b"!!timestamp x",
    ),
    *(b"? [a]\n: b\n", b"!!float ''", b"2020-99-99: x\n", b"0x" + b"f" * 5000),
]


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON document, as the keys that lead there."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@st.composite
def damaged_documents(draw: st.DrawFn, document: Any) -> Any:
    """The document with a few of its values, or all values of one field, damaged."""
    holder = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        # A field is drawn first, so that the many coordinates do not outweigh the few ids.
        fields: dict[tuple, list[tuple]] = {}
        for path in list(places(holder))[1:]:
            fields.setdefault(tuple("*" if isinstance(key, int) else key for key in path), []).append(path)
        members = draw(st.sampled_from(list(fields.values())))
        chosen = members if draw(st.booleans()) else [draw(st.sampled_from(members))]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat", "wrap", "rename"]))
        value, name = draw(st.sampled_from(HOSTILE)), draw(st.sampled_from(KEYS))
        for path in reversed(chosen):  # removing from the end leaves the earlier places where they are
            damage(holder, path, action, value, name)
    return holder[0]


def damage(holder: list, path: tuple, action: str, value: Any, name: str) -> None:
    *way, last = path
    parent: Any = holder
    for key in way:
        parent = parent[key]
    if parent is holder and action in ("remove", "repeat", "rename"):
        return
    if action == "replace":
        parent[last] = copy.deepcopy(value)
    elif action == "remove":
        del parent[last]
    elif action == "repeat" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
    elif action == "wrap":
        parent[last] = [parent[last]]
    elif action == "rename" and isinstance(parent, dict):
        parent[name] = parent.pop(last)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes cut off, overwritten, lengthened or headed by something else."""
    piece = draw(st.one_of(st.binary(max_size=6), st.sampled_from(PIECES)))
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 8)))
    match draw(st.sampled_from(["put", "cut", "drop", "head", "encode"])):
        case "put":
            return content[:start] + piece + content[end:]
        case "cut":
            return content[:start]
        case "drop":
            return content[:start] + content[end:]
        case "head":
            return piece + content
    codec = draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "latin-1"]))
    return content.decode("utf-8", "ignore").encode(codec, "ignore")


def examine(name: str, root: Path, **own: Any) -> None:
    """Check, open and read; messages can be shown, and what is well can be read."""
    ok = False
    try:
        report = check_dataset(name, root, **own)
        ok = report.ok
        report.summary().encode()
        for problem in (*report.problems, *report.notes):
            str(problem).encode()
            assert len(str(problem)) < 20_000
    except PartCLIPSegError as error:
        str(error).encode()
    for split in ("train", "test"):
        try:
            dataset = open_dataset(name, root, split, **own)
            for index in range(len(dataset)):
                dataset[index]
        except PartCLIPSegError as error:
            refused = str(error)
            refused.encode()
        else:
            continue
        # Records are chosen by what the vocabulary asks for, which a check does not know.
        assert not ok or "no record" in refused or "test photos only" in refused, f"checked as sound, but: {refused}"


def write(path: Path, content: Any) -> None:
    if not isinstance(content, bytes):
        content = json.dumps(content).encode("utf-8")
    path.write_bytes(content)


@pytest.fixture
def small_coco(coco: Callable, rectangle: Callable) -> Path:
    """A sound file that has every form of mask."""
    import numpy as np

    mask = np.zeros((4, 6), bool)
    mask[3, 4] = True
    files = coco(
        [("ear", "dog"), ("dog", "dog"), ("potter's wheel's rim", "potter's wheel")],
        [
            ("ear", [rectangle(0, 0, 1, 1), rectangle(2.5, 0, 2, 1)]),
            ("dog", {"size": [4, 6], "counts": [0, 4, 20]}),
            ("potter's wheel's rim", encode_mask(mask)),
        ],
    )
    content = json.loads((files.root / "annotations.json").read_text())
    content["images"].append({"id": 6, "file_name": files.photo("b.png").name, "path": "b.png"})
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    files.json("annotations.json", content)
    assert check_dataset("coco", files.root).ok
    return files.root / "annotations.json"


@pytest.mark.parametrize("form", ["document", "bytes"])
def test_coco_files(small_coco: Path, form: str) -> None:
    content = small_coco.read_bytes()
    damaged = damaged_documents(json.loads(content)) if form == "document" else damaged_bytes(content)

    @fuzzed
    @given(damaged, st.sampled_from([{}, {"object": "dog"}]))
    def run(content: Any, own: dict) -> None:
        write(small_coco, content)
        examine("coco", small_coco.parent, **own)

    run()


BENCHMARK_FILES = [
    ("ade20k", "ade20k-part-234", "ade20k_instance_val.json"),
    ("part_imagenet", "part-imagenet", "val.json"),
    ("pascal", "pascal-part-116", "annotations_detectron2_part/val_part_label_count.json"),
]


@pytest.mark.parametrize(("fixture", "name", "file"), BENCHMARK_FILES)
@pytest.mark.parametrize("form", ["document", "bytes"])
def test_files_of_benchmarks(fixture: str, name: str, file: str, form: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(fixture).root / file
    content = path.read_bytes()
    damaged = damaged_documents(json.loads(content)) if form == "document" else damaged_bytes(content)

    @fuzzed
    @given(damaged)
    def run(content: Any) -> None:
        write(path, content)
        examine(name, request.getfixturevalue(fixture).root)

    run()


PART_DATA_FILES = [
    ("part_imagenet_ood", "part-imagenet-ood", "test.json"),
    ("part_imagenet_pp", "part-imagenet-pp", "json/n01955084.json"),
    ("instructpart", "instructpart", "test/data_test.json"),
    ("partonomy_core", "partonomy-core", "questions.json"),
]


@pytest.mark.parametrize(("fixture", "name", "file"), PART_DATA_FILES)
def test_files_of_part_data(fixture: str, name: str, file: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(fixture).root
    content = (root / file).read_bytes()

    @settings(fuzzed, max_examples=max(25, EXAMPLES // 4))
    @given(st.one_of(damaged_documents(json.loads(content)), damaged_bytes(content)))
    def run(content: Any) -> None:
        write(root / file, content)
        examine(name, root)

    run()


NAMES = {"0": "background", "1": "dog's ear", "2": "cat's tail"}
LISTS = [
    ("classes.json", list(NAMES.values())),
    ("classes.json", NAMES),
    ("classes.json", {"dog": ["ear", "head"], "cat": ["tail"]}),
    ("classes.yaml", NAMES),
    ("classes.txt", "background\ndog's ear\ncat's tail\n"),
    ("mapping.json", {"a": "dog's ear", "b": None, "c": "cat's tail", "cat": ["d"]}),
    ("mapping.yaml", {"a": "dog's ear", "b": None, "c": "cat's tail", "cat": ["d"]}),
]


@pytest.mark.parametrize(("name", "content"), LISTS)
@pytest.mark.parametrize("form", ["document", "bytes"])
def test_class_lists_and_mappings(files, name: str, content: Any, form: str) -> None:
    files.photo("images/a.jpg", 2, 3)
    files.labels("labels/a.png", [[0, 1, 1], [2, 255, 0]])
    own = {"mapping": files.root / name} if name.startswith("mapping") else {}
    if own:
        files.text("classes.txt", "a\nb\nc\n")
    sound = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    write(files.root / name, sound)
    examine("index-png", files.root, **own)
    damaged = damaged_bytes(sound) if form == "bytes" else damaged_documents(content)

    @fuzzed
    @given(damaged)
    def run(content: Any) -> None:
        write(files.root / name, content)
        examine("index-png", files.root, **own)

    run()


@pytest.mark.parametrize("file", ["images/a.png", "labels/a.png"])
def test_pictures(files, file: str) -> None:
    files.photo("images/a.png", 2, 3)
    files.labels("labels/a.png", [[0, 1, 1], [2, 255, 0]])
    files.text("classes.txt", "background\ndog's ear\ncat's tail\n")

    @fuzzed
    @given(damaged_bytes((files.root / file).read_bytes()))
    def run(content: bytes) -> None:
        write(files.root / file, content)
        examine("index-png", files.root)

    run()
