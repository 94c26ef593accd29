"""Vocabularies: the object-parts that a model is asked for, and their index arrays.

An object-part is a pair such as *dog's ear*. A vocabulary holds the pairs in the caller's order, the sorted
word lists of objects and generalized parts, and the arrays that point from each pair into those lists.

A part word without an object, such as *handle*, asks for this part of any object. `ANY` stands for its object.

Written words follow one grammar, wherever they come from: see `partclipseg.grammar`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_file, write_text
from partclipseg.grammar import (
    ANY,
    CATALOGS,
    MAX_WORD,
    ObjectPart,
    check_no_file,
    check_word,
    class_name,
    names_object,
    plain_text,
    plain_word,
    quote,
    read_entry,
    read_pairs,
    separate,
    split_words,
)
from partclipseg.json_file import parse_json, read_json_or_yaml, read_text

__all__ = [
    "ANY", "CATALOGS", "MAX_WORD", "Catalog", "CatalogSplit", "ObjectPart", "Vocabulary", "check_no_file", "plain_word",
    "split_words",
]  # fmt: skip

CatalogSplit = Literal["seen", "all"]

_FILE_SUFFIXES = {".yaml", ".yml", ".json", ".txt"}
_JSON_STARTS = ("{", "[")  # what text of words begins with that is read as JSON


@dataclass(frozen=True)
class Vocabulary:
    """An ordered, duplicate-free set of object-parts and the indices that a model needs.

    Pairs with the object `ANY` become words without an object, whose classes come after the object-parts.

    Words keep the caller's spelling, but for blanks (one, and none at the ends), apostrophes (straight) and Unicode
    (NFC). Two words that differ only in capitals read the same to the text tower, so having both is an error.

    Raises `UsageError`, naming the entry, for an empty vocabulary, for empty or duplicate entries, and for words of
    more than `MAX_WORD` characters, with a comma, semicolon, colon or new line, or with invisible characters.
    """

    object_parts: tuple[ObjectPart, ...]
    objects: tuple[str, ...] = field(init=False)
    """Sorted object words, `N_o`; only objects that have parts."""
    parts: tuple[str, ...] = field(init=False)
    """Sorted part words of the object-parts, `N_p`."""
    anywhere: tuple[str, ...] = field(init=False)
    """Part words without an object, in the caller's order; models are asked for them by `PartModel.word_maps`."""

    def __post_init__(self) -> None:
        pairs = tuple(ObjectPart(check_word(o, "object", p), check_word(p, "part", o)) for o, p in self.object_parts)
        if not pairs:
            raise UsageError(
                'the vocabulary is empty: name at least one object-part, such as "dog: head, torso, leg, tail"'
            )
        seen: set[ObjectPart] = set()
        for pair in pairs:
            if pair.folded in seen:
                raise UsageError(f"{pair.name!r} is in the vocabulary twice: keep one of the two")
            seen.add(pair.folded)
        _distinct((pair.part for pair in pairs), "part")
        anywhere = tuple(pair.part for pair in pairs if pair.object.casefold() == ANY)
        pairs = tuple(pair for pair in pairs if pair.object.casefold() != ANY)
        object.__setattr__(self, "object_parts", pairs)
        object.__setattr__(self, "objects", _distinct((pair.object for pair in pairs), "object"))
        object.__setattr__(self, "parts", _distinct((pair.part for pair in pairs), "part"))
        object.__setattr__(self, "anywhere", anywhere)

    # -- constructors -----------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, words: Mapping[str, Iterable[str]]) -> Vocabulary:
        """Make a vocabulary from ``{"dog": ["head", "torso"]}``: object word to part words.

        A comma, semicolon or line end within an entry separates words, as in text.
        """
        pairs: list[ObjectPart] = []
        for object_word, part_words in words.items():
            if part_words is None or isinstance(part_words, str) or not isinstance(part_words, Iterable):
                raise UsageError(
                    f"the parts of {quote(object_word)} must be a list of words, not {quote(part_words)}: write it "
                    'as {"dog": ["head", "torso", "leg", "tail"]}'
                )
            members = [ObjectPart(object_word, part) for entry in part_words for part in separate(entry)]
            if not members:
                raise UsageError(f"{quote(object_word)} has no part: name one, or leave the object out")
            pairs.extend(members)
        return cls(tuple(pairs))

    @classmethod
    def from_names(cls, names: Iterable[str | Sequence[str]]) -> Vocabulary:
        """Make a vocabulary from ``["dog's ear", "handle"]``: a name, or a pair ``("dog", "ear")``, per class.

        A comma, semicolon or line end within a name separates names, as in text; a pair is one class.
        """
        if isinstance(names, str | bytes) or not isinstance(names, Iterable):
            raise UsageError(f'expected a list of names such as ["dog\'s ear"], not {quote(names)}')
        return cls(tuple(pair for entry in names for pair in read_entry(entry)))

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """Read ``"dog: head, tail; any: handle"`` or ``"dog's head, dog's tail; handle"``, as on the command line.

        Entries are separated by ``;`` or line ends; naming an object again adds to it. Text that begins with ``{`` or
        ``[`` is read as JSON, in the forms of `from_dict` and `from_names`.
        """
        if not text.lstrip().startswith(_JSON_STARTS):
            return cls(tuple(read_pairs(text)))
        try:
            content = parse_json(text.encode("utf-8", "surrogatepass"))
        except PartCLIPSegError as error:
            raise UsageError(f"the text of words begins like JSON, but it {error}") from None
        return cls._from_content(content)

    @classmethod
    def from_file(cls, path: str | Path) -> Vocabulary:
        """Read ``.yaml``/``.yml``/``.json`` (object to parts, or a list of names) or text, one name a line.

        In text files blank lines and lines that start with ``#`` are skipped. Raises `UsageError` for a missing
        or malformed file.
        """
        path = Path(path)
        is_table = path.suffix.lower() in _FILE_SUFFIXES - {".txt"}
        try:
            content = read_json_or_yaml(path) if is_table else read_text(path)
        except PartCLIPSegError as error:
            raise UsageError(f"cannot read the vocabulary file {path}: it {error}") from None
        try:
            return cls._from_content(content)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    @classmethod
    def _from_content(cls, content: Any) -> Vocabulary:
        if content is None:  # of an empty YAML file
            return cls.from_text("")
        if isinstance(content, str):
            lines = (line.strip() for line in plain_text(content).split("\n"))
            return cls.from_text("\n".join(line for line in lines if not line.startswith("#")))
        if isinstance(content, Mapping):
            return cls.from_dict(content)
        if isinstance(content, list):
            return cls.from_names(content)
        raise UsageError("expected a mapping from object to parts, such as dog: [head, tail], or a list of names")

    @classmethod
    def from_catalog(cls, name: str, split: CatalogSplit = "all") -> Vocabulary:
        """Load the class list of a benchmark, `CATALOGS`; ``split="seen"`` keeps the object-parts to train on."""
        catalog = Catalog.load(name)
        if split == "all":
            return catalog.vocabulary
        if split == "seen":
            return cls(tuple(catalog.object_parts[index] for index in catalog.seen))
        raise UsageError(f"unknown split {split!r}: choose 'seen' or 'all'")

    @classmethod
    def load(cls, words: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str | Path) -> Vocabulary:
        """Make a vocabulary from a vocabulary, dictionary, list of names, catalogue name, file or text.

        A `Path` is a file; a string is a catalogue's name, a file's, or text. Raises `UsageError` for wrong words and
        for a file that cannot be read.
        """
        if isinstance(words, Vocabulary):
            return words
        if isinstance(words, Mapping):
            return cls.from_dict(words)
        if isinstance(words, Path):
            return cls.from_file(words)
        if not isinstance(words, str):
            return cls.from_names(words)
        if words.strip() in CATALOGS:
            return cls.from_catalog(words.strip())
        if words.lstrip().startswith(_JSON_STARTS):
            return cls.from_text(words)
        if names_object(words) and Path(words).suffix.lower() not in _FILE_SUFFIXES:
            return cls.from_text(words)
        if is_file(words):
            return cls.from_file(words)
        if not plain_text(words).strip(",; \n\t"):
            return cls(())
        check_no_file(words)
        return cls.from_text(words)

    # -- indices ----------------------------------------------------------------------------------------------

    @cached_property
    def class_to_object(self) -> np.ndarray:
        """int64 `[N_c]`: index into `objects` of each object-part."""
        index = {word: i for i, word in enumerate(self.objects)}
        return np.array([index[pair.object] for pair in self.object_parts], dtype=np.int64)

    @cached_property
    def class_to_part(self) -> np.ndarray:
        """int64 `[N_c]`: index into `parts` of each object-part."""
        index = {word: i for i, word in enumerate(self.parts)}
        return np.array([index[pair.part] for pair in self.object_parts], dtype=np.int64)

    @cached_property
    def class_to_place(self) -> np.ndarray:
        """int64 `[N_c]`: place of each object-part among the parts of its object, from 0."""
        words = self.to_dict()
        return np.array([words[pair.object].index(pair.part) for pair in self.object_parts], dtype=np.int64)

    @cached_property
    def classes(self) -> tuple[ObjectPart, ...]:
        """Every class in label order: the object-parts, then the words without an object as pairs with `ANY`."""
        return (*self.object_parts, *(ObjectPart(ANY, word) for word in self.anywhere))

    @cached_property
    def paired(self) -> Vocabulary | None:
        """The object-parts alone, which is what models are asked for; None without any."""
        if not self.anywhere:
            return self
        return Vocabulary(self.object_parts) if self.object_parts else None

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class, such as ``dog's ear`` or ``handle``, in label order."""
        return tuple(pair.name for pair in self.classes)

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.object_parts) + len(self.anywhere)

    def with_objects(self, what: str) -> Vocabulary:
        """Return the vocabulary itself. Raises `UsageError` for words without an object, of which `what` has no use."""
        if self.anywhere:
            raise UsageError(
                f"{quote(self.anywhere[0])} has no object, and {what} needs one for every part: write it as "
                f'"kettle: {quote(self.anywhere[0])[1:-1]}"'
            )
        return self

    def to_text(self) -> str:
        """Return ``dog: head, tail; any: handle``; the inverse of `from_text`.

        Text whose first word begins like JSON starts with a semicolon, an empty entry, so that it is read as words.
        """
        groups = groupby(self.classes, key=lambda pair: pair.object)
        text = "; ".join(f"{word}: {', '.join(pair.part for pair in pairs)}" for word, pairs in groups)
        return f";{text}" if text.startswith(_JSON_STARTS) else text

    def to_dict(self) -> dict[str, list[str]]:
        """Return object word to part words; the inverse of `from_dict` up to the order across objects."""
        words: dict[str, list[str]] = {}
        for object_word, part_word in self.classes:
            words.setdefault(object_word, []).append(part_word)
        return words

    def save(self, path: str | Path) -> None:
        """Write JSON that `from_file` reads back exactly: a list of [object, part] in label order."""
        write_text(Path(path), json.dumps(self.classes, ensure_ascii=False) + "\n")

    def find_class(self, name: str) -> int | None:
        """Return the index in `classes` of a name such as ``dog's ear`` or ``handle``; None without.

        Case does not matter, and ``dog: ear`` and ``any: handle`` are names, too.
        """
        folded = class_name(name) if isinstance(name, str) else None
        return next((index for index, known in enumerate(self.names) if known.casefold() == folded), None)

    def object_index(self, word: str) -> int:
        """Return the index of an object word, ignoring case; raises `UsageError` naming the known ones."""
        folded = plain_word(word).casefold() if isinstance(word, str) else None
        for index, known in enumerate(self.objects):
            if known.casefold() == folded:
                return index
        known = ", ".join(self.objects) or "it names none"
        raise UsageError(f"{quote(word)} is not an object of the vocabulary ({known})")


@dataclass(frozen=True)
class Catalog:
    """The class list of one benchmark, in the label order of its files."""

    name: str
    objects: tuple[str, ...]
    """Every object of the object label maps, also those without parts."""
    unseen_objects: tuple[str, ...]
    object_parts: tuple[ObjectPart, ...]
    seen: tuple[int, ...]
    """Indices into `object_parts` of the classes to train on."""
    ignore_label: int
    """The value of unlabelled pixels in the label files."""

    @classmethod
    def load(cls, name: str) -> Catalog:
        """Read a built-in catalogue; raises `UsageError` for a name not in `CATALOGS`."""
        if name not in CATALOGS:
            raise UsageError(f"unknown catalogue {name!r}: choose one of {', '.join(CATALOGS)}")
        content = json.loads(files("partclipseg").joinpath("data", "catalog", f"{name}.json").read_text("utf-8"))
        return cls(
            name=name,
            objects=tuple(content["objects"]),
            unseen_objects=tuple(content["unseen_objects"]),
            object_parts=tuple(ObjectPart(o, p) for o, p in content["object_parts"]),
            seen=tuple(content["seen_object_parts"]),
            ignore_label=content["ignore_label_in_files"],
        )

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Catalog | None:
        """Return the built-in catalogue with exactly these object-parts; None if there is none."""
        return next((found for found in map(cls.load, CATALOGS) if found.vocabulary == vocabulary), None)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return all object-parts, in label order."""
        return Vocabulary(self.object_parts)


def _distinct(words: Iterable[str], role: str) -> tuple[str, ...]:
    by_folded: dict[str, str] = {}
    for word in words:
        if by_folded.setdefault(word.casefold(), word) != word:
            raise UsageError(
                f"the {role}s {quote(by_folded[word.casefold()])} and {quote(word)} differ only in capitals, which "
                "the text tower does not see: spell them alike"
            )
    return tuple(sorted(by_folded.values()))
