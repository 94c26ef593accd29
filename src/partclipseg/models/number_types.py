"""Names of the number types of a model's arithmetic; this module imports nothing heavy, for command lines."""

from __future__ import annotations

from typing import Literal, get_args

NUMBER_TYPES = ("float32", "bfloat16", "float16")
"""Number types of floats, which weights may be stored in."""

PredictionType = Literal["float32", "bfloat16", "float16", "int8"]

PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)
"""Number types of predictions; int8 is for the matrix products on a CPU, see `partclipseg.models.int8`."""
