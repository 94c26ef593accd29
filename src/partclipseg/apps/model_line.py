"""Write the line that says which model a command uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter


def describe(segmenter: PartSegmenter, name: str | None) -> str:
    """Describe the model, its device and its number type in one line."""
    return f"model: {model_title(segmenter, name)}; {segmenter.device}, {segmenter.model.number_type}"


def model_title(segmenter: PartSegmenter, name: str | None) -> str:
    """Return the model's name and what it is, or a description of the built-in model."""
    if name is None:
        return "the built-in model, which knows rendered scenes only, not photos"
    return f"{name} ({segmenter.model.title})"
