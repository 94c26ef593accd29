"""A released checkpoint file becomes a model's directory, with tokenizer and words, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import whole_directory
from partclipseg.models.directory import check_tokenizer, load_tokenizer
from partclipseg.models.reading import check_file
from partclipseg.models.registry import family, family_of_file, load_file
from partclipseg.models.tokenizer import clip_tokenizer
from partclipseg.vocabulary import Vocabulary
from partclipseg.writing import writing


def convert_file(
    path: Path,
    output: Path,
    vocabulary: Vocabulary | None,
    config: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> Any:
    """Write the model in a released file as a directory, and return it.

    Args:
        path: the ``.pth`` file.
        output: the directory to write; one that stands there is replaced.
        vocabulary: words for calls that give none.
        config: the reference's own configuration; None stands for the released sizes.
        tokenizer: directory or hub name; None is CLIP's own.

    Raises `PartCLIPSegError` for a file that does not fit, a tokenizer of another size, or a folder that cannot be
    written to.
    """
    check_file(path)
    expected: Any = family(family_of_file(path)).config_class
    text_config = expected.from_reference(config).text_config
    words = fitting_tokenizer(clip_tokenizer() if tokenizer is None else tokenizer, text_config)
    model = load_file(path, config)
    write_model(model, words, output, vocabulary)
    return model


def write_model(
    model: Any, tokenizer: Any, output: Path, vocabulary: Vocabulary | None, notes: Mapping[str, str] | None = None
) -> None:
    """Write a model as a directory, whole or not at all; `notes` are more files, text by name."""
    with writing(output), whole_directory(output) as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        if vocabulary is not None:
            vocabulary.save(directory / "vocabulary.json")
        for name, text in (notes or {}).items():
            (directory / name).write_text(text, encoding="utf-8")


def fitting_tokenizer(name: str | Path, text_config: Any) -> Any:
    """Load a tokenizer of the text tower's size; this takes less time than the weights, so it comes first."""
    tokenizer = load_tokenizer(name)
    if len(tokenizer) != text_config.vocab_size:
        raise PartCLIPSegError(
            f"the tokenizer {str(name)!r} has {len(tokenizer)} tokens and the checkpoint {text_config.vocab_size}: "
            "give the tokenizer that the checkpoint was trained with as --tokenizer"
        )
    check_tokenizer(tokenizer, text_config, name)
    return tokenizer
