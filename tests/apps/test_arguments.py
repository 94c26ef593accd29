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
        ("predict a.jpg --format masks --format csv", "--format is given twice: put all its words after one"),
        ("predict a.jpg --format masks --formats=csv", "--formats is given twice"),
        ("predict a.jpg --objects dog --zoom --objects=cat", "--objects is given twice"),
        ("predict a.jpg --model clipseg --prompt {part} --prompt {object}", "--prompt is given twice"),
        ("label . --format csv --output x --format png", "--format is given twice"),
        ("serve --model a --port 0 --model b", "--model is given twice"),
        ("predict a.jpg --format", "no format is asked for: choose from overlay, png"),
        ("predict a.jpg --format masks,csvv", "unknown format 'csvv', did you mean csv? Else choose from overlay"),
        ("predict a.jpg --format MASKS", "unknown format 'MASKS', did you mean masks? Else choose from overlay"),
        ("label . --output x --format overlay", "unknown format 'overlay': choose from png, masks"),
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("predict a.jpg --threshold abc", "Error parsing --threshold: could not convert string to float: 'abc'"),
        ("predict a.jpg --threshold None", "Error parsing --threshold: could not convert string to float: 'None'"),
        ("predict a.jpg --dtype None", "Expected one of ('float32', 'bfloat16', 'float16', 'int8')"),
        ("predict a.jpg --model None", "there is no directory 'None'"),
        ("models --add clipseg", "Missing value for argument '--add'. Expected 2 values"),
        ("models --remove None", "no model is known by the name 'None'"),
    ],
)
def test_an_option_takes_its_own_type_alone(
    arguments: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(arguments.split()) in (1, 2)
    said = capsys.readouterr().err
    assert sentence in " ".join(said.split())
    assert "NoneType" not in said


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    for former, current in ((["help"], ["--help"]), (["help", "models"], ["models", "--help"])):
        assert main(current) == 0
        expected = capsys.readouterr().out
        assert main(former) == 0
        assert capsys.readouterr().out == expected
