"""Read values of annotation files as ids, whole numbers or text, and quote the rest in messages."""

from __future__ import annotations

import re
import reprlib
from typing import Any

_LARGEST_ID = 1 << 128  # some tools number with UUIDs
_LARGEST_NUMBER = 1 << 53  # what a JSON number holds exactly in every reader
_DIGITS = re.compile(r"(-?(?:0|[1-9][0-9]{0,38}))(?:\.0+)?", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")


def entry_id(value: Any) -> int | str | None:
    """Return the id that a value stands for; None if it is none.

    Tools write one id as ``1``, ``1.0`` or ``"1"``: all three are the integer 1. Other text is an id as it is.
    """
    if type(value) is int:
        return value if abs(value) < _LARGEST_ID else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _LARGEST_NUMBER else None
    if not is_text(value):
        return None
    value = value.strip()
    digits = _DIGITS.fullmatch(value)
    return int(digits[1]) if digits and abs(int(digits[1])) < _LARGEST_ID else value


def whole_number(value: Any) -> int | None:
    """Return the integer that ``3``, ``3.0`` or ``"3"`` stands for; None for everything else, booleans included."""
    number = entry_id(value)
    return number if isinstance(number, int) and abs(number) <= _LARGEST_NUMBER else None


def is_text(value: Any) -> bool:
    """Return whether a value is text that can be shown and stored: not blank, and without surrogates."""
    return isinstance(value, str) and not value.isspace() and value != "" and not _SURROGATE.search(value)


def quoted(value: Any) -> str:
    """Quote a value for a message: its `repr`, shortened, whatever its size or depth."""
    try:
        return _QUOTE.repr(value)
    except Exception:  # an integer of thousands of digits has no decimal form in Python
        return f"a {type(value).__name__}"


_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxlong = _QUOTE.maxother = 100
_QUOTE.maxlevel = 3


def printable(text: str) -> str:
    """Return text that every terminal and file can hold: file names may have bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
