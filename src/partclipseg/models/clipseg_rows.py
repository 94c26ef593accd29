"""The decoder on rows of a batch: each photo with conditions of its own.

Every photo has its own classes. They are lists of (photo, condition) rows for the whole batch, so that no photo is
padded to the longest list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from partclipseg.maps.label_maps import Contest
from partclipseg.maps.upsample import upload
from partclipseg.models.clipseg_decoder import ConditionDecoder
from partclipseg.models.cuda_graphs import Graphs

if TYPE_CHECKING:
    from partclipseg.models.clipseg_towers import CLIPSegTowers

WIDEST = {"cpu": 8 << 20, "cuda": 1 << 30}
"""Maximum size in bytes of the widest tensor of a decoder pass, by type of device: a CPU is fastest if it fits the
caches; on a GPU this limits the memory. A row of the released size takes 4 MB in float32."""

CAPTURED_ROWS = 512
"""Maximum number of rows of a captured graph: with more, kernels run longer than their launch, and graphs need much
memory."""

Known = tuple[np.ndarray, Tensor]
"""Decoded features: sorted int64 keys `[R]`, one per (photo, word), and the features `[R, g·g', C]`."""


class DecodedPhotos:
    """Encoded photos and words; the decoder runs on requested rows."""

    def __init__(
        self,
        model: CLIPSegTowers,
        pixel_values: Tensor,
        text_embeddings: Tensor,
        sizes: Sequence[tuple[int, int]],
        graphs: Graphs | None = None,
        first: int | None = None,
    ) -> None:
        """Run the towers. `graphs` captures small batches; `first` is the later argument of `objects`."""
        self.decoder = model.decoder
        self.grid = model.grid(pixel_values)
        self.sizes = sizes
        self.device = pixel_values.device
        tokens, config = 1 + self.grid[0] * self.grid[1], model.config
        row = tokens * config.decoder_intermediate_size * model.dtype.itemsize
        self.rows_at_once = max(1, WIDEST.get(self.device.type, WIDEST["cuda"]) // row)
        self._graphs = graphs
        self._objects: Sequence[Tensor] = ()

        inputs, number = (pixel_values, text_embeddings), len(sizes)
        if graphs is None or self.graphs_for(number) is None:
            seen = _see(model, *inputs)
        elif first is None or self.graphs_for(number * (len(text_embeddings) + 1 - first)) is None:
            seen = graphs(partial(_see, model), "photos", *inputs)
        else:
            *seen, features, logits = graphs(partial(_see_objects, model, first), ("objects", first), *inputs)
            self._objects = features, logits
        self.conditions = seen[0]  # [N, D], background last
        self.reduced = seen[1:]  # one [B, 1, T, C] a layer

    def graphs_for(self, rows: int) -> Graphs | None:
        """Return the graph cache if a pass of this many rows should be captured, else None."""
        return self._graphs if rows <= min(CAPTURED_ROWS, self.rows_at_once) else None

    def upload(self, array: np.ndarray) -> Tensor:
        """Copy an array to the device without waiting for it."""
        return upload(array, self.device)

    def contest(self, gate: Contest | None = None) -> Contest:
        """Return a contest over the pixels of these photos."""
        return Contest(self.sizes, self.device, gate)

    def objects(self, first: int) -> tuple[Known, Contest]:
        """Decode all conditions from `first` on: their features, and the best of them at each photo's pixels."""
        features, contest = [], self.contest()
        conditions = self.conditions[first:]
        photos, labels = np.arange(len(self.sizes)), torch.arange(len(conditions), device=self.device)
        for rows in slices(len(conditions), max(1, self.rows_at_once // len(self.sizes))):
            some, logits = self._objects or decode_all(self.decoder, self.reduced, conditions[rows], self.grid)
            number = logits.shape[1]
            contest.add(photos.repeat(number), logits.flatten(0, 1), labels[rows].repeat(len(photos)))
            features.append(some)
        keys = self.keys(photos[:, None], first + np.arange(len(conditions))).ravel()
        return (keys, torch.cat(features, dim=1).flatten(0, 1)), contest

    def named_objects(self, first: int, named: np.ndarray) -> tuple[Known, Contest]:
        """Decode only the objects `named`, bool `[B, N_o + 1]`, and background, which is the last one."""
        named = named.copy()
        named[:, -1] = True
        photos, objects = np.nonzero(named)
        labels, features, contest = self.upload(objects), [], self.contest()
        for rows in slices(len(objects), self.rows_at_once):
            features.append(self.decode(photos[rows], first + objects[rows]))
            logits = self.decoder.logits(features[-1][None], self.grid)[0]
            contest.add(photos[rows], logits, labels[rows])
        keys = self.keys(photos, first + objects)
        return (keys, torch.cat(features)), contest

    def nothing(self) -> Known:
        """Return known features before anything is decoded."""
        _, _, tokens, width = self.reduced[0].shape
        return np.empty(0, np.int64), self.reduced[0].new_empty(0, tokens - 1, width)

    def winners(self, contest: Contest, count: int) -> np.ndarray:
        """Wait for the device, and return the labels that have won pixels: bool `[B, count]`."""
        return contest.winners(count).cpu().numpy()

    def keys(self, photos: np.ndarray, conditions: np.ndarray) -> np.ndarray:
        """Return keys of (photo, condition) rows, one number each."""
        return photos * len(self.conditions) + conditions

    def decode(self, photos: np.ndarray, conditions: np.ndarray) -> Tensor:
        """Decode rows (photo, condition), `[k]` each, to features `[k, g·g', C]`."""
        photo, condition = self.upload(np.stack([photos, conditions]))
        return decode_rows(self.decoder, self.reduced, photo, self.conditions[condition])


# Functions of tensors alone, which may be captured.


def _see(
    model: CLIPSegTowers, pixel_values: Tensor, text_embeddings: Tensor
) -> list[Tensor]:
    """Run the towers: all conditions, `[N, D]`, and the reduced activations, `[B, 1, T, C]` for each layer."""
    conditions = torch.cat([text_embeddings.to(model.dtype), model.background])
    return [conditions, *model.decoder.reduce_photo(model.encode_photo(pixel_values))]


def _see_objects(
    model: CLIPSegTowers, first: int, pixel_values: Tensor, text_embeddings: Tensor
) -> list[Tensor]:
    """Run the towers, and decode all conditions from `first` on to features and logits."""
    conditions, *reduced = _see(model, pixel_values, text_embeddings)
    grid = model.grid(pixel_values)
    return [conditions, *reduced, *decode_all(model.decoder, reduced, conditions[first:], grid)]


def decode_all(
    decoder: ConditionDecoder, reduced: Sequence[Tensor], conditions: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Decode `conditions [n, D]` of every photo: features `[B, n, g·g', C]` and logits `[B, n, h, w]`."""
    features, _ = decoder.decode(reduced, conditions)
    return features, decoder.logits(features, grid)


def decode_rows(decoder: ConditionDecoder, reduced: Sequence[Tensor], photos: Tensor, conditions: Tensor) -> Tensor:
    """Decode rows of photos, int64 `[k]`, and conditions `[k, D]` to features `[k, g·g', C]`."""
    features, _ = decoder.decode([shared[photos] for shared in reduced], conditions.unsqueeze(1))
    return features[:, 0]


def named_rows(members: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Mark the indices that each photo names: bool `[B, count]`."""
    table = np.zeros((len(members), count), bool)
    for row, indices in zip(table, members, strict=True):
        row[list(indices)] = True
    return table


def slices(total: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` that cover 0 to `total`."""
    return (slice(start, start + size) for start in range(0, total, size))
