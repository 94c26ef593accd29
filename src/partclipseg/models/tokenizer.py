"""CLIP's own tokenizer, fetched once from the Hugging Face hub and kept with the fetched models."""

from __future__ import annotations

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file, whole_directory
from partclipseg.models.directory import load_tokenizer
from partclipseg.models.released import home
from partclipseg.writing import writing

CLIP_TOKENIZER = "openai/clip-vit-base-patch16"
"""Name on the hub of the model whose tokenizer all released files were trained with."""


def clip_tokenizer() -> str:
    """Directory of CLIP's tokenizer, or its name on the hub where it cannot be kept.

    Raises `PartCLIPSegError` where it is not here and the hub does not give it.
    """
    folder = home() / "tokenizer"
    if any(is_file(folder / name) for name in ("tokenizer.json", "vocab.json")):
        return str(folder)
    try:
        tokenizer = load_tokenizer(CLIP_TOKENIZER)
    except PartCLIPSegError as error:
        raise PartCLIPSegError(
            f"CLIP's tokenizer is not here, and {error}; or put tokenizer.json and tokenizer_config.json from "
            f"https://huggingface.co/{CLIP_TOKENIZER} into {folder} by hand"
        ) from error
    try:
        with writing(folder), whole_directory(folder) as directory:
            tokenizer.save_pretrained(directory)
    except PartCLIPSegError:  # a folder that cannot be written to: the hub's own cache has the files too
        return CLIP_TOKENIZER
    return str(folder)
