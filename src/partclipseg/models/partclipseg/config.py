"""Configuration of PartCLIPSeg."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from partclipseg.models.clipseg_config import RELEASED, CLIPSegTowersConfig
from partclipseg.models.clipseg_ranges import TOWERS, WORDS_BY_WORD, YES_OR_NO, Range


class PartCLIPSegConfig(CLIPSegTowersConfig):
    """The shared configuration and PartCLIPSeg's own switch."""

    model_type = "partclipseg"

    reference_object_lookup: bool = False
    """Read a class's object word at the object's index *without* the offset of the part words, as the released
    code does and its checkpoints were trained with. False, the intended method, takes the object's own word."""
    object_words: dict[str, str] | None = None
    """Word that the reference's lookup read in training, by the trained object in lower case. It stands for the object
    in lists of words that lack a trained object; other lists are read as the released code reads them."""

    @classmethod
    def ranges(cls) -> Mapping[str, Range]:
        """Return the range of each field."""
        return {**TOWERS, "reference_object_lookup": YES_OR_NO, "object_words": WORDS_BY_WORD}

    @classmethod
    def from_reference(cls, values: Mapping[str, Any] | None = None) -> Self:
        """Make a configuration from the reference's dictionary; the released checkpoints' if None.

        The result asks for the reference's object lookup, which its checkpoints were trained with, unless `values` say
        otherwise. Raises `PartCLIPSegError` if the dictionary lacks the two towers.
        """
        return super().from_reference({"reference_object_lookup": True, **(RELEASED if values is None else values)})
