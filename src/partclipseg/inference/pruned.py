"""Label maps without the classes that cannot win: the same maps as full decoding, for a fraction of the work.

In Pred-All a class can be predicted only at pixels where its object has the greatest of the object logits at photo
size. So objects and background are decoded first and upsampled; classes of objects that win nowhere, and parts that
only those have, are never decoded. In Oracle-Obj the same holds of objects that are not named. Every value that is
computed is computed as in `model.forward`, from the same numbers; matrix products of another shape may round
differently in the last digit.

Every photo has classes of its own. They are lists of (photo, condition) and (photo, class) rows for the whole batch,
so that no photo is padded to the busiest one's number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from partclipseg.inference.label_maps import Contest, LabelMaps
from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.model.partclipseg import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

WIDEST = {"cpu": 8 << 20, "cuda": 1 << 30}
"""Bytes that the widest tensor of a decoder pass may take, by type of device: on CPUs what stays in the caches is
fastest; on GPUs it bounds the memory. A row of the released size takes 4 MB in float32."""

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
) -> list[LabelMaps]:
    """What `pred_all`, or with `present_objects` `oracle_obj`, makes of the model's output, from pruned decoding.

    Args:
        pixel_values: `[B, 3, H, W]`, normalised.
        text_embeddings: `[K, D]` of `model.prompts(vocabulary)`.
        sizes: `(H, W)` of each of the `B` photos.
        present_objects: object indices of each photo for Oracle-Obj; None for Pred-All.
        with_background: let background compete with the `present_objects`: Pred-All among these objects alone.

    A batch waits for its device once, to learn which objects have won.
    """
    batch = _Batch(model, pixel_values, text_embeddings, sizes)
    if isinstance(model, CLIPSegBaseline):
        contests = _baseline(batch, len(vocabulary), vocabulary.class_to_object, present_objects, with_background)
    else:
        contests = _parts(batch, model, vocabulary, present_objects, with_background)
    class_to_object = batch.upload(vocabulary.class_to_object)
    return [contest.maps(class_to_object) for contest in contests]


def _parts(
    batch: _Batch,
    model: PartCLIPSegModel,
    vocabulary: Vocabulary,
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> list[Contest]:
    num_parts, num_objects = len(vocabulary.parts), len(vocabulary.objects)

    # 1. Which objects can have pixels: those that win some, background among them, or those named.
    named = None if present_objects is None else _table(present_objects, num_objects + 1)  # [B, N_o + 1]
    if named is None or with_background:
        known, gates = batch.objects(num_parts) if named is None else batch.named_objects(num_parts, named)
        wins = batch.winners(gates, num_objects + 1)  # [B, N_o + 1]
        contests = batch.contests(gates)
    else:
        known, wins, contests = None, named, batch.contests()

    # 2. Their classes: rows (photo, class), in order of the photos; background belongs to itself.
    owners = np.append(vocabulary.class_to_object, num_objects)  # [N_c + 1]
    photos, classes = np.nonzero(wins[:, owners])  # [K] each
    if len(classes) == 0:
        return contests
    to_part, to_object = torch.from_numpy(vocabulary.class_to_part), torch.from_numpy(vocabulary.class_to_object)
    rows = model.class_rows(to_part, to_object, num_parts, len(batch.conditions))
    part_rows, object_rows, object_word_rows = (x.numpy()[classes] for x in rows)  # [K] each

    # 3. Features of the conditions that they are made of: rows (photo, condition), each once.
    part_keys, object_keys = (batch.keys(photos, rows) for rows in (part_rows, object_rows))
    keys, features = batch.features(np.union1d(part_keys, object_keys), known)  # [R], [R, g·g', C]
    halves = model.decoder.merge_halves(features[None])  # twice [1, R, g·g', C]

    # 4. Logits of the classes; the best at every pixel is kept as they come.
    used, word_positions = np.unique([part_rows, object_word_rows], return_inverse=True)
    positions = np.concatenate([_find([part_keys, object_keys], keys), word_positions.reshape(2, -1)])
    part, object_, part_word, object_word, labels, gate = batch.upload(
        np.concatenate([positions, [classes, owners[classes]]])
    )
    words = model.decoder.class_words(batch.conditions[batch.upload(used)], part_word, object_word)  # [K, D]
    for rows in _chunks(len(classes), batch.rows_at_once):
        logits = model.decoder.pair_logits(halves, words[rows], part[rows], object_[rows], batch.grid)[0]  # [k, h, w]
        batch.add(contests, photos[rows], logits, labels[rows], gate[rows])
    return contests


def _baseline(
    batch: _Batch,
    num_classes: int,
    class_to_object: np.ndarray,
    present_objects: Sequence[Sequence[int]] | None,
    with_background: bool,
) -> list[Contest]:
    """The baseline knows no objects: every class may win, or with `present_objects` those of the named ones."""
    if present_objects is None:
        possible = np.ones((len(batch.sizes), num_classes + 1), bool)
    else:
        possible = _table(present_objects, int(class_to_object.max()) + 2)[:, np.append(class_to_object, -1)]
        possible[:, -1] = with_background
    photos, classes = np.nonzero(possible)
    labels, contests = batch.upload(classes), batch.contests()
    for rows in _chunks(len(classes), batch.rows_at_once):
        features = batch.decode(photos[rows], classes[rows])[None]  # [1, k, g·g', C]
        batch.add(contests, photos[rows], batch.decoder.logits(features, batch.grid)[0], labels[rows])
    return contests


class _Batch:
    """Photos whose towers have run, and the words; the decoder is run on rows of them as they are asked for."""

    def __init__(
        self,
        model: PartCLIPSegModel | CLIPSegBaseline,
        pixel_values: Tensor,
        text_embeddings: Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> None:
        self.decoder = model.decoder
        self.grid = model.grid(pixel_values)
        self.sizes = sizes
        self.device = pixel_values.device
        self.conditions = torch.cat([text_embeddings.to(model.dtype), model.background])  # [N, D], background last
        self.reduced = self.decoder.reduce_photo(model.encode_photo(pixel_values))  # one [B, 1, T, C] a layer
        row = self.reduced[0].shape[2] * model.config.decoder_intermediate_size * self.reduced[0].element_size()
        self.rows_at_once = max(1, WIDEST.get(self.device.type, WIDEST["cuda"]) // row)

    def upload(self, array: np.ndarray) -> Tensor:
        """To the device, without waiting for what it is doing."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def contests(self, gates: Sequence[Tensor | None] | None = None) -> list[Contest]:
        gates = [None] * len(self.sizes) if gates is None else gates
        return [Contest(size, self.device, gate) for size, gate in zip(self.sizes, gates, strict=True)]

    def add(
        self, contests: list[Contest], photos: np.ndarray, logits: Tensor, labels: Tensor, owners: Tensor | None = None
    ) -> None:
        """Hand logits `[k, h, w]` of rows in order of their `photos [k]` to the photos' contests."""
        present, starts = np.unique(photos, return_index=True)
        for photo, start, end in zip(present, starts, [*starts[1:], len(photos)], strict=True):
            contests[photo].add(logits[start:end], labels[start:end], None if owners is None else owners[start:end])

    def objects(self, first: int) -> tuple[Known, list[Tensor]]:
        """Features of all conditions from `first` on, and the best of them at each photo's pixels."""
        features, contests = [], self.contests()
        total = len(self.conditions) - first
        for rows in _chunks(total, max(1, self.rows_at_once // len(self.sizes))):
            some, _ = self.decoder.decode(self.reduced, self.conditions[first:][rows])  # [B, n, g·g', C]
            labels = torch.arange(total, device=self.device)[rows]
            for contest, logits in zip(contests, self.decoder.logits(some, self.grid), strict=True):
                contest.add(logits, labels)
            features.append(some)
        keys = self.keys(np.arange(len(self.sizes))[:, None], first + np.arange(total)).ravel()
        return (keys, torch.cat(features, dim=1).flatten(0, 1)), [contest.labels for contest in contests]

    def named_objects(self, first: int, named: np.ndarray) -> tuple[Known, list[Tensor]]:
        """The same of those `named`, bool `[B, N_o + 1]`, and background alone, which is the last one."""
        named = named.copy()
        named[:, -1] = True
        photos, objects = np.nonzero(named)
        labels, features, contests = self.upload(objects), [], self.contests()
        for rows in _chunks(len(objects), self.rows_at_once):
            features.append(self.decode(photos[rows], first + objects[rows]))
            logits = self.decoder.logits(features[-1][None], self.grid)[0]
            self.add(contests, photos[rows], logits, labels[rows])
        keys = self.keys(photos, first + objects)
        return (keys, torch.cat(features)), [contest.labels for contest in contests]

    def winners(self, maps: Sequence[Tensor], count: int) -> np.ndarray:
        """bool `[B, count]`: which labels occur in each map, int64 `[H, W]`. Waits for the device."""
        table = torch.zeros(len(maps), count, dtype=torch.bool, device=self.device)
        for row, labels in zip(table, maps, strict=True):
            row.index_fill_(0, labels.flatten(), True)
        return table.cpu().numpy()

    def keys(self, photos: np.ndarray, conditions: np.ndarray) -> np.ndarray:
        """One number for each (photo, condition)."""
        return photos * len(self.conditions) + conditions

    def features(self, keys: np.ndarray, known: Known | None) -> tuple[np.ndarray, Tensor]:
        """Features `[R, g·g', C]` of `keys [R]`, in another order, which is returned with them.

        Those that are not `known` are decoded.
        """
        fresh = np.ones(len(keys), bool) if known is None else ~np.isin(keys, known[0])
        photos, conditions = np.divmod(keys[fresh], len(self.conditions))
        found = [self.decode(photos[rows], conditions[rows]) for rows in _chunks(len(photos), self.rows_at_once)]
        if known is not None:
            found.append(known[1][self.upload(np.searchsorted(known[0], keys[~fresh]))])
        return np.concatenate([keys[fresh], keys[~fresh]]), torch.cat(found)

    def decode(self, photos: np.ndarray, conditions: np.ndarray) -> Tensor:
        """Features `[k, g·g', C]` of rows (photo, condition), `[k]` each."""
        photo, condition = self.upload(np.stack([photos, conditions]))
        features, _ = self.decoder.decode(
            [shared[photo] for shared in self.reduced], self.conditions[condition].unsqueeze(1)
        )
        return features[:, 0]


def _table(members: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """bool `[B, count]`: which indices each photo names."""
    table = np.zeros((len(members), count), bool)
    for row, indices in zip(table, members, strict=True):
        row[list(indices)] = True
    return table


def _find(wanted: Sequence[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Where each of the `wanted` stands among the `keys`, which have it once."""
    order = np.argsort(keys)
    return order[np.searchsorted(keys, np.stack(wanted), sorter=order)]


def _chunks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))
