"""Help texts of options: sentences are not broken where the source breaks its lines."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass

import pytest

from partclipseg.apps.help_text import join_lines


@dataclass(frozen=True)
class Inner:
    depth: int = 1
    """Depth that goes on
    in the next line."""


@dataclass(frozen=True)
class Base:
    name: str = ""
    """First sentence.
    Left out: a name of
    the machine's, with ``backticks``."""
    plain: str = ""


@dataclass(frozen=True)
class Outer(Base):
    """Options of a made-up command."""

    many: tuple[Inner, ...] = ()
    """One line."""
    inner: Inner | None = field(default=None, metadata={"unit": "m"})
    """Choices:
    first: one that
    is long."""


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [
        (Inner, "depth", "Depth that goes on in the next line."),
        (Outer, "name", "First sentence.\nLeft out: a name of the machine's, with backticks."),
        (Outer, "plain", None),
        (Outer, "many", "One line."),
        (Outer, "inner", "Choices:\nfirst: one that is long."),
    ],
)
def test_lines_are_joined_unless_a_sentence_ends(options: type, name: str, text: str | None) -> None:
    join_lines(Outer)
    (found,) = [item for item in fields(options) if item.name == name]
    assert found.metadata.get("help") == text
    assert found.metadata.get("unit") == ("m" if name == "inner" else None)


def test_a_class_without_source_keeps_its_help() -> None:
    """An installation may have compiled files alone, without any source."""
    size = ("size", int, field(default=1, metadata={"help": "Size."}))
    made = make_dataclass("Made", [size, ("inner", Inner, Inner())])
    join_lines(made)
    assert fields(made)[0].metadata["help"] == "Size."
    assert fields(Inner)[0].metadata["help"] == "Depth that goes on in the next line."
