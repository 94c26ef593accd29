"""What README and docs say is what happens: their Python and console blocks are run, in the order of the page.

Output that a page shows below a command or after ``>>>`` has to appear, ``…`` and ``...`` standing for anything; a
command shown to answer ``partclipseg: …`` has to fail. A Python block that begins with ``# NAME.py`` is written to that
file, for ``python NAME.py`` and for imports. A block under the comment ``<!-- not run: … -->`` needs what a
test has not; the comment says what.
"""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from tests.conftest import shallow_config

import partclipseg
from partclipseg import apps
from partclipseg.apps.cli import main
from partclipseg.data.datasets.registry import DATASETS, dataset_spec
from partclipseg.evaluation.report import published
from partclipseg.formats.registry import FORMATS, data_set_formats
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import FAMILIES
from partclipseg.models.released import catalogue
from partclipseg.training.recipe import RECIPES
from partclipseg.vocabulary import Catalog, Vocabulary

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted([REPOSITORY / "README.md", *DOCS.glob("*.md"), *(REPOSITORY / "benchmarks" / "results").glob("*.md")])
MADE_FROM_DOCSTRINGS = "## Contents"
"""Heading of the API page from which on it is made of docstrings, whose examples are one call each, not a program."""

_BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    language: str
    text: str
    reason: str | None
    """Why it is not run."""


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8").partition(MADE_FROM_DOCSTRINGS)[0])
    return [Block(match["language"], match["text"], match["reason"]) for match in found]


@pytest.fixture(scope="module")
def shallow_directory(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shallow") / "model"
    shutil.copytree(model_directory, directory)
    PartCLIPSegModel(shallow_config()).save_pretrained(directory)
    return directory


@pytest.fixture
def folder(tmp_path: Path, shallow_directory: Path, few_bars: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder that the pages speak of: photos, models and data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shallow_directory, tmp_path / "models/pascal")
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
    photo("data/dogs/a.jpg")
    dog = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[0, 0, 24, 0, 24, 24, 0, 24]], "obj_ann_id": 1}
    ear = {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]], "obj_ann_id": 1}
    names = [{"id": 1, "name": "dog's ear"}, {"id": 2, "name": "dog's tail"}, {"id": 3, "name": "dog"}]
    categories = [{**name, "supercategory": "dog"} for name in names]
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [dog, ear], "categories": categories}
    (tmp_path / "data/dogs/test.json").write_text(json.dumps(content))
    (tmp_path / "cars.yaml").write_text("wheel: car's wheel\n")
    shutil.copytree(tmp_path / "models/pascal", tmp_path / "runs/cars/best")
    for name in "ab":
        photo(f"data/pets/images/{name}.jpg")
        labels = np.full((40, 48), 255, np.uint8)
        labels[5:20, 5:30], labels[20:30, 5:30] = 0, 1
        (tmp_path / "data/pets/labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(tmp_path / f"data/pets/labels/{name}.png")
    (tmp_path / "data/pets/classes.txt").write_text("dog's ear\ndog's tail\n")

    catalog = Catalog.load("pascal-part-116")
    dog = [index for index, pair in enumerate(catalog.object_parts) if pair.object == "dog"]
    benchmark = tmp_path / "data/PascalPart116"
    for split in ("train", "val"):
        photo(f"data/PascalPart116/images/{split}/2008_000001.jpg")
        parts, objects = np.full((2, 40, 48), 255, np.uint8)
        parts[5:20, 5:30], parts[20:30, 5:30] = dog[:2]
        objects[5:30, 5:30] = catalog.objects.index("dog")
        for kind, labels in (("part", parts), ("obj", objects)):
            labels_folder = benchmark / f"annotations_detectron2_{kind}" / split
            labels_folder.mkdir(parents=True)
            Image.fromarray(labels).save(labels_folder / "2008_000001.png")
    return tmp_path


RUN = [page for page in PAGES if page.name != "export.md"]
"""tests/apps/export/test_export.py has the graphs of the other page."""


@contextmanager
def imported_anew(name: str = "train") -> Iterator[None]:
    """Import a command's module anew inside, which lists the recipes at that moment; the former one comes back."""
    module = f"{apps.__name__}.{name}"
    former = sys.modules.pop(module, None)
    try:
        yield
    finally:
        sys.modules.pop(module, None)
        if former is not None:
            sys.modules[module] = former
            setattr(apps, name, former)


@pytest.fixture
def additions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget after a page what it added to the package; its modules are imported from the working folder."""
    monkeypatch.syspath_prepend(folder)
    modules = set(sys.modules)
    with patch.dict(FORMATS), patch.dict(DATASETS), patch.dict(FAMILIES), patch.dict(RECIPES), imported_anew():
        yield
    for name in set(sys.modules) - modules:
        if (folder / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.usefixtures("additions")
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_blocks_run(page: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    run_blocks(page, capsys)


def run_blocks(page: Path, capsys: pytest.CaptureFixture) -> None:
    """Run the blocks of a page in the working folder."""
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.language == "python" and (file := re.match(r"# (\w+\.py)\n", block.text)):
            Path(file[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, page.name, "exec"), names)
        elif block.language == "pycon":
            run_session(block.text, names, page.name)
        elif block.language == "console":
            for command, expected in commands(block):
                if "--limit" in command:  # as many as show that the option works
                    command[command.index("--limit") + 1] = "2"
                capsys.readouterr()
                code = run_command(command)
                printed = "".join(capsys.readouterr())
                fails = any(line.startswith("partclipseg: ") for line in expected)
                assert bool(code) == fails, f"{shlex.join(command)}: exit code {code}, {printed}"
                assert_shows(printed, expected)


def run_command(command: list[str]) -> int:
    """Run ``partclipseg …`` or ``python NAME.py …`` in this process; return the exit code."""
    if command[0] == "partclipseg":
        return main(command[1:])
    assert command[0] == "python"
    with patch.object(sys, "argv", command[1:]), pytest.raises(SystemExit) as stopped:
        runpy.run_path(command[1], run_name="__main__")
    return int(stopped.value.code or 0)


def run_session(text: str, names: dict[str, object], page: str) -> None:
    """Run an interactive session in the page's names; raises where it answers otherwise than shown."""
    session = doctest.DocTestParser().get_doctest(text, names, page, page, 0)
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    try:
        runner.run(session, clear_globs=False)
    except doctest.DocTestFailure as failure:
        raise AssertionError(f"{failure.example.source}shown: {failure.example.want}got: {failure.got}") from None
    names.update(session.globs)


def assert_shows(printed: str, expected: list[str]) -> None:
    """The expected lines appear in this order, blanks apart."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in expected:
        pattern = ".*".join(re.escape(piece) for piece in " ".join(line.split()).split("…"))
        assert any(re.fullmatch(pattern, candidate) for candidate in lines), f"{line!r} is not in:\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_that_is_not_run_could_be(page: Path, capsys: pytest.CaptureFixture) -> None:
    """Commands are known, and so are their options."""
    for block in blocks(page):
        if block.reason is None or block.language != "console":
            continue
        for command, _ in commands(block):
            if command[0] == "partclipseg":
                chosen = 3 if command[1] in ("train", "benchmark") else 2  # each has options of its own
                assert main([*command[1:chosen], "--help"]) == 0
                text = capsys.readouterr().out
                assert not [word for word in command if word.startswith("--") and word not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
    links += re.findall(r"`((?:tests|src|docs|benchmarks)/[\w/.]+)`", text)
    for link in links:
        path, _, anchor = link.partition("#")
        target = next((t for t in (page.parent / path, REPOSITORY / path) if t.exists()), None) if path else page
        assert target is not None, link
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_page_and_picture() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index]
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [picture.name for picture in (DOCS / "pictures").iterdir() if f"pictures/{picture.name}" not in text]


def first_column(page: Path, heading: str) -> set[str]:
    """Words between backticks in the first column of the tables below a heading, up to the next heading."""
    section = f"\n{page.read_text(encoding='utf-8')}".partition(f"\n{heading}\n")[2]
    rows = re.split(r"^#", section, maxsplit=1, flags=re.M)[0].splitlines()
    return {name for row in rows if row.startswith("|") for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def extras() -> set[str]:
    """The optional dependencies that a person may ask for."""
    with open(REPOSITORY / "pyproject.toml", "rb") as file:
        found = tomllib.load(file)["project"]["optional-dependencies"]
    return {name for name, packages in found.items() if packages}


def benchmarks() -> set[str]:
    """The data sets that lie in files and are not a person's own."""
    return {name for name in DATASETS if dataset_spec(name).open_split} - {"coco", "index-png"}


@pytest.mark.parametrize(
    ("page", "heading", "expected"),
    [
        ("docs/prediction.md", "## What is written", lambda: set(FORMATS)),
        ("docs/labelling.md", "# Labelling folders of photos", lambda: set(data_set_formats())),
        ("docs/data.md", "## Benchmarks", benchmarks),
        ("docs/weights.md", "## The names", lambda: set(catalogue())),
        ("README.md", "## Documentation", extras),
    ],
)
def test_tables_are_complete(page: str, heading: str, expected: Callable[[], set[str]]) -> None:
    assert first_column(REPOSITORY / page, heading) == expected()


def test_the_api_page_is_what_the_docstrings_say() -> None:
    pytest.importorskip("griffe", reason="the API page is made with griffe")
    page = docs_script("api").page()
    assert (DOCS / "api.md").read_text(encoding="utf-8") == page, "run python docs/api.py"
    assert not [name for name in partclipseg.__all__ if f"★ `from partclipseg import {name}`" not in page]


def test_published_figures_are_those_of_the_library() -> None:
    benchmarks = ("pascal-part-116", "ade20k-part-234", "part-imagenet")
    columns = [published(name, protocol) for name in benchmarks for protocol in ("pred_all", "oracle_obj")]
    expected = {
        row.method: [
            next((f"{r.harmonic:.2f}{'' if r.confirmed else ' †'}" for r in rows if r.method == row.method), "–")
            for rows in columns
        ]
        for rows in columns
        for row in rows
    }
    text = (DOCS / "comparison.md").read_text(encoding="utf-8").partition("## Published figures")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    milder = {row.method for rows in columns for row in rows if row.rule == "partcatseg"}
    assert {row[0].removesuffix(" ‡") for row in rows[2:] if row[0].endswith(" ‡")} == milder
    assert {row[0].removesuffix(", fine-tuned").removesuffix(" ‡"): row[1:] for row in rows[2:]} == expected


def test_pictures_are_made(tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    pictures = docs_script("pictures")
    options = ["demo", "protocols", "--model", str(model_directory), "--scenes", "0", "--output", str(tmp_path)]
    pictures.main(options)
    sizes = {path.name: Image.open(path).size for path in tmp_path.iterdir()}
    assert set(sizes) == {"demo.jpg", "protocols-light.png", "protocols-dark.png"}
    assert sizes["protocols-light.png"] == Image.open(DOCS / "pictures/protocols-light.png").size

    drawn = docs_script("pictures_protocols")
    record = drawn.make_record(size=120)
    oracle_obj, pred_all, strict = (drawn.score(record, column.protocol) for column in drawn.COLUMNS)
    assert oracle_obj > pred_all > strict  # what the drawing is there to show


def docs_script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # where dataclasses look for the module that they are in
    specification.loader.exec_module(module)
    return module


def test_shown_output_is_compared() -> None:
    assert_shows("one  two\nthree four\n", ["one two", "three …"])
    with pytest.raises(AssertionError, match="is not in"):
        assert_shows("one\ntwo\n", ["two", "one"])
    names: dict[str, object] = {"x": 1}
    run_session(">>> y = x + 1\n>>> y\n2\n", names, "page")
    assert names["y"] == 2
    with pytest.raises(AssertionError, match="shown: 3"):
        run_session(">>> x\n3\n", names, "page")


def test_blocks_of_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first, second, third = "```python\nx = 1\n```\n", "```console\n$ a\n```\n", "```text\n1\n```\n"
    page.write_text(f"Text.\n\n{first}\n<!-- not run: why -->\n{second}\n{third}")
    assert blocks(page) == [("python", "x = 1\n", None), ("console", "$ a\n", "why"), ("text", "1\n", None)]


def commands(block: Block) -> list[tuple[list[str], list[str]]]:
    """The words of each command of a console block, and the lines of output shown below it."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found += [(shlex.split(part), []) for part in line.removeprefix("$ ").split(" && ")]
        elif line.strip():
            found[-1][1].append(line)
    return found
