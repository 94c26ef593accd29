"""Words in, index arrays out: which object-parts a model is asked for.

An object-part is a pair such as *dog's ear*. A vocabulary holds the pairs in the caller's order, the sorted
word lists of objects and generalized parts, and the arrays that point from each pair into those lists.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from partclipseg.errors import UsageError
from partclipseg.files import write_text

Split = Literal["seen", "all"]

CATALOGS = ("pascal-part-116", "ade20k-part-234", "part-imagenet")


class ObjectPart(NamedTuple):
    """One class: an object word and a part word."""

    object: str
    part: str

    @property
    def name(self) -> str:
        """As people write it, ``dog's ear``."""
        return f"{self.object}'s {self.part}"

    @classmethod
    def from_name(cls, name: str) -> ObjectPart:
        """Split ``"dog's ear"`` at its first ``'s``.

        An object word that itself contains ``'s`` cannot be written this way: use the pair or the dictionary
        form. Raises `UsageError` where the ``'s`` or one of the two words is missing.
        """
        object_word, separator, part_word = name.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").partition("'s")
        if not separator:
            raise UsageError(f"{name!r} is not an object-part: write it as \"dog's ear\"")
        return cls(object_word.strip(), part_word.strip())


@dataclass(frozen=True)
class Vocabulary:
    """An ordered, duplicate-free set of object-parts and the indices that a model needs.

    Words keep the caller's spelling; surrounding blanks are dropped and Unicode is normalised to NFC. Two words
    that differ only in capitals read the same to the text tower, so having both is an error.

    Raises `UsageError`, naming the entry, for an empty vocabulary and for empty or duplicate entries.
    """

    object_parts: tuple[ObjectPart, ...]
    objects: tuple[str, ...] = field(init=False)
    """Sorted object words, `N_o`; only objects that have parts."""
    parts: tuple[str, ...] = field(init=False)
    """Sorted generalized part words, `N_p`."""

    def __post_init__(self) -> None:
        pairs = tuple(ObjectPart(_word(o, "object", p), _word(p, "part", o)) for o, p in self.object_parts)
        if not pairs:
            raise UsageError('the vocabulary is empty: name at least one object-part, such as "dog: ear"')
        seen: dict[ObjectPart, ObjectPart] = {}
        for pair in pairs:
            folded = ObjectPart(pair.object.casefold(), pair.part.casefold())
            if folded in seen:
                raise UsageError(f"{pair.name!r} is in the vocabulary twice: keep one of the two")
            seen[folded] = pair
        objects = _distinct((pair.object for pair in pairs), "object")
        parts = _distinct((pair.part for pair in pairs), "part")
        object.__setattr__(self, "object_parts", pairs)
        object.__setattr__(self, "objects", objects)
        object.__setattr__(self, "parts", parts)

    # -- constructors -----------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, words: Mapping[str, Iterable[str]]) -> Vocabulary:
        """``{"dog": ["ear", "tail"]}``: object word to part words."""
        pairs: list[ObjectPart] = []
        for object_word, part_words in words.items():
            if part_words is None or isinstance(part_words, str) or not isinstance(part_words, Iterable):
                raise UsageError(f"the parts of {object_word!r} must be a list of words, not {part_words!r}")
            members = [ObjectPart(object_word, part) for part in part_words]
            if not members:
                raise UsageError(f"{object_word!r} has no part: name one, or leave the object out")
            pairs.extend(members)
        return cls(tuple(pairs))

    @classmethod
    def from_names(cls, names: Iterable[str | Sequence[str]]) -> Vocabulary:
        """``["dog's ear", "bus's wheel"]``: one name, or one pair ``("dog", "ear")``, for each object-part."""
        if isinstance(names, str):
            raise UsageError(f"expected a list of names, got the single string {names!r}")
        return cls(tuple(_pair(name) for name in names))

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """``"dog: ear, tail; bus: wheel"``: the short form of the command line and the web page.

        Entries are separated by ``;`` or line ends; naming an object again adds to it.
        """
        pairs: list[ObjectPart] = []
        for entry in filter(None, (entry.strip() for entry in re.split(r"[;\n]", text))):
            object_word, colon, part_words = entry.partition(":")
            if not colon:
                pairs.append(ObjectPart.from_name(entry))
                continue
            members = [ObjectPart(object_word, part) for part in part_words.split(",")]
            for member in members:
                if ":" in member.part:
                    raise UsageError(
                        f"{member.part.strip()!r} has a colon, so it cannot be a part of {object_word.strip()!r}: put "
                        '";" or a new line between objects, as in "dog: ear, tail; bus: wheel"'
                    )
            if not part_words.strip():
                raise UsageError(f"{object_word.strip()!r} has no part: write it as {entry} ear, tail")
            pairs.extend(members)
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
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the vocabulary file {path}: {error}") from None
        try:
            return cls._from_file_content(path, text)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    @classmethod
    def _from_file_content(cls, path: Path, text: str) -> Vocabulary:
        if path.suffix.lower() not in {".yaml", ".yml", ".json"}:
            lines = (line.strip() for line in text.splitlines())
            return cls.from_text("\n".join(line for line in lines if line and not line.startswith("#")))
        import yaml

        try:
            # JSON goes through its own parser: YAML 1.1 reads some JSON escapes differently.
            content: Any = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
        except (json.JSONDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"not a valid {path.suffix[1:].upper()} file: {error}") from None
        if isinstance(content, Mapping):
            return cls.from_dict(content)
        if isinstance(content, list):
            return cls.from_names(content)
        raise UsageError("expected a mapping from object to parts, or a list of names")

    @classmethod
    def from_catalog(cls, name: str, split: Split = "all") -> Vocabulary:
        """The class list of a benchmark, `CATALOGS`; ``split="seen"`` keeps the object-parts to train on."""
        catalog = Catalog.load(name)
        if split == "all":
            return catalog.vocabulary
        if split == "seen":
            return cls(tuple(catalog.object_parts[index] for index in catalog.seen))
        raise UsageError(f"unknown split {split!r}: choose 'seen' or 'all'")

    @classmethod
    def load(cls, words: Vocabulary | Mapping[str, Iterable[str]] | Iterable[str] | str | Path) -> Vocabulary:
        """Whatever a user may hand in: a vocabulary, dictionary, list of names, catalogue name, file or text."""
        if isinstance(words, Vocabulary):
            return words
        if isinstance(words, Mapping):
            return cls.from_dict(words)
        if isinstance(words, Path):
            return cls.from_file(words)
        if not isinstance(words, str):
            return cls.from_names(words)
        if words in CATALOGS:
            return cls.from_catalog(words)
        if (":" not in words and "'s" not in words) or Path(words).suffix in {".yaml", ".yml", ".json", ".txt"}:
            if not Path(words).is_file():
                raise UsageError(
                    f"{words!r} is neither a file nor a catalogue ({', '.join(CATALOGS)}); "
                    'words are written as "dog: ear, tail; bus: wheel"'
                )
            return cls.from_file(words)
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

    @property
    def names(self) -> tuple[str, ...]:
        """``dog's ear`` for each object-part, in label order."""
        return tuple(pair.name for pair in self.object_parts)

    def __len__(self) -> int:
        return len(self.object_parts)

    def to_dict(self) -> dict[str, list[str]]:
        """Object word to part words; the inverse of `from_dict` up to the order across objects."""
        words: dict[str, list[str]] = {}
        for object_word, part_word in self.object_parts:
            words.setdefault(object_word, []).append(part_word)
        return words

    def save(self, path: str | Path) -> None:
        """Write JSON that `from_file` reads back exactly: a list of [object, part] in label order."""
        write_text(Path(path), json.dumps(self.object_parts, ensure_ascii=False) + "\n")

    def object_index(self, word: str) -> int:
        """Index of an object word, whatever its capitals; raises `UsageError` naming the known ones."""
        folded = _clean(word).casefold()
        for index, known in enumerate(self.objects):
            if known.casefold() == folded:
                return index
        raise UsageError(f"{word!r} is not an object of the vocabulary ({', '.join(self.objects)})")


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

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """All object-parts, in label order."""
        return Vocabulary(self.object_parts)


def _clean(word: str) -> str:
    return unicodedata.normalize("NFC", " ".join(word.split()))


def _pair(entry: object) -> ObjectPart:
    if isinstance(entry, str):
        return ObjectPart.from_name(entry)
    if isinstance(entry, Sequence) and len(entry) == 2:
        return ObjectPart(*entry)
    raise UsageError(f"{entry!r} is neither a name such as \"dog's ear\" nor a pair of object and part")


def _word(word: object, role: str, partner: object) -> str:
    if not isinstance(word, str):
        raise UsageError(f"the {role} {word!r} (beside {partner!r}) must be a word; quote it in YAML")
    if not (cleaned := _clean(word)):
        raise UsageError(f"an entry has no {role}: {partner!r} stands alone")
    return cleaned


def _distinct(words: Iterable[str], role: str) -> tuple[str, ...]:
    by_folded: dict[str, str] = {}
    for word in words:
        if by_folded.setdefault(word.casefold(), word) != word:
            raise UsageError(
                f"the {role}s {by_folded[word.casefold()]!r} and {word!r} differ only in capitals, which the "
                "text tower does not see: spell them alike"
            )
    return tuple(sorted(by_folded.values()))
