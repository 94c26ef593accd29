"""Random changes to a photo and its two label maps together, from an explicit generator.

Photos are interpolated (bilinear, antialiased), labels take the nearest pixel; both see the same geometry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance

from partclipseg.checks import check_fields
from partclipseg.data.photo_size import size_at_shortest_edge
from partclipseg.data.resize import first_pixels, nearest_pixels, resize_photo
from partclipseg.data.sample import OUTSIDE, UNLABELLED, PartSample, label_areas
from partclipseg.errors import UsageError
from partclipseg.vocabulary import Vocabulary

GREY = 128
"""Value of the pixels that a photo is filled up with."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes that `augment` makes to a sample: flip, crop, scale and colours, in this order."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    swap_left_right: bool = True
    """Exchange the words left and right (*left mirror*, *right mirror*) in the labels of a flipped photo."""
    crop_edge: tuple[float, float] | None = (0.6, 1.0)
    """Range of the share of each edge that a random crop keeps. None turns the crop off."""
    crop_keeps: float = 0.5
    """Share of its pixels that at least one labelled part must keep in a crop."""
    crop_attempts: int = 10
    """Number of crops tried before the photo is left whole."""
    shortest_edge: tuple[int, int] | None = None
    """Least and greatest length, in pixels, of the shortest edge after scaling. None turns the scaling off."""
    max_size: int = 1333
    """Greatest length of the longest edge after scaling, in pixels. It takes precedence over `shortest_edge`."""
    fit: Literal["stretch", "crop", "corner"] = "stretch"
    """How a photo of data in files gets the model's size after that: stretched to it; or cut to it, at a random place
    (crop) or at the top left (corner), and filled up with grey without a label. In place of a random cut without any
    labelled part another photo is drawn. Both are those of PartCATSeg's code, which takes the label at the top left of
    each new pixel, not under its centre."""
    brightness: float = 0.2
    """Strength x of the change of brightness, which is multiplied by a factor from [1 - x, 1 + x]. 0 turns it off."""
    contrast: float = 0.2
    """Strength of the change of contrast around the mean grey, as for `brightness`."""
    saturation: float = 0.2
    """Strength of the change of saturation around the grey photo, as for `brightness`."""
    hue: float = 0.0
    """Greatest turn of the hue in degrees, to either side, from 0 to 180. 0 turns it off; for data in files."""
    ssd: bool = False
    """Change colours as the detector SSD was trained, for data in files: brightness is added, contrast multiplies all
    values, and each change is made with probability 1/2."""
    object_crop: float = 0.0
    """Probability of a crop around one object in place of the random one, as predictions with instances look at it,
    with a margin in which whatever lies beside it keeps its labels. It needs data that tell objects apart."""

    def __post_init__(self) -> None:
        check_fields(self, "augmentation")
        for name in ("flip", "crop_keeps", "brightness", "contrast", "saturation", "object_crop"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"augmentation: {name} must lie in 0..1, not {getattr(self, name)}")
        if self.crop_edge and not 0 < self.crop_edge[0] <= self.crop_edge[1] <= 1:
            raise UsageError(f"augmentation: crop_edge must be two rising shares in (0, 1], not {self.crop_edge}")
        if self.shortest_edge and not 0 < self.shortest_edge[0] <= self.shortest_edge[1]:
            raise UsageError(f"augmentation: shortest_edge must be two rising sizes, not {self.shortest_edge}")
        if not 0 <= self.hue <= 180:
            raise UsageError(f"augmentation: hue must lie in 0..180, not {self.hue}")
        if self.crop_attempts < 1 or self.max_size < 1:
            raise UsageError("augmentation: crop_attempts and max_size must be at least 1")

    @classmethod
    def none(cls) -> Augmentation:
        """Return settings that change nothing."""
        return cls(flip=0, crop_edge=None, brightness=0, contrast=0, saturation=0)

    @classmethod
    def published(cls) -> Augmentation:
        """Return the published settings: horizontal flip, shortest edge 800, longest edge at most 1333."""
        return cls(crop_edge=None, shortest_edge=(800, 800), brightness=0, contrast=0, saturation=0)

    @classmethod
    def partcatseg(cls, side: int = 384) -> Augmentation:
        """Return the settings of PartCATSeg and CAT-Seg, whose photos have this `side` in pixels: flip, a random square
        of the photo at this shortest edge, SSD's changes of colour."""
        edges = {"shortest_edge": (side, side), "max_size": 2 * side, "crop_edge": None, "fit": "crop"}
        return cls(**edges, ssd=True, brightness=32 / 255, contrast=0.5, saturation=0.5, hue=36)


@dataclass(frozen=True)
class Mirror:
    """Table with the index that replaces each index of a vocabulary when the photo is flipped.

    A *left X* whose *right X* is not in the vocabulary becomes `UNLABELLED` (an object: `OUTSIDE`): the vocabulary
    has no word for it after the flip.
    """

    classes: np.ndarray
    """New class of each class, int32 `[N_c]`."""
    objects: np.ndarray
    """New object of each object, int32 `[N_o]`."""

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Mirror | None:
        """Make the table of a vocabulary; None if no word says left or right."""
        classes = _mirrored_indices(vocabulary.names, UNLABELLED)
        objects = _mirrored_indices(vocabulary.objects, OUTSIDE)
        unchanged = (classes == np.arange(len(classes))).all() and (objects == np.arange(len(objects))).all()
        return None if unchanged else cls(classes, objects)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Make the generator of one sample. The same three numbers give the same generator in every worker."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index)))


def augment(
    sample: PartSample,
    generator: np.random.Generator,
    config: Augmentation,
    mirror: Mirror | None = None,
    size: tuple[int, int] | None = None,
) -> PartSample:
    """Return a changed copy of `sample` with the same key and without an instance map.

    `mirror` (`Mirror.of(vocabulary)`) exchanges left and right words on a flip. `size` is the (height, width) of the
    result, whatever the aspect ratio; None keeps the size after crop and scale. A crop around an object has the shape
    of `size`, or else of the photo. Raises `UsageError` if one is drawn and the sample has no instance map.
    """
    image, parts = sample.image, sample.part_labels
    # Every change of the geometry keeps rows and columns apart: the labels are looked up once, at the end.
    rows, columns = (np.arange(edge) for edge in image.shape[:2])
    flipped = generator.random() < config.flip
    if flipped:
        image, parts, columns = image[:, ::-1], parts[:, ::-1], columns[::-1]
    window = None
    # No number is drawn for what is turned off, so that runs without it stay as they were.
    if config.object_crop and generator.random() < config.object_crop:
        window = _object_window(sample, flipped, generator, size or image.shape[:2])
    if window is None and config.crop_edge is not None:
        window = _crop_window(parts, generator, config)
    if window is not None:
        image, rows, columns = image[window], rows[window[0]], columns[window[1]]
    cut = size if config.fit != "stretch" else None
    sizes = [size] if size is not None and cut is None else []
    if config.shortest_edge is not None:
        low, high = config.shortest_edge
        edge = int(generator.integers(low, high, endpoint=True))
        sizes.insert(0, size_at_shortest_edge(image.shape[:2], edge, config.max_size))
    image = resize_photo(image, *sizes)
    pixels = nearest_pixels if config.fit == "stretch" else first_pixels
    for height, width in sizes:
        rows, columns = rows[pixels(len(rows), height)], columns[pixels(len(columns), width)]
    if cut is not None:
        place = [_span(length, kept, generator, config.fit) for length, kept in zip(image.shape, cut, strict=False)]
        image, rows, columns = image[place[0], place[1]], rows[place[0]], columns[place[1]]
    parts, objects = (labels[rows][:, columns] for labels in (sample.part_labels, sample.object_labels))
    if flipped and mirror is not None and config.swap_left_right:
        parts, objects = _look_up(mirror.classes, parts), _look_up(mirror.objects, objects)
    image = _jitter_colours(image, generator, config)
    if cut is not None:
        image = _filled(image, cut, GREY)
        parts, objects = (_filled(labels, cut, UNLABELLED) for labels in (parts, objects))
    return PartSample(*map(np.ascontiguousarray, (image, parts, objects)), key=sample.key)


def _span(length: int, kept: int, generator: np.random.Generator, fit: str) -> slice:
    """Return the `kept` of `length` pixels, or all: at a random place for "crop", else from the first on."""
    start = int(generator.integers(max(0, length - kept), endpoint=True)) if fit == "crop" else 0
    return slice(start, start + kept)


def _filled(values: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """Fill `values [h, w, …]` up to height and width `size` at the bottom and the right."""
    filled = np.full((*size, *values.shape[2:]), value, values.dtype)
    filled[: values.shape[0], : values.shape[1]] = values
    return filled


def _crop_window(parts: np.ndarray, generator: np.random.Generator, config: Augmentation) -> tuple[slice, slice]:
    assert config.crop_edge is not None
    areas = label_areas(parts)
    labelled = areas > 0
    for _ in range(config.crop_attempts):
        share = generator.uniform(*config.crop_edge)
        rows, columns = (_random_span(edge, share, generator) for edge in parts.shape)
        kept = label_areas(parts[rows, columns], len(areas))
        if not labelled.any() or (kept[labelled] >= config.crop_keeps * areas[labelled]).any():
            return rows, columns
    return slice(None), slice(None)


def _object_window(
    sample: PartSample, flipped: bool, generator: np.random.Generator, shape: tuple[int, ...]
) -> tuple[slice, slice] | None:
    """Draw one of the objects with a part label; return its window, or None if the photo shows none."""
    from partclipseg.maps.crops import Edges, crop_around  # with torch, which an import of settings should not need

    if sample.instances is None:
        raise UsageError("object_crop needs data that tell objects apart: set it to 0, or add instances to the labels")
    instances = sample.instances[:, ::-1] if flipped else sample.instances
    parts = sample.part_labels[:, ::-1] if flipped else sample.part_labels
    candidates = np.unique(instances[(instances >= 0) & (parts >= 0)])
    if not len(candidates):
        return None
    rows, columns = np.nonzero(instances == candidates[generator.integers(len(candidates))])
    edges = Edges(rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    return crop_around(0, edges, (shape[0], shape[1]), (instances.shape[0], instances.shape[1])).window


def _random_span(edge: int, share: float, generator: np.random.Generator) -> slice:
    length = max(1, round(edge * share))
    start = int(generator.integers(edge - length, endpoint=True))
    return slice(start, start + length)


def _jitter_colours(image: np.ndarray, generator: np.random.Generator, config: Augmentation) -> np.ndarray:
    if config.ssd:
        return _ssd_colours(image, generator, config)
    changes = (
        (ImageEnhance.Brightness, config.brightness),
        (ImageEnhance.Contrast, config.contrast),
        (ImageEnhance.Color, config.saturation),
    )
    changes = [(enhance, amount) for enhance, amount in changes if amount]
    if changes:
        picture = Image.fromarray(np.ascontiguousarray(image))
        for enhance, amount in changes:
            picture = enhance(picture).enhance(generator.uniform(1 - amount, 1 + amount))
        image = np.asarray(picture)
    return _turned(image, generator.uniform(-config.hue, config.hue)) if config.hue else image


def _ssd_colours(image: np.ndarray, generator: np.random.Generator, config: Augmentation) -> np.ndarray:
    """Change colours as SSD does (Liu et al., ECCV 2016): brightness first, contrast before or after the other two."""

    def brightness(image: np.ndarray, change: float) -> np.ndarray:
        return (image + 255 * change).clip(0, 255).astype(np.uint8)

    def contrast(image: np.ndarray, change: float) -> np.ndarray:
        return (image * (1 + change)).clip(0, 255).astype(np.uint8)

    def saturation(image: np.ndarray, change: float) -> np.ndarray:
        return _in_hsv(image, 1, lambda value: min(255, int(value * (1 + change))))

    others = [(saturation, config.saturation), (_turned, config.hue)]
    last = [(contrast, config.contrast)]
    others = [*last, *others] if generator.random() < 0.5 else [*others, *last]
    for change, amount in [(brightness, config.brightness), *others]:
        if amount and generator.random() < 0.5:
            image = change(image, generator.uniform(-amount, amount))
    return image


def _turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn the hue of uint8 `[H, W, 3]`."""
    return _in_hsv(image, 0, lambda value: (value + round(degrees / 360 * 256)) % 256)


def _in_hsv(image: np.ndarray, band: int, change: Callable[[int], int]) -> np.ndarray:
    """Change a band of uint8 `[H, W, 3]`, RGB, value by value: 0 is the hue, 1 the saturation."""
    bands = list(Image.fromarray(np.ascontiguousarray(image)).convert("HSV").split())
    bands[band] = bands[band].point([change(value) for value in range(256)])
    return np.asarray(Image.merge("HSV", bands).convert("RGB"))


def _look_up(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.where(labels >= 0, table[labels], labels)


def _mirrored_indices(names: Sequence[str], missing: int) -> np.ndarray:
    index = {name.casefold(): i for i, name in enumerate(names)}
    return np.array([index.get(_swap_words(name).casefold(), missing) for name in names], dtype=np.int32)


def _swap_words(name: str) -> str:
    """Exchange left and right: *front_left door* becomes *front_right door*; *upright* and *leftover* stay."""
    return re.sub(
        r"(?<![^\W_])(left|right)(?![^\W_])",
        lambda found: "right" if found[0].casefold() == "left" else "left",
        name,
        flags=re.IGNORECASE,
    )
