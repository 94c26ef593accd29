"""Score a model on words that it was not trained on: which of a data set's words its training words share.

In OV-PARTS' cross-dataset task no class is mapped to another: a model that was trained on one data set is asked the
words of another, as they are spelt there, and one mean over all of them is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

from partclipseg.counts import count_of
from partclipseg.evaluation.state import text_digest
from partclipseg.vocabulary import Vocabulary

_NAMED = 9
"""Maximum number of objects that a sentence names."""


@dataclass(frozen=True)
class SharedWords:
    """Words that two vocabularies share; capitals do not count."""

    pairs: tuple[int, ...]
    """Indices into the asked vocabulary of the object-parts that the training words have too."""
    parts: tuple[str, ...]
    """Part words of the asked vocabulary that are among the training words."""
    objects: tuple[str, ...]
    """Object words of the asked vocabulary that are among the training words."""
    asked: Vocabulary
    digest: str = ""
    """Short digest of the training words, to compare with those of saved work."""

    @classmethod
    def of(cls, training: Vocabulary, asked: Vocabulary) -> SharedWords:
        """Compare the words that a model was trained on with those that it is asked."""
        trained = {pair.folded for pair in training.object_parts}
        parts, objects = ({word.casefold() for word in words} for words in (training.parts, training.objects))
        return cls(
            tuple(index for index, pair in enumerate(asked.object_parts) if pair.folded in trained),
            tuple(word for word in asked.parts if word.casefold() in parts),
            tuple(word for word in asked.objects if word.casefold() in objects),
            asked,
            text_digest(training.names),
        )

    def sentence(self) -> str:
        """Say how many of the asked words are training words, and of which objects the shared object-parts are."""
        owners: dict[str, int] = {}
        for index in self.pairs:
            word = self.asked.object_parts[index].object
            owners[word] = owners.get(word, 0) + 1
        counts = list(owners.items())
        shown = len(counts) if len(counts) == _NAMED + 1 else _NAMED
        named = ", ".join(f"{count} of {word}" for word, count in counts[:shown])
        if others := counts[shown:]:
            named += f", {sum(count for _, count in others)} of {count_of(len(others), 'other object')}"
        return (
            f"of the words that are asked, the model was trained on {len(self.pairs)} of "
            f"{count_of(len(self.asked), 'object-part')}{f' ({named})' if named else ''}, {len(self.parts)} of "
            f"{count_of(len(self.asked.parts), 'part word')} and {len(self.objects)} of "
            f"{count_of(len(self.asked.objects), 'object word')}"
        )
