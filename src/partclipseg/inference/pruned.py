"""Label maps without the classes that cannot win: the same maps as full decoding, for a fraction of the work.

In Pred-All a class can be predicted only at pixels where its object has the greatest of the object logits at photo
size. So objects and background are decoded first and upsampled; classes of objects that win nowhere, and parts that
only those have, are never decoded. In Oracle-Obj the same holds of objects that are not named. Every value that is
computed is computed as in `model.forward`, from the same numbers; matrix products of another shape may round
differently in the last digit.

Every photo has classes of its own. They are lists of (photo, condition) and (photo, class) rows for the whole batch,
so that no photo is padded to the busiest one's number. Only for captured graphs, whose shapes are fixed, the lists
are padded a little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from partclipseg.inference.graphs import Graphs
from partclipseg.inference.label_maps import Contest, LabelMaps
from partclipseg.inference.upsample import upload
from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.model.decoder import ConditionDecoder
from partclipseg.model.partclipseg import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

WIDEST = {"cpu": 8 << 20, "cuda": 1 << 30}
"""Bytes that the widest tensor of a decoder pass may take, by type of device: on CPUs what stays in the caches is
fastest; on GPUs it bounds the memory. A row of the released size takes 4 MB in float32."""

CAPTURED_ROWS = 512
"""Rows that a captured graph may take: with more, kernels take longer than their start, and graphs much memory."""

Known = tuple[np.ndarray, Tensor]
"""Features that have been decoded: their (photo, condition) keys, int64 `[R]`, sorted, and they, `[R, g·g', C]`."""


@torch.inference_mode()
def pruned_maps(
    model: PartCLIPSegModel | CLIPSegBaseline,
    pixel_values: Tensor,
    text_embeddings: Tensor,
    vocabulary: Vocabulary,
    sizes: Sequence[tuple[int, int]],
    present_objects: Sequence[Sequence[int]] | None = None,
    with_background: bool = False,
    graphs: Graphs | None = None,
) -> list[LabelMaps]:
    """What `pred_all`, or with `present_objects` `oracle_obj`, makes of the model's output, from pruned decoding.

    Args:
        pixel_values: `[B, 3, H, W]`, normalised.
        text_embeddings: `[K, D]` of `model.prompts(vocabulary)`.
        sizes: `(H, W)` of each of the `B` photos.
        present_objects: object indices of each photo for Oracle-Obj; None for Pred-All.
        with_background: let background compete with the `present_objects`: Pred-All among these objects alone.
        graphs: of this `model` on a CUDA device: small batches are captured and replayed.

    A batch waits for its device once, to learn which objects have won.
    """
    with nullcontext() if graphs is None else graphs.lock:
        if isinstance(model, CLIPSegBaseline):
            batch = _Batch(model, pixel_values, text_embeddings, sizes)
            contest = _baseline(batch, len(vocabulary), vocabulary.class_to_object, present_objects, with_background)
        else:
            first = len(vocabulary.parts) if present_objects is None else None
            batch = _Batch(model, pixel_values, text_embeddings, sizes, graphs, first)
            contest = _parts(batch, model, vocabulary, present_objects, with_background)
        return contest.maps(batch.upload(vocabulary.class_to_object))


def _parts(
    batch: _Batch,
    model: PartCLIPSegModel,
    vocabulary: Vocabulary,
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> Contest:
    num_parts, num_objects = len(vocabulary.parts), len(vocabulary.objects)

    # 1. Which objects can have pixels: those that win some, background among them, or those named.
    named = None if present_objects is None else _table(present_objects, num_objects + 1)  # [B, N_o + 1]
    if named is None or with_background:
        known, gate = batch.objects(num_parts) if named is None else batch.named_objects(num_parts, named)
        wins = batch.winners(gate, num_objects + 1)  # [B, N_o + 1]
        contest = batch.contest(gate)
    else:
        known, wins, contest = batch.nothing(), named, batch.contest()

    # 2. Their classes: rows (photo, class), in order of the photos; background belongs to itself.
    owners = np.append(vocabulary.class_to_object, num_objects)  # [N_c + 1]
    photos, classes = np.nonzero(wins[:, owners])  # [K] each
    if len(classes) == 0:
        return contest
    to_part, to_object = torch.from_numpy(vocabulary.class_to_part), torch.from_numpy(vocabulary.class_to_object)
    rows = model.class_rows(to_part, to_object, num_parts, len(batch.conditions))
    part_rows, object_rows, object_word_rows = (x.numpy()[classes] for x in rows)  # [K] each

    # 3. The conditions that they are made of, rows (photo, condition), each once: decoded now, or known.
    part_keys, object_keys = (batch.keys(photos, rows) for rows in (part_rows, object_rows))
    keys = np.union1d(part_keys, object_keys)
    is_known = np.isin(keys, known[0])
    fresh, found = keys[~is_known], keys[is_known]
    graphs = batch.graphs_for(max(len(fresh), len(classes)))
    # One length for all lists: shapes then come again more often.
    pad = partial(_pad, length=_rounded(max(len(fresh), len(classes)))) if graphs else np.asarray
    fresh, found = pad(fresh), pad(found)
    places = _find([part_keys, object_keys], np.concatenate([fresh, found]))
    host = _Rows(
        *np.divmod(fresh, len(batch.conditions)),
        np.searchsorted(known[0], found),
        *map(pad, [*places, part_rows, object_word_rows, classes, owners[classes]]),
    )

    # 4. Logits of the classes; the best at every pixel is kept as they come.
    lengths = tuple(len(rows) for rows in host)
    device = batch.upload(np.concatenate(host))
    compute = partial(_class_logits, model, batch.grid, batch.rows_at_once, lengths)
    inputs = device, known[1], batch.conditions, *batch.reduced
    pieces = graphs(lambda *x: list(compute(*x)), ("classes", lengths), *inputs) if graphs else compute(*inputs)
    *_, labels, owner = device.split(lengths)
    for rows, logits in zip(_chunks(len(classes), batch.rows_at_once), pieces, strict=True):  # [k, h, w]
        contest.add(photos[rows], logits, labels[rows], owner[rows])
    return contest


def _baseline(
    batch: _Batch,
    num_classes: int,
    class_to_object: np.ndarray,
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> Contest:
    """The baseline knows no objects: every class may win, or with `present_objects` those of the named ones."""
    if present_objects is None:
        possible = np.ones((len(batch.sizes), num_classes + 1), bool)
    else:
        possible = _table(present_objects, int(class_to_object.max()) + 2)[:, np.append(class_to_object, -1)]
        possible[:, -1] = with_background
    photos, classes = np.nonzero(possible)
    labels, contest = batch.upload(classes), batch.contest()
    for rows in _chunks(len(classes), batch.rows_at_once):
        features = batch.decode(photos[rows], classes[rows])[None]  # [1, k, g·g', C]
        contest.add(photos[rows], batch.decoder.logits(features, batch.grid)[0], labels[rows])
    return contest


class _Batch:
    """Photos whose towers have run, and the words; the decoder is run on rows of them as they are asked for."""

    def __init__(
        self,
        model: PartCLIPSegModel | CLIPSegBaseline,
        pixel_values: Tensor,
        text_embeddings: Tensor,
        sizes: Sequence[tuple[int, int]],
        graphs: Graphs | None = None,
        first: int | None = None,
    ) -> None:
        """Conditions from `first` on will be asked for by `objects`."""
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
        """Where to capture a pass of so many rows, if it is to be captured."""
        return self._graphs if rows <= min(CAPTURED_ROWS, self.rows_at_once) else None

    def upload(self, array: np.ndarray) -> Tensor:
        """To the device, without waiting for what it is doing."""
        return upload(array, self.device)

    def contest(self, gate: Contest | None = None) -> Contest:
        return Contest(self.sizes, self.device, gate)

    def objects(self, first: int) -> tuple[Known, Contest]:
        """Features of all conditions from `first` on, and the best of them at each photo's pixels."""
        features, contest = [], self.contest()
        conditions = self.conditions[first:]
        photos, labels = np.arange(len(self.sizes)), torch.arange(len(conditions), device=self.device)
        for rows in _chunks(len(conditions), max(1, self.rows_at_once // len(self.sizes))):
            some, logits = self._objects or _decode_all(self.decoder, self.reduced, conditions[rows], self.grid)
            number = logits.shape[1]
            contest.add(photos.repeat(number), logits.flatten(0, 1), labels[rows].repeat(len(photos)))
            features.append(some)
        keys = self.keys(photos[:, None], first + np.arange(len(conditions))).ravel()
        return (keys, torch.cat(features, dim=1).flatten(0, 1)), contest

    def named_objects(self, first: int, named: np.ndarray) -> tuple[Known, Contest]:
        """The same of those `named`, bool `[B, N_o + 1]`, and background alone, which is the last one."""
        named = named.copy()
        named[:, -1] = True
        photos, objects = np.nonzero(named)
        labels, features, contest = self.upload(objects), [], self.contest()
        for rows in _chunks(len(objects), self.rows_at_once):
            features.append(self.decode(photos[rows], first + objects[rows]))
            logits = self.decoder.logits(features[-1][None], self.grid)[0]
            contest.add(photos[rows], logits, labels[rows])
        keys = self.keys(photos, first + objects)
        return (keys, torch.cat(features)), contest

    def nothing(self) -> Known:
        """No features at all."""
        _, _, tokens, width = self.reduced[0].shape
        return np.empty(0, np.int64), self.reduced[0].new_empty(0, tokens - 1, width)

    def winners(self, contest: Contest, count: int) -> np.ndarray:
        """bool `[B, count]`: which labels have won pixels. Waits for the device."""
        return contest.winners(count).cpu().numpy()

    def keys(self, photos: np.ndarray, conditions: np.ndarray) -> np.ndarray:
        """One number for each (photo, condition)."""
        return photos * len(self.conditions) + conditions

    def decode(self, photos: np.ndarray, conditions: np.ndarray) -> Tensor:
        """Features `[k, g·g', C]` of rows (photo, condition), `[k]` each."""
        photo, condition = self.upload(np.stack([photos, conditions]))
        return _decode(self.decoder, self.reduced, photo, self.conditions[condition])


# What may be captured: functions of tensors alone.


def _see(
    model: PartCLIPSegModel | CLIPSegBaseline, pixel_values: Tensor, text_embeddings: Tensor
) -> list[Tensor]:
    """All conditions, `[N, D]`, and what they share of the photos, `[B, 1, T, C]` for each layer."""
    conditions = torch.cat([text_embeddings.to(model.dtype), model.background])
    return [conditions, *model.decoder.reduce_photo(model.encode_photo(pixel_values))]


def _see_objects(
    model: PartCLIPSegModel | CLIPSegBaseline, first: int, pixel_values: Tensor, text_embeddings: Tensor
) -> list[Tensor]:
    """The same, and features and logits of all conditions from `first` on."""
    conditions, *reduced = _see(model, pixel_values, text_embeddings)
    grid = model.grid(pixel_values)
    return [conditions, *reduced, *_decode_all(model.decoder, reduced, conditions[first:], grid)]


def _decode_all(
    decoder: ConditionDecoder, reduced: Sequence[Tensor], conditions: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Features `[B, n, g·g', C]` and logits `[B, n, h, w]` of `conditions [n, D]`."""
    features, _ = decoder.decode(reduced, conditions)
    return features, decoder.logits(features, grid)


def _decode(decoder: ConditionDecoder, reduced: Sequence[Tensor], photos: Tensor, conditions: Tensor) -> Tensor:
    """Features `[k, g·g', C]` of rows (photo, condition), int64 `[k]` and `[k, D]`."""
    features, _ = decoder.decode([shared[photos] for shared in reduced], conditions.unsqueeze(1))
    return features[:, 0]


class _Rows(NamedTuple):
    """What the classes of a batch are made of, int64: arrays on the host, or tensors on the device."""

    fresh_photos: Any
    fresh_conditions: Any
    """`[F]` each: the features to be decoded."""
    found: Any
    """`[Q]`: those that have been, by their place among the known."""
    parts: Any
    objects: Any
    """`[K]` each: the features of the classes, by their place among the fresh, then the found."""
    part_words: Any
    object_words: Any
    """`[K]` each: the conditions whose words make the classes'."""
    labels: Any
    owners: Any
    """`[K]` each: the classes and their objects."""


def _class_logits(
    model: PartCLIPSegModel,
    grid: tuple[int, int],
    rows_at_once: int,
    lengths: tuple[int, ...],
    rows: Tensor,
    known: Tensor,
    conditions: Tensor,
    *reduced: Tensor,
) -> Iterator[Tensor]:
    """Logits `[k, h, w]` of classes, `_Rows` of `lengths` one after the other; `known [M, g·g', C]` are features."""
    decoder, row = model.decoder, _Rows(*rows.split(lengths))
    features = [
        _decode(decoder, reduced, row.fresh_photos[some], conditions[row.fresh_conditions[some]])
        for some in _chunks(len(row.fresh_photos), rows_at_once)
    ]
    halves = decoder.merge_halves(torch.cat([*features, known[row.found]])[None])  # twice [1, F + Q, g·g', C]
    words = decoder.class_words(conditions, row.part_words, row.object_words)  # [K, D]
    for some in _chunks(len(words), rows_at_once):
        yield decoder.pair_logits(halves, words[some], row.parts[some], row.objects[some], grid)[0]


def _table(members: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """bool `[B, count]`: which indices each photo names."""
    table = np.zeros((len(members), count), bool)
    for row, indices in zip(table, members, strict=True):
        row[list(indices)] = True
    return table


def _rounded(count: int) -> int:
    """A little more than `count`, an eighth at most or 3: one of few numbers."""
    step = max(4, 1 << max(0, count.bit_length() - 4))
    return -(-count // step) * step


def _pad(rows: np.ndarray, length: int) -> np.ndarray:
    """The last of the `rows` repeated up to a length; no rows stay none."""
    return rows[np.minimum(np.arange(length), len(rows) - 1)] if len(rows) else rows


def _find(wanted: Sequence[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Where each of the `wanted` stands among the `keys`."""
    order = np.argsort(keys)
    return order[np.searchsorted(keys, np.stack(wanted), sorter=order)]


def _chunks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))
