"""What the second look brings, on PartShapes scenes of more pixels than the model's input.

    python benchmarks/zoom.py                                  # the built-in model, 500 scenes of 384 pixels
    python benchmarks/zoom.py --model runs/x/model --scenes 200 --sizes 256 384
    python benchmarks/zoom.py --model runs/x/model --quick     # a few scenes, to see that it runs

Prints JSON. By Pred-All, Oracle-Obj and strict, seen, unseen and harmonic: mean IoU, recall and Boundary IoU; mean
IoU and recall of small parts. A part of a scene is small if its area is among the smallest third of all parts' of
these scenes. Four predictions of the same scenes are scored:

- "one look": the whole scene, resized to the model's input.
- "two looks": `zoom=True`.
- "two looks, outlines of the first": the second look decides the parts of small objects, the first alone where the
  objects are (Pred-All and strict; in Oracle-Obj two looks never move an outline).
- "HOPS's crops": a second look at every object class on a black ground, as HOPS (CVPR 2026) does; see `hops_crops`.

Milliseconds a scene are for Pred-All, from uint8 pixels to the label map, rendering left out; crops a scene beside
them. The test split is scored; its scenes show the same at every size.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch

from measure import environment
from partclipseg.data.sample import PartSample, objects_in
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.scores import Scores
from partclipseg.inference import zoom
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.crops import CROPS_AT_ONCE
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

Objects = list[list[int]] | None
"""The objects of each scene for Oracle-Obj, None for Pred-All."""


def one_look(
    segmenter: PartSegmenter, vocabulary: Vocabulary, photos: Sequence[np.ndarray], objects: Objects
) -> list[LabelMaps]:
    sizes = [(photo.shape[0], photo.shape[1]) for photo in photos]
    return segmenter.label_maps(segmenter.prepare(photos), vocabulary, sizes, objects)


def two_looks(
    segmenter: PartSegmenter, vocabulary: Vocabulary, photos: Sequence[np.ndarray], objects: Objects
) -> list[LabelMaps]:
    first = one_look(segmenter, vocabulary, photos, objects)
    return segmenter.look_again(photos, first, vocabulary, objects)


def first_outlines(
    segmenter: PartSegmenter, vocabulary: Vocabulary, photos: Sequence[np.ndarray], objects: Objects
) -> list[LabelMaps]:
    first = one_look(segmenter, vocabulary, photos, objects)
    if objects is None:  # what the first look has found is taken for known: the second keeps its outlines then
        objects = [[index for index in maps.object_map.unique().tolist() if index >= 0] for maps in first]
    return segmenter.look_again(photos, first, vocabulary, objects)


def hops_crops(
    segmenter: PartSegmenter, vocabulary: Vocabulary, photos: Sequence[np.ndarray], objects: Objects
) -> list[LabelMaps]:
    """Look again as HOPS does, which trains its model on such crops: once for every object class of the first look.

    A crop is the smallest box of all pixels of the class, everything else black, stretched to the model's input. The
    parts of the object compete in it without background, and the outline of the first look is final.
    """
    predict = segmenter.predict_crops(vocabulary)
    first = one_look(segmenter, vocabulary, photos, objects)
    sizes = [(photo.shape[0], photo.shape[1]) for photo in photos]
    located = first if objects is None else predict(photos, sizes, objects, True)
    work, crops = [], []
    for place, (photo, maps) in enumerate(zip(photos, located, strict=True)):
        for index in maps.object_map.unique().tolist():
            if index < 0:
                continue
            inside = maps.object_map == index
            box = tuple(slice(int(p.min()), int(p.max()) + 1) for p in inside.nonzero(as_tuple=True))
            mask = inside[box]
            work.append((place, index, box, mask))
            crops.append(photo[box] * mask.cpu().numpy()[..., None])
    results = [LabelMaps(*(values.clone() for values in maps)) for maps in first]
    for start in range(0, len(work), CROPS_AT_ONCE):
        some, pictures = work[start : start + CROPS_AT_ONCE], crops[start : start + CROPS_AT_ONCE]
        seen = predict(pictures, [p.shape[:2] for p in pictures], [[index] for _, index, _, _ in some], False)
        for (place, _, box, mask), parts in zip(some, seen, strict=True):
            for whole, part in zip(results[place], parts, strict=True):
                whole[box] = torch.where(mask, part, whole[box])
    return results


LOOKS = {
    "one look": one_look,
    "two looks": two_looks,
    "two looks, outlines of the first": first_outlines,
    "HOPS's crops": hops_crops,
}


def smallest_third(samples: Sequence[PartSample]) -> float:
    """The share of a scene that the parts of the smallest third stay under."""
    areas = [
        np.count_nonzero(sample.part_labels == index) / sample.part_labels.size
        for sample in samples
        for index in np.unique(sample.part_labels[sample.part_labels >= 0])
    ]
    return float(np.quantile(areas, 1 / 3))


def score(
    predict: Callable[[Sequence[np.ndarray], Objects], list[LabelMaps]],
    dataset: PartShapesDataset,
    samples: Sequence[PartSample],
    batch_size: int,
) -> dict[str, Any]:
    """The scores of every protocol."""
    small, seen = smallest_third(samples), partshapes_world().seen
    oracle, pred_all, strict = (
        Evaluator(dataset.vocabulary, seen, protocol, "per_class", small)
        for protocol in ("oracle_obj", "pred_all", "strict")
    )
    for start in range(0, len(samples), batch_size):
        some = samples[start : start + batch_size]
        photos = [sample.image for sample in some]
        known = predict(photos, [objects_in(sample.object_labels) for sample in some])
        for sample, of_known, of_all in zip(some, known, predict(photos, None), strict=True):
            for evaluator, maps in ((oracle, of_known), (pred_all, of_all), (strict, of_all)):
                evaluator.update(maps.label_map, sample.part_labels, sample.object_labels, key=sample.key)
    return {evaluator.protocol: _figures(evaluator.compute()) for evaluator in (pred_all, oracle, strict)}


def _figures(scores: Scores) -> dict[str, Any]:
    content = scores.to_dict()
    groups = {name: content[name] for name in ("seen", "unseen", "harmonic")}
    return _rounded({**groups, "small_parts": content["small_parts"], "rules": content["rules"]})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def times(
    segmenter: PartSegmenter, vocabulary: Vocabulary, photos: Sequence[np.ndarray], batch_size: int, rounds: int
) -> dict[str, float]:
    """Milliseconds a scene by Pred-All, the rounds of both turn by turn, and the crops a scene."""
    crops: list[int] = []
    find_crops = zoom.find_crops

    def counted(*arguments: Any) -> list[zoom.Crop]:
        found = find_crops(*arguments)
        crops.append(len(found))
        return found

    found: dict[str, list[float]] = {"one look": [], "two looks": []}
    with mock.patch.object(zoom, "find_crops", counted):
        for _ in range(rounds + 1):
            for name, milliseconds in found.items():
                start = time.perf_counter()
                for first in range(0, len(photos), batch_size):
                    for maps in LOOKS[name](segmenter, vocabulary, photos[first : first + batch_size], None):
                        maps.label_map.cpu()
                milliseconds.append(1000 * (time.perf_counter() - start) / len(photos))
    one, two = (median(values[1:]) for values in found.values())  # the first round warms up
    return {
        "one look": round(one, 2),
        "two looks": round(two, 2),
        "ratio": round(two / one, 2),
        "crops a scene": round(float(np.mean(crops)), 2),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model's directory; default: the built-in model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", nargs="+", type=int, default=[384], help="sides of the scenes, in pixels")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="of measuring the time")
    parser.add_argument("--quick", action="store_true", help="8 scenes, one round")
    options = parser.parse_args()
    if options.quick:
        options.scenes, options.rounds = 8, 1
    segmenter = PartSegmenter.from_pretrained(options.model, options.device)
    report: dict[str, Any] = {
        **environment(options.device),
        "model": options.model or "built-in",
        "input": segmenter.model.image_shape,
        "scenes": options.scenes,
    }
    for size in options.sizes:
        dataset = PartShapesDataset("test", options.scenes, size)
        samples = list(dataset)
        scored = {
            name: score(partial(look, segmenter, dataset.vocabulary), dataset, samples, options.batch_size)
            for name, look in LOOKS.items()
        }
        photos = [sample.image for sample in samples[:64]]
        timed = times(segmenter, dataset.vocabulary, photos, options.batch_size, options.rounds)
        report[f"scenes of {size} pixels"] = {**scored, "milliseconds a scene": timed}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
