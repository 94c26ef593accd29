"""How many labels `fast_reading` changes, and what that does to mIoU.

    python benchmarks/fast_reading.py                      # the built-in model, 40 scenes of 1024x1024
    python benchmarks/fast_reading.py --photos FOLDER      # photos of your own too, which have no true labels
    python benchmarks/fast_reading.py --scenes 2           # to see that it runs

Prints JSON. Scenes of PartShapes' test split are saved as JPEG of quality 90 and read from there: as by default, whole
and with Pillow's filter, and with PyTorch's filter after decoding to at least so many times the model's sides. For
each, the percent of labels that differ from the default's, of all pixels and of those that the default gives to an
object, and mIoU over all classes that the scenes show or a result has. Pred-All with all words, on a CPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from measure import environment
from partclipseg.data.photo import find_photos
from partclipseg.inference import photos as reading
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.dataset import PartShapesDataset

SIDES = {"filter alone": 1 << 20, "4": 4, "2": 2, "1": 1}
"""Least size of a decoded photo, in sides of the model; no photo is large enough for the first."""


def label_maps(segmenter: PartSegmenter, paths: Sequence[Path], fast: bool, sides: int = 4) -> list[np.ndarray]:
    with mock.patch.object(reading, "FAST_SIDES", sides):
        return [result.label_map for result in segmenter(list(paths), keep_photo=False, fast_reading=fast)]


def mean_iou(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], classes: int) -> float:
    counts = np.zeros((3, classes + 1))  # intersection, found, true; background last
    for ours, theirs in zip(found, truth, strict=True):
        for row, labels in enumerate((ours[ours == theirs], ours, theirs)):
            counts[row] += np.bincount(np.ravel(labels) % (classes + 1), minlength=classes + 1)
    union = counts[1] + counts[2] - counts[0]
    return float(100 * (counts[0] / union)[:classes][union[:classes] > 0].mean())


def compare(
    segmenter: PartSegmenter, paths: Sequence[Path], truth: Sequence[np.ndarray] | None
) -> dict[str, dict[str, float]]:
    whole = label_maps(segmenter, paths, fast=False)
    classes = len(segmenter.vocabulary or ())
    rows = {}
    for name in ("default", *SIDES):
        found = label_maps(segmenter, paths, True, SIDES[name]) if name in SIDES else whole
        differs = np.concatenate([(a != b).ravel() for a, b in zip(found, whole, strict=True)])
        on_objects = np.concatenate([(labels >= 0).ravel() for labels in whole])
        rows[name] = {
            "labels that change, %": round(100 * float(differs.mean()), 4),
            "of those on objects, %": round(100 * float(differs[on_objects].mean()), 4) if on_objects.any() else 0.0,
        }
        if truth is not None:
            rows[name]["mIoU"] = round(mean_iou(found, truth, classes), 2)
    return rows


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--size", type=int, default=1024, help="side of the scenes, in pixels")
    parser.add_argument("--photos", help="a folder of photos")
    parser.add_argument("--model", help="a model's directory; default: the built-in model")
    options = parser.parse_args()
    segmenter = PartSegmenter.from_pretrained(options.model, "cpu")
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        samples = list(PartShapesDataset("test", options.scenes, options.size))
        paths = [Path(folder) / f"{number:03}.jpg" for number in range(len(samples))]
        for sample, path in zip(samples, paths, strict=True):
            Image.fromarray(sample.image).save(path, quality=90)
        report["scenes"] = compare(segmenter, paths, [sample.part_labels for sample in samples])
    if options.photos:
        report["photos"] = compare(segmenter, find_photos([options.photos]), None)
    print(json.dumps({**environment("cpu"), "number of scenes": options.scenes, **report}, indent=1))


if __name__ == "__main__":
    main()
