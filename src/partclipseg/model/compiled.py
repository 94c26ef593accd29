"""Compilation by torch.compile of the layers that repeat, instead of the whole model.

What the compiler gains here is the fusion of norms, activations and residual sums, which all lie inside a layer. A
layer is compiled once for all its copies, in seconds instead of a minute, and everything between the layers stays
plain Python, so that gathers and captured graphs work as they do without.
"""

from __future__ import annotations

import torch
from torch import nn

from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.model.decoder import DecoderLayer, UpsamplingHead
from partclipseg.model.towers import CLIPSegTowers


def compile_layers(model: CLIPSegTowers) -> None:
    """Compile the layers of the photo tower and of the decoder in place, at their first call; weights keep their names.

    The text tower is left as it is: it is short, and its masks are made in another way while a graph is captured.
    Sizes that change from call to call become symbols, so that few variants of a layer serve all batches and words.

    Raises `PartCLIPSegError` where torch.compile lacks what it needs: Triton on a GPU, a C++ compiler on a CPU.
    """
    _try_compiler(model.device)
    layers: list[nn.Module] = list(model.clip.vision_model.encoder.layers)
    layers += [module for module in model.decoder.modules() if isinstance(module, DecoderLayer | UpsamplingHead)]
    for layer in layers:
        layer.compile()


def _try_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception as error:  # what is missing shows in many ways
        raise PartCLIPSegError(
            f"torch.compile does not work here, so leave compiling out: {first_line(error)}"
        ) from error
