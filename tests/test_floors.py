"""The order of the rooms, read from the imports themselves: each room imports lower floors only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "partclipseg"

FLOORS = (
    ("errors", "signals"),
    ("checks", "counts", "files", "machine", "processes"),
    ("grammar", "journal", "json_file", "likeness", "writing"),
    ("kept_files", "maps", "vocabulary"),
    ("client", "data"),
    ("formats", "losses", "shapes"),
    ("models",),
    ("instances",),
    ("inference",),
    ("evaluation",),
    ("training",),
    ("apps", "integrations"),
    ("__main__",),
)
"""Rooms from the ground up: folders and files of the package."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("partclipseg.data.datasets.partshapes", "partclipseg.shapes.dataset"): "a rendered data set names its renderer",
    ("partclipseg.data.datasets.partshapes_coarse", "partclipseg.shapes.coarse"): "as its first world",
}
"""(module, imported module) that go up or stay on a floor, and why."""

KNOW_A_FAMILY = {
    "partclipseg": "its public names",
    "partclipseg.training.aggregation": "PartShapes' own aggregation is a CAT-Seg",
    "partclipseg.training.backbone": "PartShapes' own backbone is a CLIPSeg",
    "partclipseg.training.guidance": "PartShapes' own guidance tower sees photos as PartCATSeg's does",
    "partclipseg.training.recipe": "a recipe holds the settings of its family",
}
"""Modules outside `models` that import a family's own folder, and why; all others know `PartModel` alone."""

FAMILIES = tuple(sorted(folder.name for folder in (SOURCE / "models").iterdir() if (folder / "__init__.py").is_file()))


class Import(NamedTuple):
    source: str
    target: str
    at_start: bool
    """Whether it runs when the source is imported."""


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def room(module: str) -> str | None:
    """The room of a module; None for the package itself, which only names what the rooms have."""
    return module.split(".")[1] if "." in module else None


def targets(node: ast.AST) -> Iterator[str]:
    """The modules that a node imports, or names in a string as a table of modules does."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in MODULES else str(node.module)
    elif isinstance(node, ast.Constant) and re.fullmatch(r"partclipseg(\.\w+)+(:\w+)?", str(node.value)):
        yield str(node.value).partition(":")[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(node: ast.AST, at_start: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if is_type_checking(node) and child in node.body:  # pyright: ignore[reportAttributeAccessIssue]
            inside = False
        else:
            inside = at_start and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from walk(child, inside)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """All imports of the package by itself."""
    found = set()
    for source, path in MODULES.items():
        for node, at_start in walk(ast.parse(path.read_text()), True):
            runs = at_start and not isinstance(node, ast.Constant)
            found.update(Import(source, target, runs) for target in targets(node) if target in MODULES)
    return sorted(found)


def test_imports_are_found(imports: list[Import]):
    """Of each kind, so that the tests below compare something."""
    assert Import("partclipseg.models.interface", "partclipseg.vocabulary", True) in imports
    assert Import("partclipseg.models.interface", "partclipseg.models.onnx", False) in imports  # for types
    assert Import("partclipseg.apps.label.command", "partclipseg.apps.label.job", False) in imports  # in a function
    assert Import("partclipseg.models.registry", "partclipseg.models.clipseg.model", False) in imports  # by its name
    assert len(imports) > 300
    assert len(FAMILIES) >= 2


def test_every_room_has_a_floor():
    rooms = {room(module) for module in MODULES} - {None}
    assert rooms <= FLOOR.keys()


def test_rooms_import_lower_floors_only(imports: list[Import]):
    upward = {
        (source, target)
        for source, target, _ in imports
        if (here := room(source)) and (there := room(target)) and here != there and FLOOR[there] >= FLOOR[here]
    }
    assert upward == EXCEPTIONS.keys(), "an import goes up, or an exception is needed no more"


def test_no_module_imports_itself_in_the_end(imports: list[Import]):
    graph = TopologicalSorter()
    for source, target, at_start in imports:
        if at_start and target != source:
            graph.add(source, target)
    try:
        graph.prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")


def of_family(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "models" and parts[2] in FAMILIES else None


def test_families_do_not_know_each_other(imports: list[Import]):
    crossing = [
        (source, target)
        for source, target, _ in imports
        if (its := of_family(target)) and room(source) == "models" and of_family(source) != its
    ]
    assert {source for source, _ in crossing} == {"partclipseg.models.registry"}


def test_few_modules_know_a_family(imports: list[Import]):
    knowing = {source for source, target, _ in imports if of_family(target) and room(source) != "models"}
    assert knowing == KNOW_A_FAMILY.keys()
