"""Command-line option that names output formats; its help is made from the formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from partclipseg.formats.format import Format


def format_option(formats: Callable[[], Mapping[str, Format]]) -> Any:
    """Return an option that takes names of `formats`, which are looked up for its help.

    `chosen_formats` checks the names.
    """

    def help_text() -> str:
        lines = [f"{name}: {kind.help}." for name, kind in formats().items()]
        return "\n".join(["One or more kinds of result.", *lines])

    lazy: Any = help_text  # tyro calls it when help is asked for, though its annotation says str
    return tyro.conf.arg(metavar="KIND...", aliases=["--format"], help=lazy)
