"""Command-line option that names output formats; its choices and its help are made from the formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from partclipseg.formats.format import Format


def format_option(formats: Callable[[], Mapping[str, Format]]) -> Any:
    """Return an option that takes names of `formats`, which are looked up when a command line is read."""

    def help_text() -> str:
        lines = [f"{name}: {kind.help}." for name, kind in formats().items()]
        return "\n".join(["One or more kinds of result.", *lines])

    lazy: Any = help_text  # tyro calls it when help is asked for, though its annotation says str
    return tyro.conf.arg(
        metavar="KIND...",
        aliases=["--format"],
        help=lazy,
        help_behavior_hint=lambda default: f"(default: {_plain(default)})",
        constructor_factory=lambda: tuple[Literal[tuple(formats())], ...],
    )


def _plain(default: str) -> str:
    """Return a tuple's text as tyro prints it with a constructor, such as `('coco', 'png')`, as plain words."""
    return default.translate(str.maketrans("", "", "(),'"))
