"""CVAT auto-annotation: this function labels the parts in the images of a task, as masks or polygons.

    pip install cvat-cli
    cvat-cli --server-host https://app.cvat.ai task auto-annotate 137 --function-file integrations/cvat.py \
        -p model=str:models/pascal -p vocabulary=str:"dog: head, torso, leg, tail; bus: body, wheel"

The labels of the task are the names of the parts, such as ``dog's ear``, of the type *mask*; with
``--conv-mask-to-poly`` they are of the type *polygon*. docs/integrations.md says more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvat_sdk.auto_annotation as cvat
from cvat_sdk.masks import encode_mask
from PIL import Image

from partclipseg import Outliner, PartSegmenter, Vocabulary
from partclipseg.formats.polygons import mask_polygons
from partclipseg.instances.sources import open_instance_source


class PartFunction:
    """Detection function of CVAT: it answers one shape for each part of an image, or for each piece of it as a polygon.

    With instances, the parts of one object share a group.
    """

    def __init__(self, segmenter: PartSegmenter, vocabulary: Vocabulary, **options: Any) -> None:
        """Ask `segmenter` for the classes of `vocabulary`; `options` are those of a call of it, such as ``zoom``."""
        self.segmenter = segmenter
        self.vocabulary = vocabulary
        self.options = options
        self.spec = cvat.DetectionFunctionSpec(
            labels=[cvat.label_spec(name, index, type="mask") for index, name in enumerate(vocabulary.names)]
        )

    def detect(self, context: cvat.DetectionFunctionContext, image: Image.Image) -> list[Any]:
        """Return the shapes in an image whose score reaches the threshold of `context`."""
        return list(self._shapes(image, context.conf_threshold or 0.0, context.conv_mask_to_poly))

    def _shapes(self, image: Image.Image, threshold: float, as_polygons: bool) -> Iterator[Any]:
        for segment in self.segmenter(image, self.vocabulary, **self.options):
            if segment.score < threshold:
                continue
            common = {"score": segment.score, "group": segment.instance or 0}  # CVAT's group 0 is none
            if not as_polygons:
                yield cvat.mask(segment.index, encode_mask(segment.mask), **common)
                continue
            for polygon in mask_polygons(segment.mask):
                yield cvat.polygon(segment.index, polygon.ravel().tolist(), **common)


def create(
    model: str | None = None,
    vocabulary: str | None = None,
    device: str | None = None,
    zoom: bool = False,
    min_part_probability: float | None = None,
    instances: str | None = None,
    outlines: str | None = None,
) -> PartFunction:
    """Make the function from the parameters that `cvat-cli` passes with ``-p name=type:value``.

    Args:
        model: what `PartSegmenter.from_pretrained` takes; without it the built-in model, which knows PartShapes only.
        vocabulary: what ``--vocabulary`` of `partclipseg predict` takes; without it the model's own words.
        device: device to run on.
        zoom: segment crops around small objects a second time.
        min_part_probability: minimum probability of a part at a pixel.
        instances: ``components``, or what `Detector.from_pretrained` takes: the parts of one object then share a group.
        outlines: what `Outliner.from_pretrained` takes, to draw masks of the objects.

    Raises `PartCLIPSegError` where the model cannot be loaded, and `UsageError` for wrong words.
    """
    segmenter = PartSegmenter.from_pretrained(model, device)
    segmenter.least_part_probability(min_part_probability, objects_known=False)
    words = segmenter.vocabulary if vocabulary is None else Vocabulary.load(vocabulary)
    if words is None:
        raise ValueError('the model has no words of its own: give -p vocabulary=str:"dog: head, torso, leg, tail"')
    options: dict[str, Any] = {"zoom": zoom, "min_part_probability": min_part_probability}
    if instances is not None:
        options["instances"] = open_instance_source(instances, device=device)
    if outlines is not None:
        options["outlines"] = Outliner.from_pretrained(outlines, device)
    return PartFunction(segmenter, words, **options)
