"""Names of the number types of a model's arithmetic; this module imports nothing heavy, for command lines."""

from __future__ import annotations

from typing import Literal, get_args

NumberType = Literal["float32", "bfloat16", "float16"]

NUMBER_TYPES: tuple[NumberType, ...] = get_args(NumberType)
