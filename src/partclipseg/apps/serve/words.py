"""Read the words of a request within limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from partclipseg.errors import UsageError
from partclipseg.json_file import distinct_keys
from partclipseg.vocabulary import CATALOGS, MAX_WORD, Vocabulary, check_no_file

_LONGEST_SENTENCE = 500


def read_words(words: str | Mapping[str, Any] | Sequence[Any], max_classes: int) -> Vocabulary:
    """Return the vocabulary of words as people write them. They are never a path: clients must not read the server's
    files.

    Args:
        words: ``"dog: head, torso, leg, tail"``, a catalogue's name, JSON text, a mapping, or a list of names.
        max_classes: maximum number of object-parts.

    Raises `UsageError` for wrong words, too many of them, or too long ones.
    """
    check_words(words, max_classes)
    if isinstance(words, str):
        vocabulary = _from_text(words, max_classes)
    elif isinstance(words, Mapping):
        vocabulary = Vocabulary.from_dict(words)
    else:
        vocabulary = Vocabulary.from_names(words)
    check_count(len(vocabulary), max_classes)
    for name in vocabulary.names:
        if not _is_unicode(name):
            raise UsageError(f"the word {name!a} is not valid Unicode: write it anew")
    return vocabulary


def check_words(words: Any, max_classes: int) -> None:
    """Raise `UsageError` for the first word that is too long, for too many words, and for nested lists.

    Values of other types are left to the parser.
    """
    if isinstance(words, str):
        check_count(len(words) // MAX_WORD, max_classes)  # longer texts are refused without parsing
        if words.lstrip()[:1] not in {"{", "["}:
            for word in re.split("[,;:\n]", words):
                _check_word(word.strip())
    elif isinstance(words, Mapping):
        check_count(len(words), max_classes)
        check_count(sum(len(parts) for parts in words.values() if isinstance(parts, list)), max_classes)
        for word, parts in words.items():
            _check_word(word)
            _check_list(parts if isinstance(parts, list) else [parts])
    elif isinstance(words, list):
        check_count(len(words), max_classes)
        for name in words:
            _check_list(name[:3] if isinstance(name, list) else [name])


def check_count(classes: int, max_classes: int) -> None:
    """Raise `UsageError` for too many classes."""
    if classes > max_classes:
        raise UsageError(f"{classes:,} classes are more than the limit of {max_classes:,}: ask for them in portions")


def shortened(sentence: str) -> str:
    """Return the sentence, without its middle if it quotes a long input."""
    if len(sentence) <= _LONGEST_SENTENCE:
        return sentence
    return f"{sentence[: _LONGEST_SENTENCE // 2]} ... {sentence[-_LONGEST_SENTENCE // 2 :]}"


def _check_list(words: Sequence[Any]) -> None:
    for word in words:
        if isinstance(word, list | dict):
            raise UsageError('the vocabulary is nested too deeply: write {"dog": ["head", "torso", "leg", "tail"]}')
        _check_word(word)


def _check_word(word: Any) -> None:
    if isinstance(word, str) and len(word) > MAX_WORD:
        raise UsageError(f"a word has {len(word):,} characters, more than the limit of {MAX_WORD}: use a shorter word")


def _is_unicode(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can encode
        return False
    return True


def _from_text(text: str, max_classes: int) -> Vocabulary:
    if text in CATALOGS:
        return Vocabulary.from_catalog(text)
    if text[0] not in "{[":
        check_no_file(text, "no catalogue")
        return Vocabulary.from_text(text)
    try:
        content = json.loads(text, object_pairs_hook=distinct_keys)
    except RecursionError:
        raise UsageError("the vocabulary begins like JSON but is not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"the vocabulary begins like JSON but is not valid JSON: {error}") from None
    check_words(content, max_classes)
    return Vocabulary.from_dict(content) if isinstance(content, dict) else Vocabulary.from_names(content)
