"""Word-level tokenizer for the tiny model: each word of PartShapes is one token."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# The end token must not have id 2, which CLIP's text tower takes for the mark of an old, wrong configuration.
SPECIAL = ("<pad>", "<unknown>", "<start>", "<end>")


def build_tokenizer(words: Sequence[str], max_length: int, end_last: bool = False) -> PreTrainedTokenizerFast:
    """Build a tokenizer of `<start> words… <end>`, lower case; a word that is not in `words` becomes `<unknown>`.

    With `end_last` the end token has the greatest id, as text towers need it that find the end by the greatest.
    """
    tokens = [*SPECIAL, *sorted({word.lower() for word in words})]
    if end_last:
        tokens.append(tokens.pop(SPECIAL.index("<end>")))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(token, vocabulary[token]) for token in ("<start>", "<end>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unknown>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=max_length,
    )
