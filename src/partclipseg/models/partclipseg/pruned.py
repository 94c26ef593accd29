"""Label maps without the classes that cannot win: the same maps as full decoding, for a fraction of the work.

In Pred-All a class can be predicted only at pixels where its object has the greatest of the object logits at photo
size. So objects and background are decoded first and upsampled; classes of objects that win nowhere, and parts that
only those have, are never decoded. In Oracle-Obj the same holds of objects that are not named. Every value that is
computed is computed as in `model.forward`, from the same numbers; matrix products of another shape may round
differently in the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from partclipseg.maps.label_maps import Contest, LabelMaps
from partclipseg.models.clipseg_rows import DecodedPhotos, Known, decode_rows, named_rows, slices
from partclipseg.models.cuda_graphs import Graphs
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.model import PartCLIPSegModel, with_object_words
from partclipseg.vocabulary import Vocabulary


@torch.inference_mode()
def pruned_maps(
    model: PartCLIPSegModel,
    pixel_values: Tensor,
    words: Words,
    sizes: Sequence[tuple[int, int]],
    present_objects: Sequence[Sequence[int]] | None = None,
    with_background: bool = False,
) -> list[LabelMaps]:
    """Compute the label maps of `PartModel.label_maps`, with pruned decoding.

    A batch waits for its device once, to learn which objects have won. On a CUDA device small batches are captured
    and replayed.

    Args:
        pixel_values: `[B, 3, H, W]`, normalised.
        words, sizes, present_objects, with_background: as there.
    """
    vocabulary, graphs = words.vocabulary, model.graphs()
    num_parts, num_objects = len(vocabulary.parts), len(vocabulary.objects)
    named = None if present_objects is None else named_rows(present_objects, num_objects + 1)  # [B, N_o + 1]
    with nullcontext() if graphs is None else graphs.lock:
        first = num_parts if named is None else None
        embeddings = words.embeddings[: num_parts + num_objects]
        photos = DecodedPhotos(model, pixel_values, embeddings, sizes, graphs, first)
        class_words = with_object_words(photos.conditions, words)

        # 1. Which objects can have pixels: those that win some, background among them, or those named.
        known, wins, contest = _winning_objects(photos, num_parts, num_objects, named, with_background)

        # 2. Their classes, and the features and words that these are made of.
        needed = _needed(photos, model, vocabulary, wins, known, len(class_words) > len(photos.conditions))

        # 3. Logits of the classes; the best at every pixel is kept as they come.
        if needed is not None:
            _decode_needed(photos, model, needed, known, contest, class_words)
        return contest.maps(photos.upload(vocabulary.class_to_object))


def _winning_objects(
    photos: DecodedPhotos, num_parts: int, num_objects: int, named: np.ndarray | None, with_background: bool
) -> tuple[Known, np.ndarray, Contest]:
    """Return decoded features, the objects with pixels, bool `[B, N_o + 1]`, and their contest."""
    if named is not None and not with_background:
        return photos.nothing(), named, photos.contest()
    known, gate = photos.objects(num_parts) if named is None else photos.named_objects(num_parts, named)
    return known, photos.winners(gate, num_objects + 1), photos.contest(gate)


Indices = TypeVar("Indices", np.ndarray, Tensor)


class _Rows(NamedTuple, Generic[Indices]):
    """Rows that the classes of a batch are made of, int64: arrays on the host, or tensors on the device."""

    fresh_photos: Indices
    fresh_conditions: Indices
    """`[F]` each: features to decode."""
    found: Indices
    """`[Q]`: indices of the used features among the known ones."""
    parts: Indices
    objects: Indices
    """`[K]` each: features of the classes, by index among the fresh, then the found."""
    part_words: Indices
    object_words: Indices
    """`[K]` each: conditions whose words make the classes' words."""
    labels: Indices
    owners: Indices
    """`[K]` each: classes and their objects."""


class _Needed(NamedTuple):
    """Classes to decode: rows (photo, class) in order of the photos."""

    photos: np.ndarray
    """int64 `[K]`: photo of each row."""
    rows: _Rows[np.ndarray]
    """Rows that the classes are made of, on the host."""
    graphs: Graphs | None
    """The graph cache if decoding them is to be captured."""


def _needed(
    photos: DecodedPhotos,
    model: PartCLIPSegModel,
    vocabulary: Vocabulary,
    wins: np.ndarray,
    known: Known,
    object_words: bool,
) -> _Needed | None:
    """List the classes of the objects with pixels, and the rows that they are made of; None if there are none."""
    # Rows (photo, class), in order of the photos; background belongs to itself.
    owners = np.append(vocabulary.class_to_object, len(vocabulary.objects))  # [N_c + 1]
    rows_of, classes = np.nonzero(wins[:, owners])  # [K] each
    if len(classes) == 0:
        return None
    to_part, to_object = torch.from_numpy(vocabulary.class_to_part), torch.from_numpy(vocabulary.class_to_object)
    rows = model.class_rows(to_part, to_object, len(vocabulary.parts), len(photos.conditions), object_words)
    part_rows, object_rows, object_word_rows = (x.numpy()[classes] for x in rows)  # [K] each

    # Rows (photo, condition) that they are made of, each once: decoded now, or known.
    part_keys, object_keys = (photos.keys(rows_of, rows) for rows in (part_rows, object_rows))
    keys = np.union1d(part_keys, object_keys)
    is_known = np.isin(keys, known[0])
    fresh, found = keys[~is_known], keys[is_known]
    graphs = photos.graphs_for(max(len(fresh), len(classes)))
    # One length for all lists, a little padded: shapes of captured graphs then come again more often.
    pad = partial(_pad, length=_rounded(max(len(fresh), len(classes)))) if graphs else np.asarray
    fresh, found = pad(fresh), pad(found)
    places = _find([part_keys, object_keys], np.concatenate([fresh, found]))
    host = _Rows(
        *np.divmod(fresh, len(photos.conditions)),
        np.searchsorted(known[0], found),
        *map(pad, [*places, part_rows, object_word_rows, classes, owners[classes]]),
    )
    return _Needed(rows_of, host, graphs)


def _decode_needed(
    photos: DecodedPhotos,
    model: PartCLIPSegModel,
    needed: _Needed,
    known: Known,
    contest: Contest,
    class_words: Tensor,
) -> None:
    """Decode the needed classes, and let each compete at the pixels of its photo."""
    count, graphs = len(needed.photos), needed.graphs
    lengths = tuple(len(rows) for rows in needed.rows)
    device = photos.upload(np.concatenate(needed.rows))
    compute = partial(_class_logits, model, photos.grid, photos.rows_at_once, lengths)
    inputs = device, known[1], class_words, *photos.reduced
    pieces = graphs(lambda *x: list(compute(*x)), ("classes", lengths), *inputs) if graphs else compute(*inputs)
    *_, labels, owner = device.split(lengths)
    for some, logits in zip(slices(count, photos.rows_at_once), pieces, strict=True):  # [k, h, w]
        contest.add(needed.photos[some], logits, labels[some], owner[some])


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
    """Yield logits `[k, h, w]` of classes, `_Rows` of `lengths` in turn; `known [M, g·g', C]` are features.

    Words that stand for objects may follow the `conditions`.
    """
    decoder, row = model.decoder, _Rows(*rows.split(lengths))
    features = [
        decode_rows(decoder, reduced, row.fresh_photos[some], conditions[row.fresh_conditions[some]])
        for some in slices(len(row.fresh_photos), rows_at_once)
    ]
    halves = decoder.merge_halves(torch.cat([*features, known[row.found]])[None])  # twice [1, F + Q, g·g', C]
    words = decoder.class_words(conditions, row.part_words, row.object_words)  # [K, D]
    for some in slices(len(words), rows_at_once):
        yield decoder.pair_logits(halves, words[some], row.parts[some], row.objects[some], grid)[0]


def _rounded(count: int) -> int:
    """Round `count` up by at most an eighth or 3, so that few distinct numbers occur."""
    step = max(4, 1 << max(0, count.bit_length() - 4))
    return -(-count // step) * step


def _pad(rows: np.ndarray, length: int) -> np.ndarray:
    """Repeat the last of the `rows` up to a length; no rows stay none."""
    return rows[np.minimum(np.arange(length), len(rows) - 1)] if len(rows) else rows


def _find(wanted: Sequence[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Return the index of each of the `wanted` among the `keys`."""
    order = np.argsort(keys)
    return order[np.searchsorted(keys, np.stack(wanted), sorter=order)]
