"""Compilation by torch.compile of the layers that repeat, instead of the whole model.

What the compiler gains here is the fusion of norms, activations and residual sums, which all lie inside a layer. A
layer is compiled once for all its copies, in seconds instead of a minute, and everything between the layers stays
plain Python, so that gathers and captured graphs work as they do without.
"""

from __future__ import annotations

from torch import nn
from transformers.models.clipseg.modeling_clipseg import CLIPSegEncoderLayer

from partclipseg.model.decoder import DecoderLayer, UpsamplingHead

LAYERS = (CLIPSegEncoderLayer, DecoderLayer, UpsamplingHead)


def compile_layers(model: nn.Module) -> None:
    """Compile every layer of `model` in place at its first call; weights and their names stay as they are.

    Sizes that change from call to call become symbols. Needs what torch.compile needs: Triton on a GPU, a C++
    compiler on a CPU.
    """
    for module in model.modules():
        if isinstance(module, LAYERS):
            module.compile()
