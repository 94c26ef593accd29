"""Public names: each class, type alias and function of the package is defined in one module only."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "partclipseg"

SCRIPT = SOURCE / "apps" / "export" / "segment.py"
"""Script that `export` writes beside a model: it runs without the package, whose names it repeats on purpose."""

ALLOWED = {
    "best_maps": "a family's `maps.py` labels each pixel by its greatest probability",
    "config_for": "every family's `foreign.py` answers the same question of `models.registry`",
    "first_size": "a family's `photos.py` says to what size its released code first resizes a photo",
    "knows": "every family's `foreign.py` answers the same question of `models.registry`",
    "load_released": "every family's `foreign.py` answers the same question of `models.registry`",
    "open_split": "every data set's file opens a split for its `DatasetSpec`",
    "place_of": "every family's `foreign.py` says where its tensors stand in released files",
    "train": "the call that users make, and a figure of PartShapes, which is named by the word that it draws",
}
"""Names that several modules define, and why they mean one thing."""


def definitions(tree: ast.Module) -> Iterator[str]:
    """Public classes and functions of a module, and its type aliases, whose names are in capitalised words."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if name != name.upper() and name[0].isupper():
                    yield name


def places() -> dict[str, list[str]]:
    """Modules that define each public name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        if path != SCRIPT:
            for name in definitions(ast.parse(path.read_text(encoding="utf-8"))):
                if not name.startswith("_"):
                    found[name].append(path.relative_to(SOURCE).as_posix())
    return found


def test_a_public_name_means_one_thing() -> None:
    found = places()
    assert len(found) > 500
    repeated = {name: modules for name, modules in found.items() if len(modules) > 1}
    unknown = {name: modules for name, modules in repeated.items() if name not in ALLOWED}
    assert not unknown, "two modules define one name: rename one of them"
    assert repeated.keys() == ALLOWED.keys(), "a name that is allowed stands once: strike it from the list"


def test_all_kinds_of_definitions_are_found() -> None:
    source = "class A: ...\ndef b(): ...\nasync def c(): ...\nAlias = int | str\nTyped: type = int\nONE = 1\nlow = 2\n"
    assert list(definitions(ast.parse(source))) == ["A", "b", "c", "Alias", "Typed"]
