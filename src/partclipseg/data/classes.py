"""Own class lists: from the names that an annotation tool wrote to object-parts.

Tools know categories, and at best a group for each. Whose part a category is comes from its name (``dog's ear``),
its group, a mapping, or the one object that all parts belong to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from partclipseg.errors import UsageError
from partclipseg.vocabulary import ObjectPart

BACKGROUND = frozenset({"background", "_background_", "__background__", "unlabeled", "unlabelled", "ignore", "void"})
"""Category names, in lower case, that stand for no label."""

Meaning = ObjectPart | str | None
"""What a category stands for: an object-part, a whole object, or nothing."""


def read_mapping(mapping: Path | Mapping[str, Any]) -> dict[str, Meaning]:
    """What each category name stands for, by its lower-case spelling.

    Two forms, in a YAML or JSON file or as a dictionary: from the category's name to ``dog's ear``, to a bare
    object word (the category marks whole objects) or to null (left out); or from an object to the list of the
    categories that are its parts.

    Raises:
        UsageError: an unreadable file, another form, or a category named twice.
    """
    source = "the mapping" if isinstance(mapping, Mapping) else str(mapping)
    content = mapping if isinstance(mapping, Mapping) else _load(mapping)
    meanings: dict[str, Meaning] = {}

    def add(category: object, meaning: Meaning) -> None:
        folded = str(category).casefold()
        if folded in meanings:
            raise UsageError(f"{source}: the category {category!r} stands in it twice: keep one of the two")
        meanings[folded] = meaning

    for key, value in content.items():
        if isinstance(value, list):
            for category in value:
                add(category, ObjectPart(str(key), _words(str(category))))
        elif value is None:
            add(key, None)
        elif isinstance(value, str) and value.strip():
            add(key, ObjectPart.from_name(value) if "'s" in value.replace("’", "'") else _words(value))
        else:
            raise UsageError(f"{source}: {key!r} must lead to \"dog's ear\", to a list of categories, or to null")
    return meanings


def meanings_of(
    categories: Iterable[tuple[str, str | None]],
    source: Path,
    object: str | None = None,
    mapping: Path | Mapping[str, Any] | None = None,
) -> list[Meaning]:
    """What each category stands for.

    Args:
        categories: name and group ("supercategory") of each.
        source: the file that they come from, for messages.
        object: the object whose parts all categories are.
        mapping: see `read_mapping`; it must name every category that is not background.

    Raises:
        UsageError: the object of a category cannot be told, or no category is a part.
    """
    categories = list(categories)
    if object is not None and mapping is not None:
        raise UsageError("give either the object or the mapping, not both")
    table = read_mapping(mapping) if mapping is not None else None
    groups = {_group(name, group).casefold() for name, group in categories if _group(name, group)}
    meanings: list[Meaning] = []
    unclear: list[str] = []
    for name, group in categories:
        word = _words(name)
        if name.strip().casefold() in BACKGROUND:
            meanings.append(None)
        elif table is not None:
            if name.casefold() not in table:
                unclear.append(name)
            meanings.append(table.get(name.casefold()))
        elif object is not None:
            meanings.append(_words(object) if word.casefold() == object.casefold() else ObjectPart(object, word))
        elif "'s" in name.replace("’", "'"):
            meanings.append(ObjectPart.from_name(name))
        elif owner := _group(name, group):
            meanings.append(ObjectPart(owner, word))
        elif word.casefold() in groups:
            meanings.append(word)
        else:
            unclear.append(name)
    if unclear:
        shown = ", ".join(map(repr, unclear[:5])) + (f" and {len(unclear) - 5} more" if len(unclear) > 5 else "")
        remedy = (
            "add them to the mapping (null leaves a category out)"
            if table is not None
            else "name it with --object, or name each category's with a --mapping file"
        )
        raise UsageError(f"{source}: it is not said whose parts {shown} are: {remedy}")
    if not any(isinstance(meaning, ObjectPart) for meaning in meanings):
        raise UsageError(f"{source}: no category is a part of an object")
    return meanings


def class_list(meanings: Iterable[Meaning]) -> tuple[tuple[ObjectPart, ...], tuple[str, ...]]:
    """The distinct object-parts and objects, in the order in which they first occur.

    Words that differ only in capitals count as the same; the first spelling is kept.
    """
    pairs: dict[tuple[str, str], ObjectPart] = {}
    spelling: dict[str, str] = {}
    for meaning in meanings:
        if isinstance(meaning, ObjectPart):
            word, part = (" ".join(text.split()) for text in meaning)
            word = spelling.setdefault(word.casefold(), word)
            pairs.setdefault((word.casefold(), part.casefold()), ObjectPart(word, part))
        elif meaning is not None:
            spelling.setdefault(meaning.casefold(), meaning)
    return tuple(pairs.values()), tuple(spelling.values())


def _group(name: str, group: str | None) -> str:
    """The supercategory where it says something: many tools write ``none`` or the name itself."""
    word = _words(group or "")
    return "" if word.casefold() in {"none", "root", *BACKGROUND, _words(name).casefold()} else word


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _load(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the mapping {path}: {error}") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path}: expected a mapping, from a category to \"dog's ear\" or from an object to a list")
    return content
