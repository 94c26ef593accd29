"""Find the known name that a mistyped one is nearest to."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 200
"""Maximum number of characters that are compared; the time grows with the square."""


def nearest_name(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the name of `known` that is most like `name`, whatever its capitals; None if none is like it.

    `likeness` is the smallest ratio of equal characters, from 0 to 1.
    """
    folded = {word.casefold(): word for word in known}
    close = get_close_matches(name[:_LONGEST].strip().casefold(), folded, 1, likeness)
    return folded[close[0]] if close else None
