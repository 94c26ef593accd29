"""Vocabularies: the object-parts that a model is asked for, and their index arrays.

An object-part is a pair such as *dog's ear*. A vocabulary holds the pairs in the caller's order, the sorted
word lists of objects and generalized parts, and the arrays that point from each pair into those lists.

A part word without an object, such as *handle*, asks for this part of any object. `ANY` stands for its object.

Written words follow one grammar, wherever they come from:

    text  = entry ((";" | new line) entry)*
    entry = object ":" part ("," part)*   |   name ("," name)*
    name  = object "'s " part | part

The names of an entry all have an object, or none has. The object ``any`` gives words without an object too.

so no word holds a comma, semicolon, colon or new line, and what `Vocabulary.to_text` prints reads back as it was.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from partclipseg.errors import UsageError
from partclipseg.files import is_file, write_text

CatalogSplit = Literal["seen", "all"]

CATALOGS = ("pascal-part-116", "ade20k-part-234", "part-imagenet")

ANY = "any"
"""Object word of parts without an object."""

MAX_WORD = 200
"""Greatest number of characters of one word."""

_FILE_SUFFIXES = {".yaml", ".yml", ".json", ".txt"}
_WRITTEN_AS = 'words are written as "dog: head, torso, leg, tail; bus: body, wheel"'
_SEPARATORS = {",": "a comma", ";": "a semicolon", ":": "a colon", "\n": "a new line"}
_SPELLINGS = str.maketrans(
    {
        **dict.fromkeys("’‘‛ʼ′´`＇", "'"),
        **dict.fromkeys("，、﹐﹑､،", ","),
        **dict.fromkeys("；﹔؛", ";"),
        **dict.fromkeys("：﹕", ":"),
        **dict.fromkeys("\r\x85\u2028\u2029", "\n"),
    }
)
_JOINERS = "\u200c\u200d"
"""Zero-width characters that Persian, Hindi and emoji need between two characters; ASCII never needs them."""


class ObjectPart(NamedTuple):
    """One class: an object word and a part word."""

    object: str
    part: str

    @property
    def name(self) -> str:
        """Return the written form, ``dog's ear``, or ``handle`` for a part of any object."""
        return self.part if self.object == ANY else f"{self.object}'s {self.part}"

    @classmethod
    def from_name(cls, name: str) -> ObjectPart:
        """Split ``"dog's ear"`` at the first ``'s`` that ends a word.

        An object such as *driver's cab* cannot be written this way: use the pair or the dictionary form. Raises
        `UsageError` where the ``'s`` or one of the two words is missing.
        """
        found = _POSSESSIVE.search(plain := _plain(name))
        if not found:
            raise UsageError(f'{_short(name)} is not an object-part: write it as "dog\'s ear"')
        return cls(plain[: found.start()].strip(), plain[found.end() :].strip())


_POSSESSIVE = re.compile(r"'s(?=\s|$)")


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
        pairs = tuple(ObjectPart(_word(o, "object", p), _word(p, "part", o)) for o, p in self.object_parts)
        if not pairs:
            raise UsageError('the vocabulary is empty: name at least one object-part, such as "dog: head"')
        seen: dict[ObjectPart, ObjectPart] = {}
        for pair in pairs:
            folded = ObjectPart(pair.object.casefold(), pair.part.casefold())
            if folded in seen:
                raise UsageError(f"{pair.name!r} is in the vocabulary twice: keep one of the two")
            seen[folded] = pair
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
                    f"the parts of {_short(object_word)} must be a list of words, not {_short(part_words)}: write it "
                    'as {"dog": ["head", "torso"]}'
                )
            members = [ObjectPart(object_word, part) for entry in part_words for part in _separated(entry)]
            if not members:
                raise UsageError(f"{_short(object_word)} has no part: name one, or leave the object out")
            pairs.extend(members)
        return cls(tuple(pairs))

    @classmethod
    def from_names(cls, names: Iterable[str | Sequence[str]]) -> Vocabulary:
        """Make a vocabulary from ``["dog's ear", "handle"]``: a name, or a pair ``("dog", "ear")``, per class.

        A comma, semicolon or line end within a name separates names, as in text; a pair is one class.
        """
        if isinstance(names, str | bytes) or not isinstance(names, Iterable):
            raise UsageError(f'expected a list of names such as ["dog\'s ear"], not {_short(names)}')
        return cls(tuple(pair for entry in names for pair in _listed(entry)))

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """Read ``"dog: head, tail; any: handle"`` or ``"dog's head, dog's tail; handle"``, as on the command line.

        Entries are separated by ``;`` or line ends; naming an object again adds to it.
        """
        pairs: list[ObjectPart] = []
        for entry in filter(None, (entry.strip() for entry in re.split("[;\n]", _plain(text)))):
            pairs.extend(_parts_of_object(entry) if ":" in entry else _names(entry))
        return cls(tuple(pairs))

    @classmethod
    def from_file(cls, path: str | Path) -> Vocabulary:
        """Read ``.yaml``/``.yml``/``.json`` (object to parts, or a list of names) or text, one name a line.

        In text files blank lines and lines that start with ``#`` are skipped. Raises `UsageError` for a missing
        or malformed file.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"cannot read the vocabulary file {path} ({reason}): check the path") from None
        except ValueError as error:  # not a valid path, or not text
            raise UsageError(f"cannot read the vocabulary file {path} ({error}): save it as UTF-8 text") from None
        try:
            return cls._from_file_content(path, text)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    @classmethod
    def _from_file_content(cls, path: Path, text: str) -> Vocabulary:
        if path.suffix.lower() not in {".yaml", ".yml", ".json"}:
            lines = (line.strip() for line in text.translate(_SPELLINGS).split("\n"))
            return cls.from_text("\n".join(line for line in lines if not line.startswith("#")))
        kind = path.suffix[1:].upper()
        try:
            # JSON goes through its own parser: YAML 1.1 reads some JSON escapes differently.
            content: Any = json.loads(text, object_pairs_hook=_distinct_keys) if kind == "JSON" else _read_yaml(text)
        except UsageError:
            raise
        except RecursionError:
            raise UsageError(f"the {kind} is nested too deeply: give a mapping from object to parts") from None
        except ValueError as error:
            raise UsageError(f"not a valid {kind} file: {' '.join(str(error).split())}") from None
        if isinstance(content, Mapping):
            return cls.from_dict(content)
        if isinstance(content, list):
            return cls.from_names(content)
        raise UsageError("expected a mapping from object to parts, or a list of names")

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
        """Make a vocabulary from a vocabulary, dictionary, list of names, catalogue name, file or text."""
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
        plain = _plain(words)
        if (":" in plain or _POSSESSIVE.search(plain)) and Path(words).suffix.lower() not in _FILE_SUFFIXES:
            return cls.from_text(words)
        if is_file(words):
            return cls.from_file(words)
        if not plain.strip(",; \n\t"):
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
                f"{_short(self.anywhere[0])} has no object, and {what} needs one for every part: write it as "
                f'"kettle: {_short(self.anywhere[0])[1:-1]}"'
            )
        return self

    def to_text(self) -> str:
        """Return ``dog: head, tail; any: handle``; the inverse of `from_text`."""
        groups = groupby(self.classes, key=lambda pair: pair.object)
        return "; ".join(f"{word}: {', '.join(pair.part for pair in pairs)}" for word, pairs in groups)

    def to_dict(self) -> dict[str, list[str]]:
        """Return object word to part words; the inverse of `from_dict` up to the order across objects."""
        words: dict[str, list[str]] = {}
        for object_word, part_word in self.classes:
            words.setdefault(object_word, []).append(part_word)
        return words

    def save(self, path: str | Path) -> None:
        """Write JSON that `from_file` reads back exactly: a list of [object, part] in label order."""
        write_text(Path(path), json.dumps(self.classes, ensure_ascii=False) + "\n")

    def object_index(self, word: str) -> int:
        """Return the index of an object word, ignoring case; raises `UsageError` naming the known ones."""
        folded = plain_word(word).casefold() if isinstance(word, str) else None
        for index, known in enumerate(self.objects):
            if known.casefold() == folded:
                return index
        known = ", ".join(self.objects) or "it names none"
        raise UsageError(f"{_short(word)} is not an object of the vocabulary ({known})")


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


def plain_word(word: str) -> str:
    """Return a word as a vocabulary stores it: single blanks, straight apostrophes, Unicode in NFC."""
    return " ".join(_plain(word).split())


def check_no_file(text: str, failing: str = "neither a file nor a catalogue") -> None:
    """Raise `UsageError` for text without an object that looks like the name of a file or catalogue, mistyped.

    `failing` is what the sentence says of it.
    """
    plain = _plain(text)
    looks_named = any(mark in plain for mark in "./\\") or get_close_matches(plain.casefold(), CATALOGS, cutoff=0.7)
    if ":" not in plain and not _POSSESSIVE.search(plain) and looks_named:
        raise UsageError(f"{_short(text)} is {failing} ({', '.join(CATALOGS)}); {_WRITTEN_AS}")


def split_words(texts: Iterable[str]) -> tuple[str, ...]:
    """Split texts such as ``dog, bus``, the form of ``--objects``, into words, in their order."""
    words = (plain_word(word) for text in texts for word in re.split("[,;\n]", _plain(text)))
    return tuple(word for word in words if word)


def _plain(text: str) -> str:
    """Normalise text; NFC comes first, since it turns the Greek question mark into a semicolon."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    return text.translate(_SPELLINGS).strip()


def _parts_of_object(entry: str) -> Iterable[ObjectPart]:
    """Yield the pairs of ``dog: head, tail``."""
    object_word, _, part_words = entry.partition(":")
    object_word = object_word.strip()
    if "," in object_word:
        raise UsageError(
            f'{_short(object_word)} has a comma, so it cannot be an object: put ";" or a new line between objects, as '
            'in "dog: head, torso, leg, tail; bus: body, wheel"'
        )
    if not part_words.strip():
        word = _short(object_word)
        raise UsageError(f"{word} has no part: write it as {word[1:-1]}: head, torso, leg, tail")
    for part in map(str.strip, part_words.split(",")):
        if ":" in part:
            raise UsageError(
                f"{_short(part)} has a colon, so it cannot be a part of {_short(object_word)}: put "
                '";" or a new line between objects, as in "dog: head, torso, leg, tail; bus: body, wheel"'
            )
        yield ObjectPart(object_word, part)


def _separated(entry: Any) -> list[Any]:
    """Return the words of a list's entry, which commas, semicolons and line ends separate; no text as it is."""
    if not isinstance(entry, str):
        return [entry]
    words = [word.strip() for word in re.split("[,;\n]", _plain(entry))]
    if len(words) > 1 and not all(words):
        raise UsageError(f"{_short(entry)} has a comma, semicolon or line end too many: remove it")
    return words


def _listed(entry: Any) -> Iterable[ObjectPart]:
    """Return the pairs of a list's entry: one, or those that the same text has where separators stand in it."""
    if len(_separated(entry)) == 1:
        return [_pair(entry)]
    return [pair for some in re.split("[;\n]", _plain(entry)) for pair in _names(some)]


def _names(entry: str) -> Iterable[ObjectPart]:
    """Yield the pairs of ``dog's ear, dog's tail``, or of ``handle, wheel``, which have no object."""
    names = [name.strip() for name in entry.split(",")]
    if not all(names):
        raise UsageError(f"{_short(entry)} has a comma too many: remove it")
    if not any(map(_POSSESSIVE.search, names)):
        yield from (ObjectPart(ANY, name) for name in names)
        return
    owner = None
    for name in names:
        if not _POSSESSIVE.search(name):
            word = _short(name)[1:-1]
            remedy = f'"{owner}\'s {word}"' if owner else f'"dog\'s {word}"'
            raise UsageError(
                f"{_short(name)} names no object, while others of its entry do: write it as {remedy}, or after a "
                'semicolon if it is asked of any object'
            )
        pair = ObjectPart.from_name(name)
        owner = pair.object
        yield pair


def _pair(entry: object) -> ObjectPart:
    if isinstance(entry, str):
        return ObjectPart.from_name(entry) if _POSSESSIVE.search(_plain(entry)) else ObjectPart(ANY, entry)
    if isinstance(entry, Sequence) and not isinstance(entry, bytes) and len(entry) == 2:
        return ObjectPart(*entry)
    raise UsageError(f'{_short(entry)} is neither a name such as "dog\'s ear" nor a pair of object and part')


def _word(word: object, role: str, partner: object) -> str:
    if not isinstance(word, str):
        raise UsageError(f"the {role} {_short(word)} (beside {_short(partner)}) must be a word; quote it in YAML")
    plain = _plain(word)
    if not plain:
        raise UsageError(f"an entry has no {role}: {_short(partner)} stands alone")
    for character, called in _SEPARATORS.items():
        if character in plain:
            raise UsageError(
                f"the {role} {_short(word)} (beside {_short(partner)}) has {called}, which separates words: give "
                "each word an entry of its own, or write it without"
            )
    if hidden := next(filter(None, map(_hidden, " " + plain, plain, plain[1:] + " ")), None):
        if "\ud800" <= hidden <= "\udfff":
            raise UsageError(f"a word that is not valid Unicode: {_short(word)}: write it anew")
        raise UsageError(
            f"the {role} {_short(word)} has an invisible character (U+{ord(hidden):04X}): write the word without it"
        )
    if len(plain) > MAX_WORD:
        raise UsageError(
            f"the {role} {_short(word)} has {len(plain):,} characters, more than the limit of {MAX_WORD}: use a "
            "shorter word"
        )
    return " ".join(plain.split())


def _hidden(before: str, character: str, after: str) -> str | None:
    """Return the character if it is invisible: controls, direction marks, zero-width blanks, half surrogates."""
    if character in _JOINERS:
        return character if before.isascii() or after.isascii() else None
    hidden = unicodedata.category(character) in {"Cc", "Cf", "Cs"} and character != "\t"
    return character if hidden else None


def _short(value: object) -> str:
    """Quote a value for an error: at most 80 characters, on one line, invisible characters escaped."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= 80 else f"{text[:76]} ..."
    return repr(text) if isinstance(value, str) else text


def _distinct_keys(items: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a mapping; equal keys are errors, where JSON and YAML would silently keep the last one."""
    mapping: dict[Any, Any] = {}
    for key, value in items:
        if key in mapping:
            raise UsageError(f"{_short(key)} stands in it twice: make one entry of the two")
        mapping[key] = value
    return mapping


def _read_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            mapping = super().construct_mapping(node, deep)
            _distinct_keys([(self.construct_object(key, deep=True), None) for key in own])
            return mapping

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _distinct(words: Iterable[str], role: str) -> tuple[str, ...]:
    by_folded: dict[str, str] = {}
    for word in words:
        if by_folded.setdefault(word.casefold(), word) != word:
            raise UsageError(
                f"the {role}s {_short(by_folded[word.casefold()])} and {_short(word)} differ only in capitals, which "
                "the text tower does not see: spell them alike"
            )
    return tuple(sorted(by_folded.values()))
