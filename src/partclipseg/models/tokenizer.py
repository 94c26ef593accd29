"""CLIP's own tokenizer, fetched once from the Hugging Face hub and kept with the fetched models."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file, whole_directory
from partclipseg.models.hub import TOKENIZER_FILES, TOKENIZER_WORDS, HubError, cached, hub_file
from partclipseg.models.released import home
from partclipseg.writing import writing

CLIP_TOKENIZER = "openai/clip-vit-base-patch16"
"""Name on the hub of the model whose tokenizer all released files were trained with."""


def clip_tokenizer() -> str:
    """Return the directory of CLIP's tokenizer.

    Raises `PartCLIPSegError` where it is not here and the hub does not give it.
    """
    folder = home() / "tokenizer"
    if any(is_file(folder / name) for name in TOKENIZER_WORDS):
        return str(folder)
    found = [path for name in TOKENIZER_FILES if (path := cached(CLIP_TOKENIZER, name)) is not None]
    try:
        if not _is_whole(found):
            found = [path for name in TOKENIZER_FILES if (path := hub_file(CLIP_TOKENIZER, name)) is not None]
        if not _is_whole(found):
            raise HubError(f"{CLIP_TOKENIZER} on the Hugging Face hub has none")
    except HubError as error:
        raise PartCLIPSegError(
            f"CLIP's tokenizer is not here, and {error}: put tokenizer.json and tokenizer_config.json from "
            f"https://huggingface.co/{CLIP_TOKENIZER} into {folder} by hand, and give the same command again"
        ) from error
    try:
        with writing(folder), whole_directory(folder) as directory:
            for path in found:
                shutil.copyfile(path, directory / path.name)
    except PartCLIPSegError:  # a folder that cannot be written to: the hub's own cache has the files
        return str(found[0].parent)
    return str(folder)


def _is_whole(found: Iterable[Path]) -> bool:
    names = {path.name for path in found}
    return "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names
