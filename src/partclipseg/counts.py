"""Write numbers with their nouns, for messages and reports."""

from __future__ import annotations


def noun(number: float, one: str, several: str = "") -> str:
    """Return the form of a noun or verb that goes with a number; `several` is ``one`` with s, or es, by default."""
    return one if number == 1 else several or f"{one}{'es' if one.endswith('s') else 's'}"


def count_of(number: float, one: str, several: str = "") -> str:
    """Write a number with its noun, such as ``1 photo``, ``2,000 photos`` and ``2.5 seconds``: see `noun`."""
    figure = f"{int(number):,}" if float(number).is_integer() else f"{number:g}"
    return f"{figure} {noun(number, one, several)}"
