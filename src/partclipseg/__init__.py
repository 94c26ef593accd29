"""Open-vocabulary part segmentation: one photo in, your own words, a label for every part out.

    import partclipseg
    segmenter = partclipseg.PartSegmenter.from_pretrained()
    result = segmenter("photo.jpg", {"dog": ["head", "ear"], "bus": ["wheel"]})

Names below are imported when first used, so that ``import partclipseg`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partclipseg.errors import PartCLIPSegError, UsageError
    from partclipseg.evaluation.evaluator import Evaluator
    from partclipseg.formats.segment import Segment
    from partclipseg.inference.result import PartResult
    from partclipseg.inference.segmenter import PartSegmenter
    from partclipseg.models.clipseg.model import CLIPSegBaseline
    from partclipseg.models.interface import PartOutput
    from partclipseg.models.partclipseg.config import PartCLIPSegConfig
    from partclipseg.models.partclipseg.foreign import load_reference_checkpoint
    from partclipseg.models.partclipseg.model import PartCLIPSegModel
    from partclipseg.vocabulary import ObjectPart, Vocabulary

__version__ = "0.1.0"

_HOME = {
    "CLIPSegBaseline": "models.clipseg.model",
    "Evaluator": "evaluation.evaluator",
    "ObjectPart": "vocabulary",
    "PartCLIPSegConfig": "models.partclipseg.config",
    "PartCLIPSegError": "errors",
    "PartCLIPSegModel": "models.partclipseg.model",
    "PartOutput": "models.interface",
    "PartResult": "inference.result",
    "PartSegmenter": "inference.segmenter",
    "Segment": "formats.segment",
    "UsageError": "errors",
    "Vocabulary": "vocabulary",
    "load_reference_checkpoint": "models.partclipseg.foreign",
}

__all__ = [  # noqa: RUF022  (in the order of use, not of the alphabet)
    "Vocabulary",
    "ObjectPart",
    "PartSegmenter",
    "PartResult",
    "Segment",
    "PartCLIPSegModel",
    "CLIPSegBaseline",
    "PartCLIPSegConfig",
    "PartOutput",
    "load_reference_checkpoint",
    "Evaluator",
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
