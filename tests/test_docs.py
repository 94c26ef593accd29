"""What README and docs say is what happens: their Python and console blocks are run, in the order of the page.

A block under the comment ``<!-- not run: … -->`` needs what a test has not; the comment says what.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.vocabulary import Vocabulary

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])

_BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    language: str
    text: str
    reason: str | None
    """Why it is not run."""


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["text"], match["reason"]) for match in found]


@pytest.fixture
def folder(tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder that the pages speak of: photos, models and data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_directory, tmp_path / "models/pascal")
    Vocabulary.load("dog: ear, tail; bus: wheel").save(tmp_path / "models/pascal/vocabulary.json")
    generator = np.random.default_rng(0)

    def photo(path: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / path)

    for path in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        photo(path)
    for split in ("train", "test"):
        photo(f"data/cars/{split}/a.jpg")
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[5, 5, 30, 5, 30, 30, 5, 30]]}
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 48, "height": 40}],
            "annotations": [annotation],
            "categories": [{"id": 1, "name": "wheel"}],
        }
        (tmp_path / f"data/cars/{split}/annotations.json").write_text(json.dumps(content))
    for name in "ab":
        photo(f"data/pets/images/{name}.jpg")
        labels = np.full((40, 48), 255, np.uint8)
        labels[5:20, 5:30], labels[20:30, 5:30] = 0, 1
        (tmp_path / "data/pets/labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(tmp_path / f"data/pets/labels/{name}.png")
    (tmp_path / "data/pets/classes.txt").write_text("dog's ear\ndog's tail\n")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), names)
        elif block.language == "console":
            for command in commands(block):
                assert command[0] == "partclipseg"
                code = main(command[1:])
                assert code == 0, f"{shlex.join(command)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_not_run_could_be(page: Path, capsys: pytest.CaptureFixture) -> None:
    """Commands are known, and so are their options."""
    for block in blocks(page):
        if block.reason is None or block.language != "console":
            continue
        for command in commands(block):
            if command[0] == "partclipseg":
                assert main([command[1], "--help"]) == 0
                text = capsys.readouterr().out
                assert not [word for word in command if word.startswith("--") and word not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    links += re.findall(r"`((?:tests|src)/[\w/.]+)`", page.read_text(encoding="utf-8"))
    for link in links:
        assert (page.parent / link).exists() or (REPOSITORY / link).exists(), link


def test_blocks_of_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first, second, third = "```python\nx = 1\n```\n", "```console\n$ a\n```\n", "```text\n1\n```\n"
    page.write_text(f"Text.\n\n{first}\n<!-- not run: why -->\n{second}\n{third}")
    assert blocks(page) == [("python", "x = 1\n", None), ("console", "$ a\n", "why"), ("text", "1\n", None)]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a console block; output lines have no ``$``."""
    lines = [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
    return [shlex.split(part) for line in lines for part in line.split(" && ")]
