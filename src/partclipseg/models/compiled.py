"""Compilation by torch.compile of the layers that repeat, instead of the whole model.

The compiler gains by fusing norms, activations and residual sums, which all lie inside a layer. A layer is compiled
once for all its copies, in seconds instead of a minute, and everything between the layers stays plain Python, so that
gathers and captured graphs work as they do without.
"""

from __future__ import annotations

import torch

from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.models.interface import PartModel


def compile_layers(model: PartModel) -> None:
    """Compile the model's repeated layers in place, at their first call; weights keep their names.

    Sizes that change from call to call become symbols, so that few variants of a layer serve all batches and words. A
    layer whose `any_count` is true has symbols from its first call on: where it is computed again in the backward pass,
    both passes must take the same variant.

    Raises `PartCLIPSegError` where torch.compile lacks what it needs: Triton on a GPU, a C++ compiler on a CPU.
    """
    _try_compiler(model.device)
    for layer in model.repeated_layers():
        layer.compile(dynamic=True if getattr(layer, "any_count", False) else None)
    model.renew_stamp()  # passes that were captured before would replay the layers as they were


def _try_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception as error:  # a missing compiler raises various errors
        raise PartCLIPSegError(
            f"torch.compile does not work here, so leave compiling out: {first_line(error)}"
        ) from error
