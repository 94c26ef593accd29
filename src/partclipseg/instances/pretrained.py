"""Load models of transformers that find or outline objects: from a directory or the hub, whole, without torchvision.

Their photos are prepared here with Pillow, since transformers' own preparation of some needs torchvision or SciPy.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from partclipseg.data.resize import resize_photo
from partclipseg.data.values import quoted
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file
from partclipseg.models.directory import read_config
from partclipseg.models.hub import OPTIONAL_FILES
from partclipseg.models.names import find_snapshot, quoted_name
from partclipseg.models.reading import load_library_model, read_json_table
from partclipseg.models.registry import find_device, find_dtype
from partclipseg.models.released import is_released

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue, from 0 to 1."""

CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation of CLIP's training photos, in the same form."""

HALVES = (0.5,) * 3, (0.5,) * 3
"""Mean and standard deviation that map 0 to 1 onto -1 to 1."""

log = logging.getLogger(__name__)

_FILES = (*OPTIONAL_FILES, "processor_config.json", "vocab.txt", "added_tokens.json")

_LICENCES = {"Sam3": "the SAM License of Meta, which has conditions of its own"}
"""Licence that is no open-source licence, by the beginning of the class's name: it is named when a model is loaded."""

_LONGEST = 4096
"""Maximum length of a photo's sides for a detector; the memory grows with the square."""

ColourNumbers = tuple[float, ...]
"""Numbers for red, green and blue."""


class PhotoSettings(NamedTuple):
    """How photos are prepared for a model."""

    shortest: int
    """Length of the shorter side in pixels, as far as the longer one is not over `longest`."""
    longest: int
    statistics: tuple[ColourNumbers, ColourNumbers]
    """Mean and standard deviation of the colours."""


class Pretrained(NamedTuple):
    """A model on its device, ready for inference, and where it came from."""

    model: Any
    folder: Path
    kind: str
    """``model_type`` of its configuration."""

    def preparation(
        self, shortest: int, longest: int, statistics: tuple[ColourNumbers, ColourNumbers]
    ) -> PhotoSettings:
        """Return how the authors prepare photos, from either of the two files that may say it, else the given values.

        Raises `PartCLIPSegError` for values that no preparation has.
        """
        path, found = self._stated()
        edges: list[Any] = [shortest, longest]
        size = found.get("size")
        if size is not None:
            edges = [size.get("shortest_edge"), size.get("longest_edge")] if isinstance(size, dict) else []
            if not edges or not all(type(edge) is int and 1 <= edge <= _LONGEST for edge in edges):
                what = f"a shortest_edge and a longest_edge from 1 to {_LONGEST:,}"
                raise PartCLIPSegError(_wrong(path, "size", size, what))
        return PhotoSettings(edges[0], edges[1], self.statistics(statistics))

    def statistics(self, usual: tuple[ColourNumbers, ColourNumbers]) -> tuple[ColourNumbers, ColourNumbers]:
        """Return mean and deviation of the colours as the authors state them, else the usual ones.

        Raises `PartCLIPSegError` for values that no preparation has.
        """
        path, found = self._stated()
        colours = []
        for name, default, least, what in (
            ("image_mean", usual[0], -math.inf, "three numbers"),
            ("image_std", usual[1], 1e-3, "three numbers above 0"),
        ):
            values = found.get(name)
            colours.append(default if values is None else values)
            if not _is_colour(colours[-1], least):
                raise PartCLIPSegError(_wrong(path, name, values, what))
        return tuple(colours[0]), tuple(colours[1])

    def _stated(self) -> tuple[Path, dict[str, Any]]:
        """Return the file that says how photos are prepared, and what it says; nothing where there is none."""
        for file, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            path = self.folder / file
            if is_file(path):
                table = read_json_table(path)
                if isinstance(found := table if key is None else table.get(key), dict):
                    return path, found
        return self.folder, {}


def _is_colour(values: Any, least: float) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == 3
        and all(type(value) in (int, float) and math.isfinite(value) and value >= least for value in values)
    )


def _wrong(path: Path, name: str, value: Any, what: str) -> str:
    return f"{path} states {name} as {quoted(value)}, which must be {what}: correct it there, or remove the entry"


def load_foreign(
    name: str | Path,
    classes: dict[str, str],
    what: str,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
) -> Pretrained:
    """Load a model whose ``model_type`` is a key of `classes`, by the class of transformers that stands there.

    Args:
        name: directory, or name on the hub.
        classes: class of transformers for each ``model_type``.
        what: what such a model is called in messages, with an article.
        device: as for `PartSegmenter.from_pretrained`.
        dtype: number type; None is float32 on every device, since boxes lose pixels in bfloat16.

    A licence with conditions is named in the log. Raises `PartCLIPSegError` where there is no such model, or it is
    damaged, of another type, or cannot be loaded here; `UsageError` for an unknown device or dtype.
    """
    target = find_device(device)
    number_type = find_dtype("float32" if dtype is None else dtype, target)
    remedy = f"give the directory of {what}, or the name of one on the Hugging Face hub where there is network"
    if is_released(name):
        raise PartCLIPSegError(f"{name} is a model that segments parts, not {what}: {remedy}")
    kind = read_config(name, remedy=remedy).get("model_type")
    if not isinstance(kind, str) or kind not in classes:
        raise PartCLIPSegError(
            f"{name} holds a model of type {quoted_name(kind)}, and {what} must be one of {', '.join(classes)}: "
            "name another"
        )
    folder = Path(find_snapshot(name, _FILES, remedy))
    for beginning, licence in _LICENCES.items():
        if classes[kind].startswith(beginning):
            log.warning("the weights of %s are under %s: read it before you use them", name, licence)
    # Files of the authors may hold more than the class takes, such as SAM 2's memory for videos.
    model = load_library_model(getattr(transformers, classes[kind]), folder, name, number_type)
    return Pretrained(model.eval().to(target), folder, kind)


def to_values(
    photo: np.ndarray, size: tuple[int, int], statistics: tuple[ColourNumbers, ColourNumbers]
) -> Tensor:
    """Return a photo, uint8 `[H, W, 3]`, as float32 `[1, 3, h, w]` of `size`, less the mean and over the deviation."""
    mean, deviation = (np.array(values, np.float32) for values in statistics)
    resized = resize_photo(photo, size).astype(np.float32) / 255
    return torch.from_numpy((resized - mean) / deviation).permute(2, 0, 1)[None].contiguous()


def squared(photo: np.ndarray) -> np.ndarray:
    """Return a photo with black at its right or below, so that it is a square."""
    side = max(photo.shape[:2])
    whole = np.zeros((side, side, 3), np.uint8)
    whole[: photo.shape[0], : photo.shape[1]] = photo
    return whole


def resized_shape(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Return height and width at which the shorter side is `shortest`, or less where the longer exceeded `longest`.

    The aspect ratio is kept but for rounding, which is that of Grounding DINO's authors.
    """
    short, long = min(height, width), max(height, width)
    exact = min(float(shortest), longest * short / long)
    if round(exact) == short:
        return height, width
    first, second = max(round(exact), 1), max(int(exact * long / short), 1)
    return (first, second) if height <= width else (second, first)


def enlarge(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return bool `[H, W]` of `size`: where the values `[h, w]`, such as logits, enlarged bilinearly, exceed 0."""
    whole = F.interpolate(values[None, None].float(), size, mode="bilinear", align_corners=False)
    return (whole[0, 0] > 0).cpu().numpy()
