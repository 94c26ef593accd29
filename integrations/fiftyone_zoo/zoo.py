"""The model as FiftyOne sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np

from partclipseg import Outliner, PartResult, PartSegmenter, Segment
from partclipseg.instances.sources import open_instance_source


class PartModel(fom.Model):
    """A segmenter whose answers are `fiftyone.Detections`: a box, a mask and a score for each part of a photo."""

    def __init__(
        self, model: str | None = None, vocabulary: Any = None, device: str | None = None, **options: Any
    ) -> None:
        """Load the model; the arguments are those of `load_model` beside this file."""
        self.segmenter = PartSegmenter.from_pretrained(model, device)
        self.vocabulary = vocabulary
        if isinstance(source := options.get("instances"), str):
            options["instances"] = open_instance_source(source, device=device)
        if isinstance(outlines := options.get("outlines"), str):
            options["outlines"] = Outliner.from_pretrained(outlines, device)
        self.options = options

    @property
    def media_type(self) -> str:
        """Return the kind of media that the model takes."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Whether photos of a batch must have one size: they need not."""
        return False

    @property
    def transforms(self) -> None:
        """Return None: the segmenter prepares photos itself."""
        return None

    @property
    def preprocess(self) -> bool:
        """Whether photos are prepared by `transforms`: they are not."""
        return False

    def predict(self, arg: np.ndarray) -> fo.Detections:
        """Return the parts of a photo, uint8 `[H, W, 3]`."""
        return detections(self.segmenter(arg, self.vocabulary, **self.options))

    def predict_all(self, args: Iterable[np.ndarray]) -> list[fo.Detections]:
        """Return the parts of each photo; the photos run as one batch."""
        photos = list(args)
        results = self.segmenter(photos, self.vocabulary, batch_size=max(len(photos), 1), **self.options)
        return [detections(result) for result in results]


def detections(result: PartResult) -> fo.Detections:
    """Return the parts of a photo.

    The attributes ``object`` and ``part`` of each hold its two words, and ``owner`` the number of its object in the
    photo, if instances were asked for.
    """
    return fo.Detections(detections=[_detection(segment) for segment in result])


def _detection(segment: Segment) -> fo.Detection:
    x, y, width, height = segment.box
    mask = segment.mask
    rows, columns = mask.shape
    return fo.Detection(
        label=segment.name,
        bounding_box=[x / columns, y / rows, width / columns, height / rows],
        mask=mask[y : y + height, x : x + width],
        confidence=segment.score,
        object=segment.object,
        part=segment.part,
        owner=segment.instance,
    )
