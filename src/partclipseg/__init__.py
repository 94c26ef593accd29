"""Open-vocabulary part segmentation: one photo in, your own words, a label for every part out.

    import partclipseg
    segmenter = partclipseg.PartSegmenter.from_pretrained()
    result = segmenter("photo.jpg", {"dog": ["head", "torso", "leg", "tail"], "bus": ["body", "wheel"]})

    partclipseg.evaluate(segmenter, partclipseg.open_dataset("pascal-part-116", "data/PascalPart116"), ["pred_all"])
    partclipseg.train("own-data", data="data/cars", output="runs/cars")

Names below are imported when first used, so that ``import partclipseg`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partclipseg.data.datasets import open_dataset
    from partclipseg.data.photo import read_photo
    from partclipseg.errors import PartCLIPSegError, UsageError
    from partclipseg.evaluation.evaluator import Evaluator
    from partclipseg.evaluation.instances import evaluate_instances
    from partclipseg.evaluation.run import evaluate
    from partclipseg.formats.segment import Instance, Segment
    from partclipseg.inference.result import PartResult
    from partclipseg.inference.segmenter import PartSegmenter
    from partclipseg.instances.detectors import Detector
    from partclipseg.instances.found import FoundObject
    from partclipseg.instances.outlines import Outliner
    from partclipseg.models.clipseg.model import CLIPSegBaseline
    from partclipseg.models.interface import PartOutput
    from partclipseg.models.partclipseg.config import PartCLIPSegConfig
    from partclipseg.models.partclipseg.foreign import load_reference_checkpoint
    from partclipseg.models.partclipseg.model import PartCLIPSegModel
    from partclipseg.models.registry import load_model
    from partclipseg.training.recipe import Recipe
    from partclipseg.training.run import train
    from partclipseg.vocabulary import ObjectPart, Vocabulary

__version__ = "0.1.0"

_HOME = {
    "CLIPSegBaseline": "models.clipseg.model",
    "Detector": "instances.detectors",
    "Evaluator": "evaluation.evaluator",
    "FoundObject": "instances.found",
    "Instance": "formats.segment",
    "ObjectPart": "vocabulary",
    "Outliner": "instances.outlines",
    "PartCLIPSegConfig": "models.partclipseg.config",
    "PartCLIPSegError": "errors",
    "PartCLIPSegModel": "models.partclipseg.model",
    "PartOutput": "models.interface",
    "PartResult": "inference.result",
    "PartSegmenter": "inference.segmenter",
    "Recipe": "training.recipe",
    "Segment": "formats.segment",
    "UsageError": "errors",
    "Vocabulary": "vocabulary",
    "evaluate": "evaluation.run",
    "evaluate_instances": "evaluation.instances",
    "load_model": "models.registry",
    "load_reference_checkpoint": "models.partclipseg.foreign",
    "open_dataset": "data.datasets",
    "read_photo": "data.photo",
    "train": "training.run",
}

__all__ = [  # noqa: RUF022  (in the order of use, not of the alphabet)
    "Vocabulary",
    "ObjectPart",
    "PartSegmenter",
    "PartResult",
    "Segment",
    "Instance",
    "FoundObject",
    "read_photo",
    "Detector",
    "Outliner",
    "PartCLIPSegModel",
    "CLIPSegBaseline",
    "PartCLIPSegConfig",
    "PartOutput",
    "load_model",
    "load_reference_checkpoint",
    "open_dataset",
    "evaluate",
    "evaluate_instances",
    "Evaluator",
    "train",
    "Recipe",
    "PartCLIPSegError",
    "UsageError",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'partclipseg' has no attribute {name!r}")
    value = getattr(import_module(f"partclipseg.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
