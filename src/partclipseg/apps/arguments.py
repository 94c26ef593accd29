"""Checks of a command line for mistakes that its parsed options no longer show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

from partclipseg.errors import UsageError
from partclipseg.grammar import quote

_WORDS = "--vocabulary"


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
    for name in _empty(options):
        if (option := f"--{name.replace('_', '-')}") in arguments:
            raise UsageError(f"nothing stands after {option}: name what it is to take, or leave it out")


def check_no_words(paths: Sequence[str]) -> None:
    """Raise `UsageError` for a path that is none, and looks like words: ``dog: head, ear``, or the shell's ``dog:``."""
    for path in paths:
        if (": " in path or path.endswith(":")) and not os.path.exists(path):  # noqa: PTH110  (takes any text)
            raise UsageError(f"{quote(path)} is no photo: put words to look for after {_WORDS}")


def _empty(options: Any) -> Iterator[str]:
    """Yield the names of fields, of the fields' own dataclasses too, that may be left out and have no word."""
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from _empty(value)
        elif isinstance(value, tuple) and field.default == () and not any(str(word).strip(" ,;") for word in value):
            yield field.name
