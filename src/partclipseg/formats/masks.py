"""Pictures of single parts: one PNG for each, white on black, or its probability at every pixel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.data.coco_masks import decode_mask
from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.format import Content, DataSet, Format, LabelledPhoto, encoded
from partclipseg.vocabulary import Vocabulary

FOLDER = "masks"
"""Folder of the masks in a labelled data set; it has a folder for each photo."""

_LONGEST = 200
"""Maximum length of a file name in bytes, without its suffix."""


def mask_names(words: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a file name such as ``dog_ear.png`` for each (object, part), ``dog_2_ear.png`` for (object, number, part).

    Characters that some system refuses in a name become ``_``; a name that was taken gets a number.
    """
    taken: set[str] = set()
    for some in words:
        plain = re.sub(r"""[\s<>:"/\\|?*'\x00-\x1f]+""", "_", "_".join(some)).strip("._") or "part"
        stem = name = plain.encode("utf-8", "replace")[:_LONGEST].decode(errors="ignore")
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        yield f"{name}.png"


def white_on_black(mask: np.ndarray) -> Image.Image:
    """Return a mask, bool `[H, W]`, as an 8-bit grey picture: 255 inside, 0 outside."""
    return Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))


def _words(segment: dict[str, Any]) -> list[str]:
    """Return the words that name the mask of a `segment_entry`."""
    owner = segment.get("instance")
    return [segment["object"], *([] if owner is None else [str(owner)]), segment["part"]]


def _make(photo: LabelledPhoto) -> Iterator[tuple[str, Image.Image]]:
    names = mask_names(_words(photo.entry(segment)) for segment in photo.segments)
    for name, segment in zip(names, photo.segments, strict=True):
        yield name, white_on_black(segment.mask)


def _make_soft(photo: LabelledPhoto) -> Iterator[tuple[str, Image.Image]]:
    if photo.probability is None:
        raise PartCLIPSegError(
            "soft masks need the model's probabilities, which this result was made without: leave soft-masks out"
        )
    # The model knows one probability of a class, whosever part it is.
    found = {segment.index for segment in photo.segments}
    for index, name in enumerate(_class_files(photo.vocabulary)):
        if index in found:
            yield name, Image.fromarray(np.rint(255 * photo.probability(index)).astype(np.uint8))


def _class_files(vocabulary: Vocabulary) -> Iterator[str]:
    return mask_names((pair.object, pair.part) for pair in vocabulary.classes)


def _collect(data_set: DataSet) -> Iterator[tuple[str, Content]]:
    for _, record in data_set.records:
        stem, segments = data_set.stem(record["photo"]), record["segments"]
        names = mask_names(map(_words, segments))
        for name, segment in zip(names, segments, strict=True):
            mask = decode_mask(segment["rle"], (record["height"], record["width"]))
            yield f"{FOLDER}/{stem}/{name}", encoded(white_on_black(mask))


FORMAT = Format(
    name="masks",
    help="a picture of each part, white on black, named as dog_ear.png, or dog_1_ear.png with instances",
    suffix=".masks",
    make_many=_make,
    collect=_collect,
)

SOFT = Format(
    name="soft-masks",
    help="a picture of the probability of each part found, 0 to 255 at every pixel; takes one more pass of the model",
    suffix=".soft-masks",
    make_many=_make_soft,
    on_request=True,
    folder="soft-masks",
    class_files=_class_files,
)
