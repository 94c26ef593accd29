"""Files in a model's directory or on the hub beside the weights: configuration, tokenizer, words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer, CLIPSegConfig

from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.files import is_directory, is_file
from partclipseg.models.card import model_card
from partclipseg.models.hub import TOKENIZER_FILES, TOKENIZER_WORDS, VOCABULARY
from partclipseg.models.names import REMEDY, find_file, find_optional_file, quoted_name
from partclipseg.models.reading import library_errors, read_json_table, without_bars
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.models.interface import PartModel

_MAX_VOCABULARY_BYTES = 16 * 2**20

_TOKENIZING = Lock()

_TOKENIZER_REMEDY = (
    "give a directory with the files of the one that the model was trained with (tokenizer.json and "
    "tokenizer_config.json, or vocab.json and merges.txt)"
)


def read_config(name: Any, remedy: str = REMEDY, **hub_options: Any) -> dict[str, Any]:
    """Read the configuration of a directory or hub name; raises `PartCLIPSegError`, with `remedy`, if there is none."""
    path = find_file(name, "config.json", remedy, **hub_options)
    if not is_file(path):
        raise PartCLIPSegError(f"{name} has no config.json: {remedy}")
    return read_json_table(path)


def stated_type(kind: Any) -> str:
    """Describe the ``model_type`` of a configuration, for messages about a model of another type."""
    return f"a model of type {quoted_name(kind)}" if isinstance(kind, str) else "a config.json without a model_type"


def load_tokenizer(name: str | Path, text_config: Any = None) -> Any:
    """Load the tokenizer in a directory or on the hub, checked against the text tower's configuration if it is given.

    Raises `PartCLIPSegError` where there is none, or where it is damaged or another model's.
    """
    # Check first: if the hub cannot be reached, each file of a tokenizer would wait for a timeout.
    folder = find_file(name, "tokenizer_config.json").parent
    # transformers makes a tokenizer without words from a folder without these.
    if is_directory(name) and not any(is_file(folder / file) for file in TOKENIZER_WORDS):
        raise PartCLIPSegError(f"{name} has no tokenizer: {_TOKENIZER_REMEDY}")
    for file in (*TOKENIZER_FILES, "added_tokens.json"):
        if file.endswith(".json") and is_file(folder / file):
            read_json_table(folder / file)
    with library_errors(f"the tokenizer in {name} cannot be loaded: {_TOKENIZER_REMEDY}"):
        # Without a given configuration, transformers warns that it does not know our model types.
        tokenizer = AutoTokenizer.from_pretrained(name, config=CLIPSegConfig(), trust_remote_code=False)
        tokenizer.padding_side = "right"  # the text tower is causal and reads no mask
    if text_config is not None:
        check_tokenizer(tokenizer, text_config, name)
    return tokenizer


def check_tokenizer(tokenizer: Any, text_config: Any, name: str | Path) -> None:
    """Raise `PartCLIPSegError` if `tokenizer`, from `name`, makes tokens that the text tower does not know.

    Every text must end with the end token, at which the text tower reads.
    """
    with library_errors(f"the tokenizer in {name} cannot be used: {_TOKENIZER_REMEDY}"):
        size = len(tokenizer)
        ids = tokenizer(["dog", "a striped \N{SNOWMAN} qzx"], padding=True, return_tensors="pt")["input_ids"]
        largest = max(size - 1, int(ids.max()), *tokenizer.get_vocab().values())
    if largest >= text_config.vocab_size:
        raise PartCLIPSegError(
            f"the tokenizer in {name} has {largest + 1:,} tokens and the text tower {text_config.vocab_size:,}: "
            f"{_TOKENIZER_REMEDY}"
        )
    end = text_config.eos_token_id
    if end != 2 and not bool((ids == end).any(1).all()):  # 2 stands for the largest token in old files of CLIP
        raise PartCLIPSegError(
            f"the tokenizer in {name} does not end a text with the token {end}, at which the text tower reads: "
            f"{_TOKENIZER_REMEDY}"
        )


def tokenize(tokenizer: Any, texts: Sequence[str], **options: Any) -> Any:
    """Call a tokenizer that several threads share, one after the other.

    Each call sets the tokenizer's padding: beside another call one of the two fails, or pads as the other asks for.
    """
    with _TOKENIZING:
        return tokenizer(list(texts), **options)


def unknown_texts(tokenizer: Any, texts: Iterable[str], token_ids: Iterable[Sequence[int]]) -> list[str]:
    """Return the texts that have words which the tokenizer has never seen; `token_ids` are those of each text.

    CLIP's tokenizer splits unknown words into pieces and gives none; those that come with the package know whole words.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown == tokenizer.eos_token_id:
        return []
    return [text for text, ids in zip(texts, token_ids, strict=True) if unknown in ids]


def load_vocabulary(name: str | Path) -> Vocabulary | None:
    """Load the model's own words, from its directory or the hub; None without any.

    Raises `PartCLIPSegError` for a damaged file.
    """
    path = find_optional_file(name, VOCABULARY)
    if path is None:
        return None
    remedy = "remove the file, and give words at each call"
    if path.stat().st_size > _MAX_VOCABULARY_BYTES:
        raise PartCLIPSegError(f"{path} is larger than any list of words: {remedy}")
    try:
        return Vocabulary.from_file(path)
    except (ValueError, TypeError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise PartCLIPSegError(f"{path} cannot be used as the model's words: {said}; {remedy}") from error


def write_directory(
    folder: Path, model: PartModel, tokenizer: Any, vocabulary: Vocabulary | None, name: str | None = None
) -> None:
    """Write all files of a model that `PartSegmenter.from_pretrained` takes into an existing folder.

    Weights and configuration, the tokenizer, ``vocabulary.json`` if there are words, and the model card, whose
    examples load the model by `name`.
    """
    with without_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if vocabulary is not None:
        vocabulary.save(folder / VOCABULARY)
    (folder / "README.md").write_text(model_card(model, vocabulary, name or "MODEL"), encoding="utf-8")
