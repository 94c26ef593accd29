"""The words that stand for objects in reference mode, where the released code looks them up at a wrong index (D1).

That code reads an object's word at the object's index among all words, parts first, so that it is some part's word.
A model that was trained so does best, for each object that was trained, with the word that training read; for other
objects it does best with the word at the wrong index (docs/results.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping

from partclipseg.vocabulary import Vocabulary


def looked_up(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the word that the released code reads for each object of a list, `N_o`."""
    return (*vocabulary.parts, *vocabulary.objects)[: len(vocabulary.objects)]


def trained_words(vocabulary: Vocabulary) -> dict[str, str]:
    """Return the word that training on a list reads for each of its objects, by the object in lower case."""
    folded = (word.casefold() for word in vocabulary.objects)
    return dict(zip(folded, looked_up(vocabulary), strict=True))


def own_words(vocabulary: Vocabulary, trained: Mapping[str, str] | None) -> list[str]:
    """Return the word that stands for each object of a user's own list, `N_o`.

    The result is empty for a list with all `trained` objects, such as a benchmark's, which is read as the released code
    reads it, and for a model whose training list is not known.
    """
    folded = [word.casefold() for word in vocabulary.objects]
    if not trained or trained.keys() <= set(folded):
        return []
    return [trained.get(word, read) for word, read in zip(folded, looked_up(vocabulary), strict=True)]
