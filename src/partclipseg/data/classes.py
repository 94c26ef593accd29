"""Turn the class names that an annotation tool wrote into object-parts.

Tools know categories, and at best a group for each. Whose part a category is comes from its name (``dog's ear``),
its group, a mapping, or the one object that all parts belong to.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from partclipseg.data.sample import UNLABELLED
from partclipseg.data.values import is_text, quoted
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.json_file import read_json_or_yaml
from partclipseg.vocabulary import ObjectPart

BACKGROUND_NAMES = frozenset(
    {"background", "_background_", "__background__", "unlabeled", "unlabelled", "ignore", "void"}
)
"""Category names, in lower case, that stand for no label."""

Meaning = ObjectPart | str | None
"""Meaning of a category: an object-part, a whole object, or nothing."""


def read_mapping(mapping: Path | Mapping[str, Any]) -> dict[str, Meaning]:
    """Read what each category name stands for, by its lower-case spelling.

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
        if not is_text(category) and (isinstance(category, bool) or not isinstance(category, int)):
            raise UsageError(f"{source}: {quoted(category)} is not the name of a category: write it in quotes")
        folded = quoted(category) if isinstance(category, int) else _folded(str(category))
        if folded in meanings:
            raise UsageError(f"{source}: the category {quoted(category)} stands in it twice: keep one of the two")
        meanings[folded] = meaning

    for key, value in content.items():
        if isinstance(value, list):
            if not is_text(key):
                raise UsageError(f"{source}: {quoted(key)} is not the name of an object: write it in quotes")
            for category in value:
                add(category, _split(str(category), str(key)) or ObjectPart(str(key), words_of(str(category))))
        elif value is None:
            add(key, None)
        elif is_text(value):
            add(key, ObjectPart.from_name(value) if "'s" in value.replace("’", "'") else words_of(value))
        else:
            raise UsageError(f'{source}: {quoted(key)} must lead to "dog\'s ear", to a list of categories, or to null')
    return meanings


def meanings_of(
    categories: Iterable[tuple[str, str | None]],
    source: Path,
    object: str | None = None,
    mapping: Path | Mapping[str, Any] | None = None,
) -> list[Meaning]:
    """Return what each category stands for.

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
        word = words_of(name)
        if name.strip().casefold() in BACKGROUND_NAMES:
            meanings.append(None)
        elif table is not None:
            if _folded(name) not in table:
                unclear.append(name)
            meanings.append(table.get(_folded(name)))
        elif object is not None:
            whole = word.casefold() == words_of(object).casefold()
            meanings.append(words_of(object) if whole else _split(name, object) or ObjectPart(object, word))
        elif "'s" in name.replace("’", "'"):
            meanings.append(_split(name, group) or ObjectPart.from_name(name))
        elif owner := _group(name, group):
            meanings.append(ObjectPart(owner, word))
        elif word.casefold() in groups:
            meanings.append(word)
        else:
            unclear.append(name)
    if unclear:
        shown = ", ".join(map(quoted, unclear[:5])) + (f" and {len(unclear) - 5} more" if len(unclear) > 5 else "")
        remedy = (
            "add them to the mapping (null leaves a category out)"
            if table is not None
            else "name it with --object, or name each category's with a --mapping file"
        )
        raise UsageError(f"{source}: it is not said whose parts {shown} are: {remedy}")
    if not any(isinstance(meaning, ObjectPart) for meaning in meanings):
        raise UsageError(f"{source}: no category is a part of an object: name the object with --object or --mapping")
    return meanings


def class_list(meanings: Iterable[Meaning]) -> tuple[tuple[ObjectPart, ...], tuple[str, ...]]:
    """Return the distinct object-parts and objects, in the order in which they first occur.

    Words that differ only in capitals or in Unicode normalisation count as the same; the first spelling is kept.
    """
    pairs: dict[ObjectPart, ObjectPart] = {}
    spelling: dict[str, str] = {}
    part_spelling: dict[str, str] = {}
    for meaning in meanings:
        if isinstance(meaning, ObjectPart):
            word, part = (_clean(text) for text in meaning)
            word = spelling.setdefault(word.casefold(), word)
            part = part_spelling.setdefault(part.casefold(), part)
            pair = ObjectPart(word, part)
            pairs.setdefault(pair.folded, pair)
        elif meaning is not None:
            word = _clean(meaning)
            spelling.setdefault(word.casefold(), word)
    return tuple(pairs.values()), tuple(spelling.values())


def class_indices(
    meanings: Iterable[Meaning], pairs: Iterable[ObjectPart], objects: Iterable[str]
) -> list[tuple[int, int]]:
    """Return the part index and the object index of each meaning in a `class_list`; `UNLABELLED` where it has none."""
    words = {word.casefold(): index for index, word in enumerate(objects)}
    classes = {pair.folded: index for index, pair in enumerate(pairs)}

    def indices(meaning: Meaning) -> tuple[int, int]:
        if meaning is None:
            return UNLABELLED, UNLABELLED
        if isinstance(meaning, str):
            return UNLABELLED, words[_clean(meaning).casefold()]
        pair = ObjectPart(*map(_clean, meaning)).folded
        return classes[pair], words[pair.object]

    return [indices(meaning) for meaning in meanings]


def _split(name: str, owner: str | None) -> ObjectPart | None:
    """Split the name at the ``'s`` that follows the object's word, which may itself have one: *potter's wheel's rim*.

    None where the name does not start with the object `owner`.
    """
    straight = name.replace("’", "'")
    place = straight.find("'s")
    while owner and place >= 0:
        word, part = name[:place].strip(), name[place + 2 :].strip()
        if part and _folded(words_of(word)) == _folded(words_of(owner)):
            return ObjectPart(word, part)
        place = straight.find("'s", place + 1)
    return None


def _group(name: str, group: str | None) -> str:
    """Return the supercategory if it says something: many tools write ``none`` or the name itself."""
    word = words_of(group or "")
    return "" if word.casefold() in {"none", "root", *BACKGROUND_NAMES, words_of(name).casefold()} else word


def words_of(name: str) -> str:
    """Return the words of a class name: with blanks for underscores, single blanks, in Unicode NFC."""
    return _clean(name.replace("_", " "))


def _folded(name: str) -> str:
    """Return the form that all spellings of a word share."""
    return _clean(name).casefold().replace("’", "'")


def _clean(name: str) -> str:
    """Return the word with single blanks, in Unicode NFC."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = read_json_or_yaml(path)
    except PartCLIPSegError as error:
        raise UsageError(f"cannot read the mapping {path}: it {error}") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f'{path}: expected a mapping, from a category to "dog\'s ear" or from an object to a list')
    return content
