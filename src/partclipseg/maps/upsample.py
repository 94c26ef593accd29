"""Find the greatest of upsampled logits at every pixel of photos of any sizes.

On a GPU one kernel (`maps.fused`) does it for a whole batch without writing an upsampled map; elsewhere, and
where Triton does not work, a few classes at a time are upsampled by PyTorch and compared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partclipseg.errors import first_line

log = logging.getLogger(__name__)

LOGITS_AT_ONCE = 32_000_000
"""Number of upsampled values in memory at a time (128 MB), for large photos and long vocabularies."""


class PhotoPixels:
    """Pixels of photos of sizes `(H, W)`, concatenated in flat arrays `[P]`."""

    def __init__(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> None:
        self.sizes = sizes
        self.device = device
        self.starts = [0, *accumulate(height * width for height, width in sizes)]
        """Start of each photo's pixels in the flat arrays, and the end of the last one's: `B + 1` numbers."""
        self._places: Tensor | None = None

    def full(self, value: float | int) -> Tensor:
        """Return `[P]` of one value."""
        return torch.full((self.starts[-1],), value, device=self.device)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return `[H, W]` of each photo, as views."""
        return [
            flat[start:end].view(size)
            for start, end, size in zip(self.starts, self.starts[1:], self.sizes, strict=False)
        ]

    def places(self) -> Tensor:
        """Return int64 `[B, 3]` on the device: start, height and width of each photo."""
        if self._places is None:
            rows = [(start, *size) for start, size in zip(self.starts, self.sizes, strict=False)]
            self._places = upload(np.array(rows, np.int64).reshape(-1, 3), self.device)
        return self._places

    def occurring(self, labels: Tensor, count: int) -> Tensor:
        """Return the labels 0 to `count` - 1 that occur in each photo, bool `[B, count]`; `labels` int64 `[P]`."""
        table = torch.zeros(len(self.sizes), count, dtype=torch.bool, device=self.device)
        for row, own in zip(table, self.split(labels), strict=True):
            row.index_fill_(0, own.flatten(), True)
        return table


def keep_best(
    pixels: PhotoPixels,
    best: Tensor,
    best_labels: Tensor,
    photos: np.ndarray,
    logits: Tensor,
    labels: Tensor,
    gate: Tensor | None = None,
    owners: Tensor | None = None,
) -> None:
    """Update the best values with rows of logits that are greater when bilinearly upsampled.

    Of equal values the first stays, as in an argmax.

    Args:
        best: float32 `[P]`, changed in place.
        best_labels: int64 `[P]`, changed in place.
        photos: int64 `[K]`, ascending: photo of each row.
        logits: `[K, h, w]` of any float type; further rows are ignored, here and in `labels` and `owners`.
        labels: int64 `[K]`.
        gate: int64 `[P]`: rows count only where it equals their owner.
        owners: int64 `[K]`; needed with a gate.
    """
    starts = np.searchsorted(photos, np.arange(len(pixels.sizes) + 1))
    if logits.is_cuda and len(photos) and (kernel := find_kernel(logits.device)):
        rows = upload(starts, pixels.device)
        scales = upload(np.array(logits.shape[1:], np.float32) / np.array(pixels.sizes, np.float32), pixels.device)
        most = max(height * width for height, width in pixels.sizes)
        kernel(rows, most, pixels.places(), scales, best, best_labels, logits, labels, gate, owners)
        return
    split = [pixels.split(flat) for flat in (best, best_labels)]
    gates = [None] * len(pixels.sizes) if gate is None else pixels.split(gate)
    for start, end, value, label, allowed in zip(starts, starts[1:], *split, gates, strict=False):
        if end > start:
            rows = slice(start, end)
            _keep_best(value, label, logits[rows], labels[rows], allowed, None if owners is None else owners[rows])


@cache
def find_kernel(device: torch.device) -> Callable[..., None] | None:
    """Return the kernel for a device, tested once; None if it does not run: Triton needs a C compiler and a writable
    folder."""
    rows, places = torch.arange(2, device=device), torch.tensor([[0, 1, 1]], device=device)  # one row, of one pixel
    scales, best, logits = (torch.zeros(shape, device=device) for shape in ((1, 2), 1, (1, 1, 1)))
    labels = torch.zeros(1, dtype=torch.int64, device=device)
    try:
        from partclipseg.maps.fused import keep_best_fused

        keep_best_fused(rows, 1, places, scales, best, labels.clone(), logits, labels, None, None)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a missing compiler or folder raises various errors
        log.warning("Triton does not work here, so label maps take longer to make: %s", first_line(error))
        return None
    return keep_best_fused


def _keep_best(
    best: Tensor, best_labels: Tensor, logits: Tensor, labels: Tensor, gate: Tensor | None, owners: Tensor | None
) -> None:
    """Update one photo as `keep_best` does, with maps `[H, W]`."""
    step = max(1, LOGITS_AT_ONCE // max(1, best.numel()))
    for start in range(0, len(logits), step):
        part = slice(start, start + step)
        some = upsample(logits[part], (best.shape[0], best.shape[1]))  # [k, H, W]
        if gate is not None and owners is not None:
            some.masked_fill_(owners[part, None, None] != gate, -torch.inf)
        value, position = some.max(dim=0)
        best_labels.copy_(torch.where(value > best, labels[part][position], best_labels))
        best.copy_(torch.maximum(best, value))


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample logits `[K, h, w]` of any float type to float32 `[K, H, W]`, bilinearly."""
    return F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to the device without waiting for its queued work."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
