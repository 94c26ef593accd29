"""The command as it is typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partclipseg.apps.cli import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two photos of a dog with index PNGs."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for key in "ab":
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / f"{key}.jpg")
        Image.fromarray(np.ones((4, 6), dtype=np.uint8)).save(tmp_path / "labels" / f"{key}.png")
    (tmp_path / "classes.txt").write_text("background\near\n")
    return tmp_path


def test_sound_data(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", "index-png", "--data", str(root), "--object", "dog"]) == 0
    printed = capsys.readouterr().out
    assert "All is well" in printed
    assert "1 of 1" in printed


def test_problems_and_notes_are_listed_by_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "images" / "a.jpg").unlink()
    (root / "labels" / "._a.png").write_text("Mac OS X")
    assert main(["check-data", "index-png", "--data", str(root), "--object", "dog"]) == 1
    printed = capsys.readouterr().out
    assert f"missing photo: {root / 'images' / 'a.jpg'}: the photo is missing" in printed
    assert f"stray file: {root / 'labels' / '._a.png'}" in printed
    assert "Problems: 1" in printed


def test_long_lists_are_cut_unless_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(12):
        Image.fromarray(np.ones((4, 6), dtype=np.uint8)).save(root / "labels" / f"{index}.png")
    arguments = ["check-data", "index-png", "--data", str(root), "--object", "dog"]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert (printed.count("the photo is missing"), "and 2 more" in printed) == (10, True)
    assert main([*arguments, "--all-problems"]) == 1
    assert capsys.readouterr().out.count("the photo is missing") == 12


def test_names_with_brackets_are_printed_as_they_are(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "images" / "[red]x.jpg").write_text("")
    Image.fromarray(np.ones((4, 6), dtype=np.uint8)).save(root / "labels" / "[red]x.png")
    assert main(["check-data", "index-png", "--data", str(root), "--object", "dog"]) == 1
    assert "[red]x.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index-png"], "whose parts 'ear' are"),
        (["pascal-part-116"], "is not the root of pascal-part-116"),
        (["index-png", "--annotations", "x.json"], "--annotations does not apply to index-png"),
    ],
)
def test_wrong_usage(root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["check-data", *arguments, "--data", str(root)]) == 2
    assert message in capsys.readouterr().err
