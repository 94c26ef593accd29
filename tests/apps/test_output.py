"""Commands that write to a folder refuse a file in its place, in one sentence and before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.errors import UsageError
from partclipseg.files import require_folder

COMMANDS = {
    "predict": ["predict", "{here}/photos"],
    "label": ["label", "{here}/photos"],
    "demo": ["demo"],
    "evaluate": ["evaluate", "partshapes", "--dataset", "partshapes", "--limit", "1"],
    "train": ["train", "partshapes"],
    "train a tower": ["train", "partshapes-backbone"],
    "train own data": ["train", "own-data", "--data", "{here}/photos"],
    "export": ["export", "partshapes"],
    "benchmark": ["benchmark", "ov-parts", "partshapes"],
    "convert": ["convert", "{here}/file", "--vocabulary", "dog: ear"],
    "prepare": ["prepare", "pascal-part-116", "--source", "{here}/photos"],
}


@pytest.mark.parametrize("output", ["file", "file/below/it"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_in_place_of_a_folder(
    command: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/a.png")
    (tmp_path / "file").write_text("a person's")
    arguments = [word.format(here=tmp_path) for word in COMMANDS[command]]
    assert main([*arguments, "--output", str(tmp_path / output)]) == 2
    sentence = f"{tmp_path}/file is a file, and --output names a folder: give another name"
    assert capsys.readouterr().err.strip() == f"partclipseg: {sentence}"
    assert (tmp_path / "file").read_text() == "a person's"


def test_folders_that_are_there_or_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "new/and/deep", Path("new"), Path("link/new"), Path()):
        require_folder(path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^file is a file, and --results names a folder"):
        require_folder(Path("file"), "--results")


def test_the_package_is_the_command() -> None:
    def said(*call: str) -> str:
        return subprocess.run([sys.executable, "-m", *call], capture_output=True, text=True, check=True).stdout

    assert said("partclipseg", "--version") == said("partclipseg.apps.cli", "--version") != ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", "x"], ("--batch-size", "'x'", "int")),
        (["--batch-size", "1.5"], ("--batch-size", "'1.5'", "int")),
        (["--min-score", "x"], ("--min-score", "'x'", "float")),
        (["--min-score", "2"], ("--min-score must be from 0 to 1, not 2",)),
        (["--min-score", "nan"], ("--min-score must be from 0 to 1, not nan",)),
        (["--batch-size", "0"], ("batch size", "at least 1", "0")),
        (["--max-pixels", "x"], ("--max-pixels", "'x'", "int")),
    ],
)
def test_a_wrong_number_is_told_with_option_and_value(
    arguments: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert not [word for word in words if word not in said], said
