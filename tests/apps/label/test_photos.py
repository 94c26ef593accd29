"""Which photos are found, and how their results are called."""

from __future__ import annotations

import io
import os
import shutil
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from tests.apps.label.helpers import (
    FORMATS,
    arguments,
    make_photos,
    records,
)

from partclipseg.apps.cli import main
from partclipseg.apps.label.command import Terminated
from partclipseg.apps.label.labeller import Labeller
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


def test_pictures_of_unread_kinds_are_named_at_the_end(model, tmp_path, capsys):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 1)
    for name in ("a.CR2", "scenes/b.psd", ".hidden.cr2", "notes.txt"):
        (photos / name).write_bytes(b"x")
    (photos / "empty").mkdir()
    (photos / "empty/c.dng").write_bytes(b"x")
    assert main(arguments(photos, output, model)) == 0
    sentence = (
        "3 pictures of a kind that is not read here (1 .cr2, 1 .dng, 1 .psd): "
        "a.CR2, c.dng, b.psd: convert .cr2, .dng, .psd to JPEG or PNG"
    )
    assert sentence in capsys.readouterr().err
    assert f"<h2>Left out</h2><p>{sentence}</p>" in (output / "report.html").read_text()
    shutil.rmtree(photos / "scenes")
    assert main(arguments(photos, output, model)) == 2
    assert "no photos in this folder or those inside it; 2 pictures of a kind" in capsys.readouterr().err


def test_links_and_pipes_among_the_photos_are_named(model, tmp_path, capsys):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 1)
    (photos / "scenes/gone.jpg").symlink_to("/nowhere/gone.jpg")
    os.mkfifo(photos / "scenes/pipe.jpg")
    (photos / "scenes/folder.jpg").mkdir()
    assert main(arguments(photos, output, model)) == 1
    said = capsys.readouterr().err
    assert "2 of 3 photos could not be labelled" in said
    assert "scenes/gone.jpg: a link that leads nowhere: restore the photo that it points to" in said
    assert "scenes/pipe.jpg: not a regular file: copy the photo into one" in said


def test_one_photo_is_told_in_the_singular(model, tmp_path, capsys):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 1)
    call = arguments(photos, output, model, "--workers", "1")
    assert main(call) == 0
    assert f"1 of 1 photo -> {output}" in capsys.readouterr().out.replace("\n", "")
    page = (output / "report.html").read_text()
    assert "<h1>Parts in 1 photo</h1>" in page
    assert "<b>1</b><span>photo labelled</span>" in page
    assert main(call) == 0
    assert "1 of 1 photo is labelled already" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_dark_photos_are_named_in_manifest_report_and_at_the_end(model, tmp_path, capfd, workers):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 3)  # with the dark one a single batch, so that one process starts
    values = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 1024
    Image.fromarray(values).save(photos / "dark.png")
    call = arguments(photos, output, model, "--workers", workers)
    assert main(call) == 0
    warning = "its values end at 1,023, below a sixteenth of the range 0 to 65,535, so it is nearly black: scale them"
    said = capfd.readouterr().err
    assert said.count(warning) == 1
    assert "1 photo is labelled in which little may be seen:" in said
    assert f"  dark.png: {warning}" in said
    found = {record["photo"]: record.get("warning") for record in records(output)}
    assert [photo for photo, kept in found.items() if kept] == ["dark.png"]
    assert found["dark.png"].startswith(warning)
    assert f"<td>dark.png</td><td>{warning}" in (output / "report.html").read_text()
    assert main(call) == 0, "the warning is not lost when there is nothing left to label"
    assert capfd.readouterr().err.count(warning) == 1


def test_words_and_names_that_a_terminal_cannot_show(model, tmp_path, monkeypatch):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 1)
    shutil.move(photos / "scenes/0/000.png", photos / "狗.png")
    (photos / "坏.png").write_bytes(b"x")
    terminals = [io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", terminals[0])
    monkeypatch.setattr(sys, "stderr", terminals[1])
    assert main(arguments(photos, output, model, "--vocabulary", "狗: 耳朵; 车: 轮")) == 1
    assert [record["status"] for record in records(output)] == ["failed", "done"]
    terminals[1].flush()
    assert r"\u574f.png: not a photo" in terminals[1].buffer.getvalue().decode("cp1252")  # pyright: ignore


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_a_run_that_is_stopped_keeps_what_is_labelled(model, tmp_path, monkeypatch, capsys, stop):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 6)
    label, batches = Labeller.__call__, []

    def stopped(self, batch):
        if batches:
            raise stop
        batches.append(batch)
        return label(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Labeller, "__call__", stopped)
        assert main(arguments(photos, output, model)) == {KeyboardInterrupt: 130, Terminated: 143}[stop]
    assert "stopped; what is labelled is kept: give the same command again" in capsys.readouterr().err
    assert len(records(output)) == 4
    assert main(arguments(photos, output, model)) == 0
    assert "4 of 6 photos are labelled already" in capsys.readouterr().out
    assert not list(output.rglob(".partclipseg-*"))


def test_names_that_are_no_unicode(photos, model, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(photos / "scenes/0/000.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    output = tmp_path / "out"
    formats = (*FORMATS, "csv", "masks")
    assert main(arguments(tmp_path, output, model, "--formats", *formats)) == 0
    assert records(output)[0]["photo"] == name
    assert (output / "areas.csv").read_text().splitlines()[1].startswith(r"caf\udce9.png,")
    assert (output / "labels" / name).is_file()
    assert r"caf\udce9.png" in (output / "report.html").read_text()


def test_results_of_predict_beside_the_photos_are_no_photos(tmp_path, model_directory, photos):
    folder = tmp_path / "mine"
    folder.mkdir()
    name = "twin.png"
    shutil.copy(photos / name, folder)
    words = ["--vocabulary", "cat: head, leg", "--model", str(model_directory), "--device", "cpu"]
    assert main(["predict", str(folder), *words, "--output", str(folder), "--format", "png", "overlay"]) == 0
    assert len([path for path in folder.iterdir() if path.suffix in {".png", ".jpg"}]) == 3
    found = find_all(folder, tmp_path / "drafts").photos
    assert [photo.path for photo in found] == [name]
    assert main(["predict", str(folder), str(photos / "twin.jpg"), *words, "--output", str(folder / "parts")]) == 0
    labelled = arguments(folder, folder / "labels", model_directory, "--formats", "png", "masks")
    assert main(labelled) == 0
    assert len([path for path in folder.rglob("*.png") if path.is_file()]) > 6
    found = find_all(folder, tmp_path / "drafts").photos
    assert [photo.path for photo in found] == [name], "results in folders below, and drafts, are no photos either"
    (overlay,) = folder.glob("*.overlay.*")
    Image.new("RGB", (8, 8)).save(overlay)  # changed by a person: theirs, and so a photo
    found = find_all(folder, tmp_path / "drafts").photos
    assert {photo.path for photo in found} == {name, overlay.name}
