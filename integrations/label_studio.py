"""Label Studio ML backend: it predicts the parts of a task's photo for the labels of the project.

    pip install git+https://github.com/HumanSignal/label-studio-ml-backend
    PARTCLIPSEG_MODEL=models/pascal python integrations/label_studio.py --port 9090

Labels such as ``dog's ear`` of a ``PolygonLabels`` or ``BrushLabels`` control are the words that the model is asked
for. PARTCLIPSEG_MODEL is what `PartSegmenter.from_pretrained` takes, the built-in model without it; PARTCLIPSEG_DEVICE
is the device; PARTCLIPSEG_INSTANCES is ``components`` or a detector, so that each object's parts are regions of their
own. docs/integrations.md says more.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase

from partclipseg import PartCLIPSegError, PartResult, PartSegmenter, Vocabulary, read_photo
from partclipseg.instances.sources import open_instance_source

log = logging.getLogger(__name__)

_VARIABLES = ("MODEL", "DEVICE", "INSTANCES")

_RUN_BITS = (3, 4, 8, 16)
"""Bits of a run's length in Label Studio's RLE, from which each run takes the fewest that hold it."""


class Control(NamedTuple):
    """A control of the labelling interface that can hold parts."""

    name: str
    kind: str
    """``PolygonLabels`` or ``BrushLabels``."""
    image: str
    """Name of the image that it labels."""
    key: str
    """Key of the image's address in a task's data."""
    labels: tuple[str, ...]


def find_control(interface: Mapping[str, Any]) -> Control:
    """Return the first control for polygons or brushes of a parsed labelling interface.

    Raises `PartCLIPSegError` where there is none.
    """
    for name, control in interface.items():
        if control["type"] in ("PolygonLabels", "BrushLabels") and control["labels"]:
            key = control["inputs"][0]["value"].lstrip("$")
            return Control(name, control["type"], control["to_name"][0], key, tuple(control["labels"]))
    raise PartCLIPSegError("the labelling interface has no PolygonLabels or BrushLabels with labels: add one")


def regions(result: PartResult, control: Control) -> list[dict[str, Any]]:
    """Return the parts of a photo as regions of a control: polygons, one for each piece, or a brush for each part."""
    if control.kind == "PolygonLabels":
        found = result.to_label_studio()["predictions"][0]["result"]
        return [region | {"from_name": control.name, "to_name": control.image} for region in found]
    height, width = result.size
    return [
        {
            "from_name": control.name,
            "to_name": control.image,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": round(segment.score, 4),
            "value": {"format": "rle", "rle": brush_rle(segment.mask), "brushlabels": [segment.name]},
        }
        for segment in result
    ]


def brush_rle(mask: np.ndarray) -> list[int]:
    """Return a mask, bool `[H, W]`, in Label Studio's RLE: bytes of four equal channels of 0 and 255.

    The SDK's own encoder visits every pixel, which takes seconds for a part of a large photo.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = 4 * np.diff(starts, append=flat.size)
    bits = [f"{4 * flat.size:032b}{8 - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = f"{255 if flat[start] else 0:08b}"
        for rest in _split(length, 1 << _RUN_BITS[-1]):
            which = next(place for place, size in enumerate(_RUN_BITS) if rest <= 1 << size)
            bits.append(f"1{which:02b}{rest - 1:0{_RUN_BITS[which]}b}{value}")
    whole = np.array(list("".join(bits)), dtype="U1") == "1"
    return np.packbits(whole).tolist()


def _split(length: int, most: int) -> Iterator[int]:
    whole, rest = divmod(length, most)
    yield from [most] * whole
    if rest:
        yield rest


@cache
def load_segmenter() -> tuple[PartSegmenter, Any]:
    """Load the model and the source of instances that the environment names, once for all projects."""
    model, device, instances = (os.environ.get(f"PARTCLIPSEG_{name}") or None for name in _VARIABLES)
    source = None if instances is None else open_instance_source(instances, device=device)
    return PartSegmenter.from_pretrained(model, device), source


class PartBackend(LabelStudioMLBase):
    """The backend; Label Studio asks it for predictions by ``/predict``."""

    def predict(
        self, tasks: list[dict[str, Any]], context: Mapping[str, Any] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Return a prediction for each task; one without regions where the photo cannot be read.

        Raises `PartCLIPSegError` for an interface without a fitting control and for labels that are no parts.
        """
        control = find_control(self.parsed_label_config)
        vocabulary = Vocabulary.from_names(control.labels)
        return [self._predict(task, control, vocabulary) for task in tasks]

    def _predict(self, task: dict[str, Any], control: Control, vocabulary: Vocabulary) -> dict[str, Any]:
        segmenter, source = load_segmenter()
        try:
            photo = read_photo(self._local_path(task["data"][control.key], task.get("id")))
        except Exception as error:  # of whatever brings the photo, too
            log.warning("task %s: its photo cannot be read: %s", task.get("id"), error)
            return {"model_version": "partclipseg", "score": 0.0, "result": []}
        result = segmenter(photo, vocabulary, instances=source)
        scores = [segment.score for segment in result]
        mean = sum(scores) / len(scores) if scores else 0.0
        return {"model_version": "partclipseg", "score": round(mean, 4), "result": regions(result, control)}

    def _local_path(self, address: str, task: int | None) -> str:
        # Version 2 needs the task for photos in cloud storages; version 1 does not know the argument.
        known = inspect.signature(self.get_local_path).parameters
        return self.get_local_path(address, **({"task_id": task} if "task_id" in known else {}))


def main() -> None:
    """Serve the backend by Flask's own server, as Label Studio's examples do."""
    parser = argparse.ArgumentParser(description="Label Studio ML backend of partclipseg")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on")
    arguments = parser.parse_args()
    load_segmenter()
    init_app(PartBackend).run(host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
