"""Remote source of the FiftyOne model zoo: parts of things, by your own words, as detections with masks.

    model = foz.load_zoo_model("partclipseg", model="models/pascal", vocabulary="dog: head, torso, leg, tail")
    dataset.apply_model(model, label_field="parts", batch_size=8)

FiftyOne calls the three functions below by their names. docs/integrations.md says how to register the source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fiftyone.operators import types

from .zoo import PartModel


def download_model(model_name: str, model_path: str) -> None:
    """Make the folder that tells FiftyOne that the model is here; partclipseg fetches and keeps weights itself."""
    Path(model_path).mkdir(parents=True, exist_ok=True)


def load_model(
    model_name: str,
    model_path: str,
    model: str | None = None,
    vocabulary: Any = None,
    device: str | None = None,
    **options: Any,
) -> PartModel:
    """Load a model.

    Args:
        model_name: name in the manifest; there is one.
        model_path: folder that `download_model` made.
        model: what `PartSegmenter.from_pretrained` takes; None is the built-in model, which knows PartShapes only.
        vocabulary: what `Vocabulary.load` takes; None are the model's own words.
        device: device to run on.
        options: those of a call of `PartSegmenter`, such as ``zoom=True``. ``instances`` and ``outlines`` may be names
            of a detector and an outliner.

    Raises `PartCLIPSegError` where the model cannot be loaded, and `UsageError` for wrong words.
    """
    return PartModel(model or None, vocabulary or None, device or None, **options)


def resolve_input(model_name: str, ctx: Any) -> types.Property:
    """Return the form in which FiftyOne's App asks for the arguments of `load_model`."""
    inputs = types.Object()
    inputs.str("vocabulary", label="Words", description='such as "dog: head, torso, leg, tail"', required=False)
    inputs.str("model", label="Model", description="a directory, or a name that partclipseg knows", required=False)
    inputs.bool("zoom", label="Look again at small objects", default=False)
    return types.Property(inputs)
