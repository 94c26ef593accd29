"""Pass the classes of a volume a few at a time, so that the memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Greater tensors go back to the system after each use, and their new pages take up to a third of a photo's time.
CLASSES_AT_ONCE = 8
"""Number of (photo, class) pairs in a pass of the convolutions, spatial attention and the decoder on a CPU; all pass at
once if gradients are recorded, which keep everything anyway."""

SCORES_AT_ONCE = 1 << 22
"""Number of scores of class attention in memory at a time on a CPU, with the same exception."""

SHARE_OF_MEMORY = 1 / 32
"""Largest share of a GPU's memory that the widest tensor of a pass may take: as many classes pass at once as fit."""

MOST_NUMBERS = 2**31 - 1
"""Largest number of values of a tensor in a pass on a GPU, whose kernels count in 32 bits."""


def chunks(count: int, at_once: int, always: bool = False) -> Iterator[slice]:
    """Yield slices of `count` items, at least one each; a single one while gradients are recorded, unless `always`.

    An exported graph, whose counts are symbols, has a single one too.
    """
    # The compiler of PyTorch 2.11 and before takes `is_exporting` for true in every pass that it traces.
    exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
    if exporting or (torch.is_grad_enabled() and not always) or count <= at_once:
        yield slice(None)  # one comparison: a compiled layer still takes any count
        return
    step = max(1, at_once)
    for start in range(0, count, step):
        yield slice(start, start + step)


def joined(pieces: list[Tensor], dim: int = 1) -> Tensor:
    """Concatenate; a single piece is returned as it is, not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


def items_at_once(width: int, on_cpu: int, like: Tensor) -> int:
    """Return how many items, each with `width` values in its widest tensor, pass at once on the device of `like`.

    On a CPU these are `on_cpu`; on a GPU the memory decides.
    """
    if like.device.type == "cpu":
        return on_cpu
    most = min(int(SHARE_OF_MEMORY * memory_of(like.device)) // like.element_size(), MOST_NUMBERS)
    return most // width


@torch.compiler.assume_constant_result
def memory_of(device: torch.device) -> int:
    """Return the memory of a GPU in bytes; 32 GiB for one that does not tell."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 32 << 30
