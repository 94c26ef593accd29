"""Written words: one grammar, wherever they come from.

    text  = entry ((";" | new line) entry)*
    entry = object ":" part ("," part)*   |   name ("," name)*
    name  = object "'s " part | part

The names of an entry all have an object, or none has. The object ``any`` gives words without an object too. So no word
holds a comma, semicolon, colon or new line, and what `Vocabulary.to_text` prints reads back as it was.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from partclipseg.errors import UsageError

CATALOGS = ("pascal-part-116", "ade20k-part-234", "part-imagenet")
"""Names of the benchmarks whose class lists are built in; see `Catalog`."""

ANY = "any"
"""Object word of parts without an object."""

MAX_WORD = 200
"""Greatest number of characters of one word."""

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

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
"""Begin of a path on Windows."""

_POSSESSIVE = re.compile(r"'s(?=\s|$)")


class ObjectPart(NamedTuple):
    """One class: an object word and a part word."""

    object: str
    part: str

    @property
    def name(self) -> str:
        """Return the written form, ``dog's ear``, or ``handle`` for a part of any object."""
        return self.part if self.object == ANY else f"{self.object}'s {self.part}"

    @property
    def folded(self) -> ObjectPart:
        """Return the pair with both words case-folded, for comparisons."""
        return ObjectPart(self.object.casefold(), self.part.casefold())

    @classmethod
    def from_name(cls, name: str) -> ObjectPart:
        """Split ``"dog's ear"`` at the first ``'s`` that ends a word.

        An object such as *driver's cab* cannot be written this way: use the pair or the dictionary form. Raises
        `UsageError` where the ``'s`` or one of the two words is missing.
        """
        found = _POSSESSIVE.search(plain := plain_text(name))
        if not found:
            raise UsageError(f'{quote(name)} is not an object-part: write it as "dog\'s ear"')
        return cls(plain[: found.start()].strip(), plain[found.end() :].strip())


def read_pairs(text: str) -> list[ObjectPart]:
    """Read the pairs of ``"dog: head, tail; any: handle"`` or ``"dog's head, dog's tail; handle"``, in their order."""
    entries = filter(None, (entry.strip() for entry in re.split("[;\n]", plain_text(text))))
    return [pair for entry in entries for pair in (_parts_of_object(entry) if ":" in entry else _names(entry))]


def names_object(text: str) -> bool:
    """Whether written words name an object anywhere, as ``dog: ear`` and ``dog's ear`` do; a drive's letter is none."""
    plain = plain_text(text)
    return not _DRIVE.match(plain) and (":" in plain or bool(_POSSESSIVE.search(plain)))


def read_entry(entry: Any) -> Iterable[ObjectPart]:
    """Return the pairs of a list's entry: one, or those that the same text has where separators stand in it."""
    if len(separate(entry)) == 1:
        return [_pair(entry)]
    return [pair for some in re.split("[;\n]", plain_text(entry)) for pair in _names(some)]


def separate(entry: Any) -> list[Any]:
    """Split a list's entry at commas, semicolons and line ends; an entry that is no text is returned as it is."""
    if not isinstance(entry, str):
        return [entry]
    words = [word.strip() for word in re.split("[,;\n]", plain_text(entry))]
    if len(words) > 1 and not all(words):
        raise UsageError(f"{quote(entry)} has a comma, semicolon or line end too many: remove it")
    return words


def check_word(word: object, role: str, partner: object) -> str:
    """Return a word as a vocabulary stores it; `role` and the `partner` beside it are for messages.

    Raises `UsageError` for what is no text, for separators and invisible characters in it, and for more than `MAX_WORD`
    characters.
    """
    if not isinstance(word, str):
        raise UsageError(f"the {role} {quote(word)} (beside {quote(partner)}) must be a word; quote it in YAML")
    plain = plain_text(word)
    if not plain:
        raise UsageError(f"an entry has no {role}: {quote(partner)} stands alone")
    for character, called in _SEPARATORS.items():
        if character in plain:
            raise UsageError(
                f"the {role} {quote(word)} (beside {quote(partner)}) has {called}, which separates words: give "
                "each word an entry of its own, or write it without"
            )
    if hidden := next(filter(None, map(_hidden, " " + plain, plain, plain[1:] + " ")), None):
        if "\ud800" <= hidden <= "\udfff":
            raise UsageError(f"the {role} {quote(word)} is not valid Unicode: write it anew")
        raise UsageError(
            f"the {role} {quote(word)} has an invisible character (U+{ord(hidden):04X}): write the word without it"
        )
    if len(plain) > MAX_WORD:
        raise UsageError(
            f"the {role} {quote(word)} has {len(plain):,} characters, more than the limit of {MAX_WORD}: use a "
            "shorter word"
        )
    return " ".join(plain.split())


def plain_word(word: str) -> str:
    """Return a word as a vocabulary stores it: single blanks, straight apostrophes, Unicode in NFC."""
    return " ".join(plain_text(word).split())


def class_name(text: str) -> str:
    """Return a class's name, however written, in the form of `ObjectPart.name` and case-folded, for comparisons.

    ``dog: ear`` is ``dog's ear``; ``any: handle`` and ``any's handle`` are ``handle``.
    """
    folded = plain_word(text).casefold()
    owner, colon, part = folded.partition(":")
    name = ObjectPart(owner.strip(), part.strip()).name if colon else folded
    return name.removeprefix(f"{ANY}'s ")


def split_words(texts: Iterable[str]) -> tuple[str, ...]:
    """Split texts such as ``dog, bus``, the form of ``--objects``, into words, in their order."""
    words = (plain_word(word) for text in texts for word in re.split("[,;\n]", plain_text(text)))
    return tuple(word for word in words if word)


def check_no_file(text: str, failing: str = "neither a file nor a catalogue") -> None:
    """Raise `UsageError` for text without an object that looks like the name of a file or catalogue, mistyped.

    `failing` is what the sentence says of it.
    """
    plain = plain_text(text)
    looks_named = any(mark in plain for mark in "./\\") or get_close_matches(plain.casefold(), CATALOGS, cutoff=0.7)
    if looks_named and not names_object(text):
        raise UsageError(f"{quote(text)} is {failing} ({', '.join(CATALOGS)}); {_WRITTEN_AS}")


def quote(value: object) -> str:
    """Quote a value for an error: at most 80 characters, on one line, invisible characters escaped."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= 80 else f"{text[:76]} ..."
    return repr(text) if isinstance(value, str) else text


def plain_text(text: str) -> str:
    """Normalise text; NFC comes first, since it turns the Greek question mark into a semicolon."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    return text.translate(_SPELLINGS).strip()


def _parts_of_object(entry: str) -> Iterable[ObjectPart]:
    """Yield the pairs of ``dog: head, tail``."""
    object_word, _, part_words = entry.partition(":")
    object_word = object_word.strip()
    if "," in object_word:
        raise UsageError(
            f'{quote(object_word)} has a comma, so it cannot be an object: put ";" or a new line between objects, as '
            'in "dog: head, torso, leg, tail; bus: body, wheel"'
        )
    if not part_words.strip():
        word = quote(object_word)
        raise UsageError(f"{word} has no part: write it as {word[1:-1]}: head, torso, leg, tail")
    parts = [part.strip() for part in part_words.split(",")]
    if not all(parts):
        raise UsageError(_comma_too_many(entry))
    for part in parts:
        if ":" in part:
            raise UsageError(
                f"{quote(part)} has a colon, so it cannot be a part of {quote(object_word)}: put "
                '";" or a new line between objects, as in "dog: head, torso, leg, tail; bus: body, wheel"'
            )
        yield ObjectPart(object_word, part)


def _names(entry: str) -> Iterable[ObjectPart]:
    """Yield the pairs of ``dog's ear, dog's tail``, or of ``handle, wheel``, which have no object."""
    names = [name.strip() for name in entry.split(",")]
    if not all(names):
        raise UsageError(_comma_too_many(entry))
    if not any(map(_POSSESSIVE.search, names)):
        yield from (ObjectPart(ANY, name) for name in names)
        return
    owner = None
    for name in names:
        if not _POSSESSIVE.search(name):
            word = quote(name)[1:-1]
            remedy = f'"{owner}\'s {word}"' if owner else f'"dog\'s {word}"'
            raise UsageError(
                f"{quote(name)} names no object, while others of its entry do: write it as {remedy}, or after a "
                'semicolon if it is asked of any object'
            )
        pair = ObjectPart.from_name(name)
        owner = pair.object
        yield pair


def _comma_too_many(entry: str) -> str:
    return f"{quote(entry)} has a comma too many: remove it"


def _pair(entry: object) -> ObjectPart:
    if isinstance(entry, str):
        return ObjectPart.from_name(entry) if _POSSESSIVE.search(plain_text(entry)) else ObjectPart(ANY, entry)
    if isinstance(entry, Sequence) and not isinstance(entry, bytes) and len(entry) == 2:
        return ObjectPart(*entry)
    raise UsageError(f'{quote(entry)} is neither a name such as "dog\'s ear" nor a pair of object and part')


def _hidden(before: str, character: str, after: str) -> str | None:
    """Return the character if it is invisible: controls, direction marks, zero-width blanks, half surrogates."""
    if character in _JOINERS:
        return character if before.isascii() or after.isascii() else None
    hidden = unicodedata.category(character) in {"Cc", "Cf", "Cs"} and character != "\t"
    return character if hidden else None

