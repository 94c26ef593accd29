"""The command `partclipseg prepare`."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from partclipseg.apps.cli import main

pytest.importorskip("scipy")

SHARED = Path(__file__).resolve().parents[3] / "shared"
RAW = SHARED / "data/pascal_part_raw"
real = pytest.mark.skipif(not RAW.is_dir(), reason="the real photos are not here")


@real
def test_archives_and_folders_go_in_and_a_table_comes_out(tmp_path, capsys):
    with tarfile.open(tmp_path / "annotations.tar.gz", "w:gz") as archive:
        archive.add(RAW / "annotations", "Annotations_Part")
    (tmp_path / "val.txt").write_text("2008_000008\n")
    command = ["prepare", "pascal-part-116", "--output", str(tmp_path / "out"), "--workers", "2"]
    command += ["--source", str(tmp_path / "annotations.tar.gz"), str(RAW / "images")]
    command += ["--val-list", str(tmp_path / "val.txt"), "--photos", "copy"]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "object-parts" in table
    assert "116" in table
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 22
    assert main(command) == 0
    assert "22 photos were there from an earlier run" in capsys.readouterr().out


@real
def test_a_broken_photo_is_said_and_the_exit_code_is_1(tmp_path, capsys):
    for folder in ("annotations", "images"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for key in ("2008_000008", "2008_000009"):
        for name in (f"annotations/{key}.mat", f"images/{key}.jpg"):
            (tmp_path / "raw" / name).write_bytes((RAW / name).read_bytes())
    (tmp_path / "raw/images/2008_000009.jpg").write_bytes(b"broken")
    (tmp_path / "val.txt").touch()
    source, output, val_list = (str(tmp_path / name) for name in ("raw", "out", "val.txt"))
    command = ["prepare", "pascal-part-116", "--source", source, "--output", output, "--val-list", val_list]
    assert main([*command, "--workers", "1"]) == 1
    shown = capsys.readouterr().out
    assert "photos that failed: 1" in shown
    assert "2008_000009.jpg" in shown.replace("\n", "")


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        ("part-imagenet", ["--val-list", "x"], "leave out --val-list"),
        ("ade20k-part-234", ["--workers", "0"], "--workers must be at least 1, not 0"),
        ("pascal-part-116", ["--source", "/nowhere/at/all"], "does not exist"),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path, capsys, dataset, options, words):
    source = [] if "--source" in options else ["--source", str(tmp_path)]
    assert main(["prepare", dataset, *source, "--output", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_source_without_photos_is_exit_code_1(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    assert (
        main(["prepare", "ade20k-part-234", "--source", str(tmp_path / "raw"), "--output", str(tmp_path / "out")]) == 1
    )
    assert "check --source" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
