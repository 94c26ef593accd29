"""Which photos are found, and how their results are called."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.apps.label.helpers import (
    arguments,
    make_photos,
    records,
)

from partclipseg.apps.cli import main
from partclipseg.apps.label.photos import find_all, find_stems
from partclipseg.errors import PartCLIPSegError


def test_an_output_inside_the_folder_is_not_labelled(tmp_path):
    make_photos(tmp_path, 2)
    (tmp_path / "out/labels").mkdir(parents=True)
    shutil.copy(tmp_path / "scenes/0/000.png", tmp_path / "out/labels/000.png")
    (tmp_path / "out/yolo").mkdir()
    (tmp_path / "out/yolo/images").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "out/labels")
    (tmp_path / "scenes/circle").symlink_to(tmp_path)
    assert [p.path for p in find_all(tmp_path, tmp_path / "out").photos] == ["scenes/0/000.png", "scenes/1/001.png"]


@given(st.sets(st.from_regex(r"([ab]/)?[ab](\.jpg|\.png){1,3}", fullmatch=True)))
@example({"a.jpg", "a.png", "a.jpg.jpg"})
def test_all_stems_differ(paths):
    stems = find_stems(sorted(paths))
    assert stems.keys() == paths
    assert len(set(stems.values())) == len(paths)
    assert all(stem in (path, path[:-4]) for path, stem in stems.items())


def test_stems_that_differ_in_capitals_keep_their_suffixes():
    assert find_stems(["A.jpg", "a.png", "b.png"]) == {"A.jpg": "A.jpg", "a.png": "a.png", "b.png": "b"}


def test_linked_folders_of_photos_are_labelled(tmp_path):
    make_photos(tmp_path / "elsewhere", 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/[link]").symlink_to(tmp_path / "elsewhere")
    assert [p.path for p in find_all(tmp_path / "photos", tmp_path / "out").photos] == ["[link]/scenes/0/000.png"]


def test_photos_inside_the_results_are_refused(tmp_path):
    make_photos(tmp_path / "out", 1)
    for output in ("out", "out/scenes"):
        with pytest.raises(PartCLIPSegError, match="lies in the folder for the results"):
            find_all(tmp_path / "out/scenes", tmp_path / output)


def test_folder_without_photos(model, tmp_path, capsys):
    assert main(arguments(tmp_path, tmp_path / "out", model)) == 2
    assert "no photos in this folder" in capsys.readouterr().err
    assert main(arguments(tmp_path / "nowhere", tmp_path / "out", model)) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_names_that_are_no_unicode(photos, model, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(photos / "scenes/0/000.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    output = tmp_path / "out"
    assert main(arguments(tmp_path, output, model)) == 0
    assert records(output)[0]["photo"] == name
    assert (output / "labels" / name).is_file()
    assert r"caf\udce9.png" in (output / "report.html").read_text()
