"""Help texts of options: the lines of a field's docstring are joined to paragraphs before tyro shows them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, get_args, get_type_hints


@cache
def join_lines(options: type) -> None:
    """Give each option of a dataclass, and of those in it, its help text. A line break stays after a full stop only.

    tyro keeps every line break of an indented docstring, and would break its sentences where the source does.
    """
    for item in _dataclasses(options, set()):
        texts = {name: text for base in reversed(item.__mro__) if is_dataclass(base) for name, text in _texts(base)}
        for field in fields(item):
            if field.name in texts:
                field.metadata = MappingProxyType({**field.metadata, "help": texts[field.name]})


def _dataclasses(hint: Any, seen: set[type]) -> Iterator[type]:
    """Yield the dataclasses in a type hint, their subclasses, which a default may be of, and those of their fields."""
    if isinstance(hint, type) and is_dataclass(hint):
        if hint in seen:
            return
        seen.add(hint)
        yield hint
        inner = [*_hints(hint), *hint.__subclasses__()]
    else:
        inner = get_args(hint)
    for argument in inner:
        yield from _dataclasses(argument, seen)


def _hints(item: type) -> Iterator[Any]:
    """Yield the type hints of a dataclass; none where they name what cannot be found, as of a class in a notebook."""
    try:
        yield from get_type_hints(item, include_extras=True).values()
    except NameError:
        return


def _texts(item: type) -> Iterator[tuple[str, str]]:
    """Yield name and text of each field that a dataclass itself describes; none where its source is not at hand."""
    try:
        source = inspect.getsource(item)
    except (OSError, TypeError):  # TypeError: of a class without a module, as in a notebook
        return
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(content))):
                yield name, re.sub(r"(?<![.:])\n", " ", inspect.cleandoc(content)).replace("``", "")
