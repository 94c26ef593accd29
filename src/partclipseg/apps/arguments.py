"""Checks of a command line for mistakes that its parsed options no longer show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise, takewhile
from typing import Any, Union, get_args

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

from partclipseg.errors import UsageError
from partclipseg.grammar import quote

_WORDS = "--vocabulary"

_ALIASES = {"formats": "--format"}
"""Second name of the option of a field."""


def check_quotes(arguments: Sequence[str]) -> None:
    """Raise `UsageError` for words that the shell has split, as those of ``--vocabulary dog: head, ear`` are."""
    for option, word in pairwise([*arguments, ""]):
        name, equals, value = option.partition("=")
        split = value if equals else word
        if name == _WORDS and len(split.split()) == 1 and split.endswith((":", ",", ";")):
            after = arguments[arguments.index(option) + (1 if equals else 2) :]
            if after and not after[0].startswith("-"):
                raise UsageError(
                    f'the words after {_WORDS} come in several pieces: put them between quotation marks, as in '
                    f'{_WORDS} "dog: head, torso, leg, tail"'
                )


def check_words_given(options: Any, arguments: Sequence[str]) -> None:
    """Raise `UsageError` for an option that takes several words and was given none, which would not count."""
    for name, words, default in _several(options):
        option = f"--{name.replace('_', '-')}"
        if default == () and not any(str(word).strip(" ,;") for word in words) and option in arguments:
            raise UsageError(f"nothing stands after {option}: name what it is to take, or leave it out")


def check_given_once(options: Any, arguments: Sequence[str]) -> None:
    """Raise `UsageError` for an option that takes several words and was given twice: the first would not count."""
    given = [argument.partition("=")[0] for argument in takewhile(lambda argument: argument != "--", arguments)]
    for name, *_ in _several(options):
        options_of_it = [option for option in given if option in {f"--{name.replace('_', '-')}", _ALIASES.get(name)}]
        if len(options_of_it) > 1:
            raise UsageError(f"{options_of_it[-1]} is given twice: put all its words after one")


def option_values() -> ConstructorRegistry:
    """Return rules by which tyro reads values: an option that may be left out takes its own type alone, no ``None``.

    Ranges of numbers still take it, since it turns some of a recipe's off.
    """
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def left_out(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | UnsupportedTypeAnnotationError | None:
        members = get_args(info.type)
        others = tuple(member for member in members if member is not type(None))
        if others == members or {int, float}.intersection(*map(get_args, others)):
            return None
        own: Any = Union[others]  # noqa: UP007  (of a tuple of types)
        found = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(own, info.markers))
        if not isinstance(found, PrimitiveConstructorSpec):
            return found
        return replace(
            found,
            is_instance=lambda value: value is None or found.is_instance(value),
            str_from_instance=lambda value: ["None"] if value is None else found.str_from_instance(value),
        )

    return registry


def check_no_words(paths: Sequence[str]) -> None:
    """Raise `UsageError` for a path that is none, and looks like words: ``dog: head, ear``, or the shell's ``dog:``."""
    for path in paths:
        if (": " in path or path.endswith(":")) and not os.path.exists(path):  # noqa: PTH110  (takes any text)
            raise UsageError(f"{quote(path)} is no photo: put words to look for after {_WORDS}")


def _several(options: Any) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Yield name, words and default of the fields that take several words, of the fields' own dataclasses too."""
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from _several(value)
        elif isinstance(value, tuple):
            yield field.name, value, field.default
