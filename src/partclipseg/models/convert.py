"""Make a model's directory of a released checkpoint file: weights, tokenizer and words, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import require_new, whole_directory
from partclipseg.models.directory import check_tokenizer, load_tokenizer, write_directory
from partclipseg.models.interface import PartModel
from partclipseg.models.registry import find_foreign
from partclipseg.models.tokenizer import clip_tokenizer
from partclipseg.vocabulary import Catalog, Vocabulary
from partclipseg.writing import writing


def convert_file(
    path: Path,
    output: Path,
    vocabulary: Vocabulary | None,
    config: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> tuple[PartModel, str]:
    """Write the model in a released file as a directory; return the model, and a remark on it for people.

    Args:
        path: the ``.pth`` file, of any method of `registry.FOREIGN`.
        output: the directory to write; it must not exist yet.
        vocabulary: words for calls that give none; those of a catalogue name the data set of the file's training.
        config: values of a model of another size than the released ones.
        tokenizer: directory or hub name; None is CLIP's own.

    Raises `PartCLIPSegError` for a file that does not fit, a tokenizer of another size, or a folder that cannot be
    written to, and `UsageError` if something is at `output`.
    """
    require_new(output)
    foreign, settings = find_foreign(path, config, vocabulary)
    # Before the weights, which take longer.
    words = fitting_tokenizer(clip_tokenizer() if tokenizer is None else tokenizer, settings.text_config)
    model = foreign.load_released(path, settings)
    write_model(model, words, output, vocabulary, new=True)
    return model, foreign.REMARK


def write_model(
    model: PartModel,
    tokenizer: Any,
    output: Path,
    vocabulary: Vocabulary | None,
    finish: Callable[[Path], None] | None = None,
    new: bool = False,
) -> None:
    """Write a released model as a directory, whole or not at all; `finish` is called with it before it is in place.

    With `new` nothing is replaced: see `whole_directory`. The model card of one that is finished names it by its name.
    Where `vocabulary` is a catalogue's, the model notes its seen classes: released files were trained on them.
    """
    if vocabulary is not None and (catalog := Catalog.of(vocabulary)) is not None:
        model.trained_on(Vocabulary.from_catalog(catalog.name, "seen"))
    with writing(output), whole_directory(output, new=new) as directory:
        write_directory(directory, model, tokenizer, vocabulary, output.name if finish else str(output))
        if finish is not None:
            finish(directory)


def fitting_tokenizer(name: str | Path, text_config: Any) -> Any:
    """Load a tokenizer of exactly the text tower's size; raises `PartCLIPSegError` for another."""
    tokenizer = load_tokenizer(name)
    if len(tokenizer) != text_config.vocab_size:
        raise PartCLIPSegError(
            f"the tokenizer {str(name)!r} has {len(tokenizer)} tokens and the model's configuration "
            f"{text_config.vocab_size}: give the tokenizer that the checkpoint was trained with as --tokenizer; "
            "a model of another size than the released ones needs its --config, too"
        )
    check_tokenizer(tokenizer, text_config, name)
    return tokenizer
