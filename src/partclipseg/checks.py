"""Checks the values of configuration dataclasses against the annotations of their fields."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from partclipseg.errors import UsageError


def check_fields(config: Any, name: str = "") -> None:
    """Raise `UsageError` for the first field of a dataclass instance whose value its annotation does not allow.

    Choices (``Literal``), ``bool``, ``int``, ``float``, ``str``, other classes, tuples and unions of these are known.
    A float must be finite, and a whole number counts as one; a bool counts as neither. A list counts as a tuple.

    Args:
        config: the instance.
        name: what to call the configuration in the message, where a field's name alone does not say it.
    """
    hints = _hints(type(config))
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if not _fits(value, hint):
            place = f"{name}: {field.name}" if name else field.name
            raise UsageError(f"{place} is {value!r}; give {_expected(hint)}")


@cache  # reading them takes longer than all checks of an instance
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, origin or hint)


def _expected(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_expected, arguments))
    if origin is tuple:
        if arguments[1:] == (...,):
            return f"a tuple whose entries are each {_expected(arguments[0])}"
        return f"a tuple of {' and '.join(map(_expected, arguments))}"
    known = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text", NoneType: "None"}
    name = (origin or hint).__name__
    return known.get(hint) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def require(condition: bool, message: str) -> None:
    """Raise `UsageError` with the message unless the condition holds."""
    if not condition:
        raise UsageError(message)


def require_positive(config: Any, *names: str) -> None:
    """Raise `UsageError` for the first of these fields of a dataclass instance that is not above 0."""
    for name in names:
        require(getattr(config, name) > 0, f"{name} must be positive, not {getattr(config, name)}")


def require_not_negative(config: Any, *names: str) -> None:
    """Raise `UsageError` for the first of these fields of a dataclass instance that is below 0."""
    for name in names:
        require(getattr(config, name) >= 0, f"{name} must not be negative: {getattr(config, name)}")


def require_at_least(least: int, config: Any, *names: str) -> None:
    """Raise `UsageError` for the first of these fields of a dataclass instance that is below `least`."""
    for name in names:
        require(getattr(config, name) >= least, f"{name} must be at least {least}, not {getattr(config, name)}")


LARGEST_SEED = 2**63 - 1
"""Greatest seed that PyTorch's generators take."""

LARGEST_SIDE = 4096
"""Greatest side of a square that photos are resized to in training; the memory grows with its square or faster."""


def check_seed(seed: int) -> None:
    """Raise `UsageError` for a seed that PyTorch's generators do not take."""
    require(0 <= seed <= LARGEST_SEED, f"seed must be from 0 to {LARGEST_SEED} (2^63 - 1), not {seed}")


def check_side(image_size: int, name: str = "image_size") -> None:
    """Raise `UsageError` for a side that no model can be trained at."""
    require(1 <= image_size <= LARGEST_SIDE, f"{name} must be from 1 to {LARGEST_SIDE:,}, not {image_size}")
