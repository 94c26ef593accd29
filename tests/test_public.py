"""What users hold: names and signatures, help texts, HTTP paths and tensor names are those in ``tests/snapshots``.

A difference is no fault of its own: it is a change that users will see. Where it is meant, write the snapshots anew
and review what has changed with the code:

    python -m tests.test_public
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.processes import Command

import partclipseg
from partclipseg.apps.cli import COMMANDS
from partclipseg.training.recipe import RECIPES

SNAPSHOTS = Path(__file__).with_name("snapshots")


# -- what is compared ---------------------------------------------------------------------------------------------


def public_api() -> str:
    """Every name of `partclipseg.__all__`: signature, public fields and methods that are this package's own."""
    return "\n".join("\n".join(_described(name, getattr(partclipseg, name))) for name in partclipseg.__all__)


def _described(name: str, item: Any) -> Iterator[str]:
    if not inspect.isclass(item):
        yield f"{name}{_signature(item)}"
        return
    bases = [base.__name__ for base in item.__bases__ if base is not object]
    yield f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    if issubclass(item, Exception):
        return
    if is_dataclass(item):
        ours = [cls for cls in item.__mro__ if cls.__module__.startswith("partclipseg.")]
        own = {field for cls in ours for field in vars(cls).get("__annotations__", {})}
        named = [field for field in fields(item) if field.name in own and not field.name.startswith("_")]
        yield from (f"    {field.name}: {field.type}" for field in named)
    elif "__init__" in vars(item):
        yield f"    __init__{_signature(item.__init__)}"
    for member, value in sorted(vars(item).items()):
        if member.startswith("_") and member not in {"__call__", "__getitem__", "__iter__", "__len__"}:
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(value, property):
            yield f"    {member}: property"
        elif inspect.isfunction(function):
            kind = f"{type(value).__name__} " if function is not value else ""
            yield f"    {kind}{member}{_signature(function)}"


def _signature(function: Callable[..., Any]) -> str:
    text = re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(function)))
    text = re.sub(r"Unpack\[(\w+)\]", lambda found: _options(inspect.unwrap(function).__globals__[found[1]]), text)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations are strings, which needs not be seen


def _options(kind: Any) -> str:
    """The keyword arguments that a `TypedDict` stands for."""
    annotations = {name: getattr(hint, "__forward_arg__", hint) for name, hint in kind.__annotations__.items()}
    return f"{{{', '.join(f'{name}: {hint}' for name, hint in annotations.items())}}}"


@cache
def help_texts() -> str:
    """What ``--help`` prints, of every command and of the recipe for own data, without frames."""
    calls = [["--help"], *([command, "--help"] for command in COMMANDS), ["train", "own-data", "--help"]]
    return "\n".join(f"$ partclipseg {' '.join(call)}\n{_help(call)}" for call in calls)


def _help(call: list[str]) -> str:
    """In a process of its own, whose terminal is 120 columns wide and has no colours."""
    plain = {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb", "FORCE_COLOR": "", "TTY_COMPATIBLE": ""}
    process = Command(*call, environment=plain)
    printed = process.output.read()
    assert process.wait() == 0, printed
    text = re.sub(r"^│ | *│$|[╭╮╰╯─]{2,}|[╭╮╰╯]", "", printed, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +$", "", text, flags=re.M))


def http_api() -> str:
    """Methods and paths of ``openapi.json`` with their answers, and the fields of its schemas."""
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.api import create_api
    from partclipseg.apps.serve.engine import Engine, Limits

    engine = Engine({"partshapes": partclipseg.PartSegmenter.from_pretrained(device="cpu")}, Limits())
    try:
        document = create_api(engine).openapi()
    finally:
        engine.close()
    lines = []
    for path, operations in document["paths"].items():
        lines += [f"{method.upper()} {path}: {', '.join(found['responses'])}" for method, found in operations.items()]
    for name, schema in sorted(document["components"]["schemas"].items()):
        required = schema.get("required", [])
        lines.append(f"{name}: {', '.join(f + ' (required)' * (f in required) for f in schema.get('properties', {}))}")
    return "\n".join(lines)


def tensor_names() -> str:
    """Names, shapes and types of the weights of the built-in model, which released models have too."""
    from safetensors import safe_open

    from partclipseg.models.registry import built_in_model

    with safe_open(Path(built_in_model()) / "model.safetensors", "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        return "\n".join(f"{name} {list(found.get_shape())} {found.get_dtype()}" for name, found in slices.items())


PARTS: dict[str, Callable[[], str]] = {
    "api.txt": public_api,
    "help.txt": help_texts,
    "http.txt": http_api,
    "tensors.txt": tensor_names,
}
"""Snapshot: what makes it."""


# -- the tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_what_users_hold_is_what_was_reviewed(name: str) -> None:
    stored = (SNAPSHOTS / name).read_text(encoding="utf-8")
    # Words, not lines: where a paragraph is wrapped is no change.
    assert PARTS[name]().split() == stored.split(), "where this is meant: python -m tests.test_public"


def test_every_snapshot_is_compared() -> None:
    assert {path.name for path in SNAPSHOTS.iterdir()} == set(PARTS)


def test_one_name_for_one_thing() -> None:
    """Options of one meaning have one name in all commands."""
    text = help_texts()
    assert not re.findall(r"--(?:root|fp16|precision|weights|checkpoint|out|out-dir|words)(?![\w-])", text)
    assert set(RECIPES) <= set(re.findall(r"[\w-]+", text))


if __name__ == "__main__":
    SNAPSHOTS.mkdir(exist_ok=True)
    for name, make in PARTS.items():
        (SNAPSHOTS / name).write_text(make().rstrip() + "\n", encoding="utf-8")
