"""Former names on the command line still work, and standard error says the current ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from partclipseg.apps.cli import main
from partclipseg.apps.former import with_current_options


@pytest.mark.parametrize(
    ("command", "former", "current", "remarks"),
    [
        ("evaluate", "m --root data/pets", "m --data data/pets", ["--root is now --data; "]),
        ("evaluate", "m --root=data/pets", "m --data=data/pets", ["--root is now --data; "]),
        ("check-data", "coco --root a --root b", "coco --data a --data b", ["--root is now --data; "] * 2),
        ("train", "pascal --precision bf16", "pascal --dtype bf16", ["--precision is now --dtype; "]),
        ("export", "m --output o --fp16", "m --output o --dtype float16", ["--fp16 is now --dtype float16; "]),
        ("export", "--no-fp16 m --output=o", "--dtype float32 m --output=o", ["--no-fp16 is now --dtype float32; "]),
        (
            "export",
            "m o --fp16",
            "m --output o --dtype float16",
            ["--fp16 is now --dtype float16; ", "the directory is now named by --output o; "],
        ),
        ("convert", "f.pth o --vocabulary x", "f.pth --output o --vocabulary x", ["the directory is now named by "]),
        ("convert", "--vocabulary x f.pth o", "--vocabulary x f.pth --output o", ["the directory is now named by "]),
        # Current names, and what only looks like a former one, stay as they are.
        ("convert", "f.pth --output o --vocabulary x", None, []),
        ("convert", "f.pth --vocabulary=x --output o", None, []),
        ("export", "-h", None, []),
        ("export", "m o p", None, []),
        ("export", "m --output o --prompt {part} {object}", None, []),
        ("export", "--prompt {part} {object} --no-object-gate --output o m", None, []),
        ("export", "--no-object-gate m o", "--no-object-gate m --output o", ["the directory is now named by "]),
        ("evaluate", "m --data a", None, []),
        ("evaluate", "m --rooted a", None, []),
        ("predict", "--root a", None, []),
    ],
)
def test_former_names(command: str, former: str, current: str | None, remarks: list[str]) -> None:
    arguments, said = with_current_options(command, former.split())
    assert arguments == (former if current is None else current).split()
    assert len(said) == len(remarks)
    for sentence, start in zip(said, remarks, strict=True):
        assert sentence.startswith(start)
        assert "the next release no longer takes" in sentence


def test_a_former_name_is_one_line_on_standard_error(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", "index-png", "--data", str(own_data)]) == 0
    current = capsys.readouterr()
    assert main(["check-data", "index-png", "--root", str(own_data)]) == 0
    former = capsys.readouterr()
    assert current.err == ""
    assert former.err == "partclipseg: --root is now --data; the next release no longer takes the former name\n"
    assert former.out == current.out


def test_one_process_of_several_says_it(
    own_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["check-data", "index-png", "--root", str(own_data)]) == 0
    assert capsys.readouterr().err == ""
