"""Add words that a start model's tokenizer lacks.

CLIP's tokenizer splits any word into known pieces and needs nothing. That of the built-in model knows whole words
only, and maps all others to the same `<unknown>`: trained on *hood* and *tailgate*, the model could not tell them
apart. So the words of the vocabulary are added to the tokenizer, and their embeddings to the text tower.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from partclipseg.models.interface import PartModel
from partclipseg.models.tokens import add_words, is_word_level

logger = logging.getLogger(__name__)


def learn_new_words(model: PartModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """Give `model` and `tokenizer`, in place, the words of `prompts` that a word-level tokenizer lacks.

    New embeddings are drawn from torch's global generator, with mean and deviation of the old ones in each dimension.
    Returns the new words, sorted; none for tokenizers of other kinds.
    """
    if not is_word_level(tokenizer):
        return []
    backend: Any = tokenizer.backend_tokenizer
    known = tokenizer.get_vocab()
    pieces = {
        word
        for prompt in prompts
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(prompt))
    }
    words = sorted(pieces - known.keys())
    if not words:
        return []
    add_words(tokenizer, words)
    model.add_tokens(len(words))
    logger.warning(
        "the start model has never seen these words and learns them from these photos alone: %s", ", ".join(words)
    )
    return words
