"""What a model's directory or hub name holds beside the weights: configuration, tokenizer, words."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, CLIPSegConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from partclipseg.errors import PartCLIPSegError
from partclipseg.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


def read_config(name: Any, **hub_options: Any) -> dict[str, Any]:
    """The configuration of a directory or hub name; raises `PartCLIPSegError` where there is none."""
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise PartCLIPSegError(
            f"{name} has no config.json: give a model's directory, as `partclipseg convert` or `train` writes it"
        )
    if not Path(name).is_dir():  # said at once: where there is no network, the hub is tried for half a minute
        logger.warning("there is no directory %s; asking the Hugging Face hub for a model of that name", name)
    try:
        return PreTrainedConfig.get_config_dict(name, **hub_options)[0]
    except OSError as error:
        raise PartCLIPSegError(
            f"there is no directory {str(name)!r}, and the hub cannot be reached for a model of that name: "
            "give a model's directory, as `partclipseg convert` or `train` writes it, or download the model where "
            "there is network"
        ) from error


def load_tokenizer(name: str | Path) -> Any:
    """Load the tokenizer in a directory or on the hub; raises `PartCLIPSegError` where there is none."""
    folder = Path(name)
    try:
        if not folder.is_dir():
            # First of all: where the hub cannot be reached, each file that a tokenizer may have is waited for.
            cached_file(name, "tokenizer_config.json")
        elif not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
            raise FileNotFoundError(folder)  # of such a folder transformers makes a tokenizer without words
        # Left to find the configuration itself, transformers warns that it does not know our model types.
        return AutoTokenizer.from_pretrained(name, config=CLIPSegConfig())
    except (OSError, ValueError) as error:
        raise PartCLIPSegError(
            f"{name} has no tokenizer, or the hub cannot be reached: give a directory with the files of the one that "
            "the model was trained with (tokenizer.json and tokenizer_config.json, or vocab.json and merges.txt)"
        ) from error


def load_vocabulary(name: str | Path) -> Vocabulary | None:
    """The words that a model's directory came with, or None."""
    path = Path(name) / "vocabulary.json"
    return Vocabulary.from_file(path) if path.is_file() else None
