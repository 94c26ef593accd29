"""A key given twice is refused wherever JSON or YAML of a person is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from partclipseg.apps.serve.settings import with_stored_options
from partclipseg.data.few_shot import FewShotSplit
from partclipseg.data.prepare.ade20k_part import ADE20KPartRecipe
from partclipseg.data.prepare.recipe import Layout
from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.registry import data_set_formats
from partclipseg.instances.given import GivenObjects
from partclipseg.json_file import read_json_or_yaml
from partclipseg.models.reading import read_json_table
from partclipseg.models.released import catalogue
from partclipseg.shapes.layout import PartShapesFolder
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_text("dog: ear")


def prepare_ade20k(path: Path) -> None:
    folder = path.parent / "training"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"")
    path.rename(folder / "a.json")
    (job,) = ADE20KPartRecipe([path.parent]).jobs()
    job.run(Layout(path.parent / "out"))


def read_back(name: str) -> Callable[[Path], object]:
    read = data_set_formats()[name].read
    assert read is not None
    return lambda path: read(path, WORDS, (4, 4))


READERS = {
    "a model's config.json": read_json_table,
    "the person's catalogue": lambda path: catalogue(),
    "a raw annotation of ADE20K": prepare_ade20k,
    "options of serve": lambda path: with_stored_options(["--config", str(path)], ["config", "port"]),
    "a list of few-shot photos": FewShotSplit.read,
    "words": Vocabulary.from_file,
    "a correction in labelme": read_back("labelme"),
    "a correction in Label Studio": read_back("label-studio"),
    "objects that are given": GivenObjects.read,
    "a folder of PartShapes": lambda path: PartShapesFolder(path.parent, "test"),
    "JSON or YAML": read_json_or_yaml,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('{"port": 1, "port": 2}', "port"),
        ('{"models": {"x": 1, "x": 2}}', "x"),
        ('{"a": [{"b": {"c": 1, "\\u0063": 1}}]}', "c"),
    ],
)
def test_a_key_given_twice_is_named(tmp_path, monkeypatch, reader, content, key):
    monkeypatch.setenv("PARTCLIPSEG_HOME", str(tmp_path))
    path = tmp_path / ("world.json" if "PartShapes" in reader else "models.json")
    path.write_text(content)
    with pytest.raises(PartCLIPSegError, match=rf"has the key '{key}' twice"):
        READERS[reader](path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a: 1\na: 2", "'a'"),
        ("1: a\n0x1: b", "1"),
        ("b:\n  - {c: 1, 'c': 2}", "'c'"),
        ("yes: 1\ntrue: 2", "True"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  b: 1\n  b: 2", "'b'"),
    ],
)
def test_a_key_given_twice_in_yaml_is_named(tmp_path, text, key):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(PartCLIPSegError, match=f"has the key {key} twice"):
        read_json_or_yaml(tmp_path / "a.yaml")


def test_a_merge_in_yaml_may_be_overridden(tmp_path):
    (tmp_path / "a.yaml").write_text("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\n")
    assert read_json_or_yaml(tmp_path / "a.yaml")["y"] == {"a": 3, "b": 2}


def test_what_is_merged_elsewhere_is_not_given_twice(tmp_path):
    """The merge of `y` in `z` is resolved before `y` itself, which lies deeper."""
    (tmp_path / "a.yaml").write_text("x: &x {a: 1, b: 2}\nin:\n  y: &y\n    <<: *x\n    a: 3\nz:\n  <<: *y\n")
    assert read_json_or_yaml(tmp_path / "a.yaml")["in"]["y"] == {"a": 3, "b": 2}
