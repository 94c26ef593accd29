"""Pictures that say whose each pixel is: numbers of instances in 16 bits, and the three channels of PartPQ."""

from __future__ import annotations

import numpy as np
from PIL import Image

from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.format import Format, LabelledPhoto
from partclipseg.formats.segment import Owners
from partclipseg.vocabulary import Vocabulary

UNKNOWN = 255
"""Value of class and part in the PartPQ picture where there is none."""

_MOST_INSTANCES, _MOST_WORDS = 254, 99


def number_image(photo: LabelledPhoto) -> Image.Image:
    """Return a 16-bit grey picture (I;16) of the owner's number at each pixel; 0 is none."""
    return Image.fromarray((_owners(photo).instance_map + 1).astype(np.uint16))


def partpq_image(photo: LabelledPhoto) -> Image.Image:
    """Return a picture of three channels, 8 bits each, as PartPQ's evaluators read predictions.

    Class (object index + 1), number of the instance, part (place among the object's parts + 1). A pixel of an object
    without a part has the part 255, a pixel without an owner is 255, 0, 255.

    Raises `PartCLIPSegError` for more instances, objects or parts of one object than the form can number.
    """
    owners, vocabulary = _owners(photo), photo.vocabulary
    refusal = _refusal(vocabulary) or _too_many(len(owners.instances), _MOST_INSTANCES, "instances in a photo")
    if refusal:
        raise PartCLIPSegError(f"PartPQ's picture {refusal}: ask for fewer")
    places = vocabulary.class_to_place
    table = np.full(len(vocabulary) + 1, UNKNOWN, dtype=np.uint8)  # label -1 reads the last entry
    table[: len(places)] = places + 1
    owned = owners.instance_map >= 0
    channels = (
        np.where(owned, photo.object_map + 1, UNKNOWN),
        owners.instance_map + 1,
        np.where(owned, table[photo.label_map], UNKNOWN),
    )
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _refusal(vocabulary: Vocabulary) -> str | None:
    parts = int(vocabulary.class_to_place.max(initial=-1)) + 1
    return _too_many(len(vocabulary.objects), _MOST_WORDS, "objects") or _too_many(
        parts, _MOST_WORDS, "parts of one object"
    )


def _too_many(count: int, most: int, what: str) -> str | None:
    return f"can number {most} {what}, and there are {count}" if count > most else None


def _owners(photo: LabelledPhoto) -> Owners:
    if photo.owners is None:
        raise PartCLIPSegError(f"{photo.name}: no instances were asked for: leave this format out, or ask for them")
    return photo.owners


NUMBERS = Format(
    name="instance-png",
    help="images of the numbers of instances in 16 bits; 0 is none",
    suffix=".instance.png",
    make=lambda photo, _: number_image(photo),
    needs_instances=True,
    folder="instances",
)

PARTPQ = Format(
    name="partpq",
    help="images of class, instance and part in three channels, for the metric PartPQ",
    suffix=".partpq.png",
    make=lambda photo, _: partpq_image(photo),
    needs_instances=True,
    refusal=_refusal,
    folder="partpq",
)
