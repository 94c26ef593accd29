"""Mistakes of a command line that a newcomer makes, each with the sentence that says the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from partclipseg.apps.cli import main

QUOTES = "the words after --vocabulary come in several pieces: put them between quotation marks, as in --vocabulary "


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("predict a.jpg --vocabulary dog: head, ear", QUOTES),
        ("predict --vocabulary dog: head a.jpg", QUOTES),
        ("predict --vocabulary=dog: head a.jpg", QUOTES),
        ("predict --vocabulary handle, wheel a.jpg", QUOTES),
        ("predict a.jpg --vocabulary 'dog: head'", QUOTES),  # Windows' command line takes the quotes for letters
        ("label . --vocabulary dog: head, ear --output x", QUOTES),
        ("evaluate partshapes --dataset coco --vocabulary dog: head", QUOTES),
        ("train own-data --output x --vocabulary dog: head", QUOTES),
        ("convert a.pth --output x --vocabulary dog: head", QUOTES),
        ("predict a.jpg --vocabulary dog: --objects dog", "'dog' has no part: write it as dog: head, torso, leg, tail"),
        ("predict a.jpg --vocabulary handle, --zoom", "'handle,' has a comma too many: remove it"),
        ("predict a.jpg dog: head", "'dog:' is no photo: put words to look for after --vocabulary"),
        ("predict a.jpg --objects", "nothing stands after --objects: name what it is to take, or leave it out"),
        ("predict a.jpg --objects --zoom", "nothing stands after --objects"),
        ("label . --objects --output x", "nothing stands after --objects"),
        ("predict a.jpg --model clipseg --prompt --threshold 0.4", "nothing stands after --prompt"),
        ("serve --model --port 0", "nothing stands after --model"),
        ("train --data data owndata --output x", "there is no recipe 'owndata', did you mean own-data?"),
        ("train partshapes-clipsegg --output x", "there is no recipe 'partshapes-clipsegg', did you mean partshapes"),
        ("train --output x", "no recipe is named, such as own-data: partclipseg train --help lists them"),
        ("train", "no recipe is named, such as own-data: partclipseg train --help lists them"),
        ("label a.jpg --output x", "a.jpg is a file: name the folder of the photos, or give the file to partclipseg "),
    ],
)
def test_a_mistake_gets_one_sentence(
    arguments: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").touch()
    assert main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"partclipseg: {sentence}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict", "dog: head, ear"], "'dog: head, ear' is no photo: put words to look for after --vocabulary"),
        (["predict", "a.jpg", "--objects", ""], "nothing stands after --objects"),
        (["predict", "a.jpg", "--objects", " ,"], "nothing stands after --objects"),
        (["predict", "--vocabulary", "dog: head,", "a.jpg"], "'dog: head,' has a comma too many"),
    ],
)
def test_a_mistake_between_quotation_marks(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").touch()
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"partclipseg: {sentence}")


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    for former, current in ((["help"], ["--help"]), (["help", "models"], ["models", "--help"])):
        assert main(current) == 0
        expected = capsys.readouterr().out
        assert main(former) == 0
        assert capsys.readouterr().out == expected
