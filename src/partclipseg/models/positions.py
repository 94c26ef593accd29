"""Position embeddings of photos of another size than the tower was trained on, resized once for each size."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class ResizedPositions:
    """Cache of one tower's resized position embeddings.

    Interpolation takes some 2 ms even on a fast GPU, whose kernel walks through the channels one by one, and photos
    nearly always come in one size.
    """

    def __init__(self) -> None:
        self._kept: tuple[Hashable, dict[Hashable, Tensor]] = None, {}
        """Stamp of the weight, and what was made of it, by size."""

    def __call__(self, weight: Tensor, size: Hashable, resize: Callable[[], Tensor]) -> Tensor:
        """Return what `resize()` makes of `weight` for a `size`, from the cache unless the weight has changed.

        Nothing is cached while the weight is trained or the pass is compiled.
        """
        trained = weight.requires_grad and torch.is_grad_enabled()
        if trained or torch.compiler.is_compiling() or weight.is_meta:
            return resize()
        stamp = stamp_of(weight)
        kept, resized = self._kept
        if kept != stamp:  # exchanged as one: another thread may be resizing the weight as it was
            resized = {}
            self._kept = stamp, resized
        if size not in resized:
            off = torch.autocast(weight.device.type, enabled=False)  # it may change the type
            with torch.inference_mode(False), torch.no_grad(), off:
                resized[size] = resize()
        return resized[size]


def stamp_of(weight: Tensor) -> Hashable:
    """Return a value that changes when the weight is changed in place, moved, cast or exchanged."""
    return None if weight.is_inference() else weight._version, weight.data_ptr(), weight.dtype, weight.device


def resize_bicubic(maps: Tensor, **sizes: tuple[float, float]) -> Tensor:
    """Resize float32 `maps [1, A, h, w]` as `F.interpolate(maps, mode="bicubic", **sizes)` does, bit for bit.

    `sizes` is one pair for height and width, named `size` or `scale_factor`. PyTorch's GPU kernels have a thread for
    each place of a map, which walks through the channels; here the axes are resized one after the other, while the
    channels lie along the other one, so that each value has a thread.
    """
    [(name, (down, across))] = sizes.items()
    _, channels, height, width = maps.shape

    def resized(x: Tensor, *pair: float) -> Tensor:
        options: dict[str, Any] = {name: pair}
        return F.interpolate(x, mode="bicubic", align_corners=False, **options)

    kept = 1.0 if name == "scale_factor" else height * channels
    x = resized(maps.transpose(1, 2).reshape(1, 1, height * channels, width), kept, across)  # [1, 1, h·A, w']
    width = x.shape[-1]
    kept = 1.0 if name == "scale_factor" else channels * width
    x = resized(x.reshape(1, 1, height, channels * width), down, kept)  # [1, 1, h', A·w']
    return x.reshape(1, -1, channels, width).transpose(1, 2)  # [1, A, h', w']
