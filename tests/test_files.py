"""What stands at a path: answers for any text, also for text that no path can be."""

from pathlib import Path

import pytest

from partclipseg.files import is_directory, is_file


@pytest.mark.parametrize(
    "text",
    ["", "x" * 300, "x" * 100_000, "a\0b", "dog: ear\ncat: tail", "a/" * 3000, "\udc80", "~", "no such file"],
)
def test_text_that_is_no_path_is_neither_file_nor_directory(text: str):
    assert not is_file(text)
    assert not is_directory(text)


def test_files_and_directories_are_told_apart(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("a")
    assert (is_file(file), is_directory(str(file))) == (True, False)
    assert (is_file(str(tmp_path)), is_directory(tmp_path)) == (False, True)
