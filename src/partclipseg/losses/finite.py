"""Check that a loss is a finite number."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from partclipseg.errors import PartCLIPSegError


class NonFiniteLossError(PartCLIPSegError):
    """Raised if the loss is infinite or not a number: training must stop."""


def check_finite(terms: Mapping[str, Tensor]) -> None:
    """Raise `NonFiniteLossError` with the name and value of every term unless all of them are finite.

    Waits once for the device.
    """
    values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    if all(math.isfinite(value) for value in values):
        return
    named = dict(zip(terms, values, strict=True))
    bad = [name for name, value in named.items() if not math.isfinite(value)]
    listing = ", ".join(f"{name} {value:.6g}" for name, value in named.items())
    raise NonFiniteLossError(
        f"the loss is not finite in {', '.join(bad)} ({listing}); "
        "lower the learning rate, or train in bfloat16 or float32 instead of float16"
    )
