"""Help texts of options: sentences are not broken where the source breaks its lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, make_dataclass

import pytest

from partclipseg.apps.help_text import join_lines


@dataclass(frozen=True)
class Inner:
    depth: int = 1
    """Depth that goes on
    in the next line."""


@dataclass(frozen=True)
class Deeper(Inner):
    """Subclass for the default of a field of type `Inner`, as a recipe has the settings of its method."""

    width: int = 1
    """Width of what goes on
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
        (Deeper, "width", "Width of what goes on in the next line."),
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


def test_a_class_of_a_notebook_changes_nothing() -> None:
    """A method of a user has settings of its own, of a module that cannot be found."""
    written = "@dataclass(frozen=True)\nclass Own(Outer):\n    more: 'ClassVar[int] | Absent' = 1\n    'More.'\n"
    names = {"__name__": "gone", "dataclass": dataclass, "Outer": Outer}
    exec(written, names)
    join_lines.cache_clear()
    join_lines(Outer)
    assert fields(Inner)[0].metadata["help"] == "Depth that goes on in the next line."


@pytest.mark.parametrize("recipe", ["pascal-partcatseg", "partshapes-catseg", "partshapes-zsseg"])
def test_the_help_of_a_recipe_names_the_repairs_of_its_method(recipe: str) -> None:
    from partclipseg.models.registry import family
    from partclipseg.training.recipe import RECIPES

    made = RECIPES[recipe]()
    join_lines(type(made))
    (repairs,) = [item for item in fields(made.settings) if item.name == "repairs"]
    names = family(made.method).config_class.applicable  # pyright: ignore[reportAttributeAccessIssue]
    assert names
    assert set(names) <= set(re.findall(r"\w+", repairs.metadata["help"]))
