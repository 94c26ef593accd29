"""Score parts with their owners on PartShapes, by the source of the objects and by the look at each of them.

    python benchmarks/instances.py --output runs/owners
    python benchmarks/instances.py --output runs/owners --detector runs/detector/model \
        --models "runs/evidence/runs/default, seed 0/model" "runs/evidence/runs/default, seed 1/model"
    python benchmarks/instances.py --output runs/quick --scenes 6 --size 96      (to see that it runs)

Scores each model, by default the built-in one, on scenes of the split "instances": two to four objects of one kind in
each. The rows of the table differ in what says where the objects are:

- regions: connected regions of the model's first look, `instances="components"`.
- found boxes: those of a detector, by default the built-in one, as the package takes them: an object may own what lies
  in its box grown by 10 % of the sides each way; "not grown": what lies in the box alone.
- true boxes, true masks: those of the labels.
- noisy boxes: the true ones with each edge moved by a normal error of 6 % of the side; "grown" as found boxes are.

and in where the parts come from:

- crops: a look at each object alone, as the package does.
- first look: one look at the whole scene, divided among the objects by the package's rules of who owns a pixel.

"true masks, background competes" keeps background in the running on crops with a mask: what it wins has no part.

Scores in percent: PartPQ with its factors, mean over the classes with background as one of them; *pooled* over all
objects of all classes instead, with matched, false and missed ones; AP of the objects' and the object-parts' masks
(LVIS and PACO), and COCO's of seen and unseen object-parts. Milliseconds a scene, from uint8 pixels to the result, are
those of rows with crops: what the package itself does. Time to find boxes counts in the row "found boxes" alone. The
detector's own boxes are scored beside the table.

Each model leaves a JSON file in OUTPUT/results, whose rows are not repeated: several processes may share the models.
`--rows` scores some rows alone, and a later command adds others.
The table of mean and standard deviation is written to OUTPUT/summary.json and OUTPUT/summary.md too.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch

from measure import environment
from partclipseg.data.regions import FoundRegion, PhotoRegions, regions_of_maps
from partclipseg.data.sample import PartSample
from partclipseg.evaluation.average_precision import AveragePrecision
from partclipseg.evaluation.instances import (
    TruePhoto,
    found_regions,
    make_counts,
    predicted_maps,
    true_maps,
    true_objects,
)
from partclipseg.evaluation.partpq import BACKGROUND, PartPQ, PartPQScores
from partclipseg.evaluation.scores import without_nan
from partclipseg.files import write_text
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances import owners
from partclipseg.instances.detectors import Detector
from partclipseg.instances.found import FoundObject, box_ious, select
from partclipseg.maps import crops
from partclipseg.maps.crops import Crop, PredictCrops
from partclipseg.maps.label_maps import BACKGROUND as NO_OBJECT
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.registry import BUILT_IN_DETECTOR
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.vocabulary import Vocabulary
from partshapes_tables import spread

NOISE = 0.06
BATCH = 8
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Thresholds at which the detector's boxes are counted."""

COLUMNS = (
    "PartPQ", "PartPQ pooled", "PartSQ pooled", "matched", "false", "missed", "AP objects", "AP object-parts",
    "COCO AP seen object-parts", "COCO AP unseen object-parts", "ms a scene",
)  # fmt: skip
"""Figures of the table; the files have all."""

Look = Callable[[PredictCrops, Sequence[tuple[np.ndarray, Crop]], bool, int], Iterator[tuple[Crop, LabelMaps]]]
"""Type of `crops.look`."""


Scenes = list[list[TruePhoto]]
"""The scenes with their true regions, in batches."""


class Row(NamedTuple):
    """One row of the table."""

    source: str
    parts: str
    objects: Callable[[TruePhoto, Vocabulary], list[FoundObject]] | None = None
    """Objects of a scene; None for what the package itself finds."""
    grown: bool = False
    """Whether the objects are taken as found ones, not as given ones."""

    @property
    def key(self) -> str:
        """The row's name in results and on the command line."""
        return f"{self.source} | {self.parts}"


@dataclass(frozen=True)
class Told:
    """A source that finds what it was told, so that the package takes it as found."""

    objects: list[list[FoundObject]]

    def find(self, photos: Sequence[np.ndarray], words: Sequence[str]) -> list[list[FoundObject]]:
        """Return the objects of all photos."""
        return self.objects


def main() -> None:
    options = _parse()
    output = Path(options.output)
    detector = Detector.from_pretrained(options.detector, options.device)
    wanted = {row.key: row for row in rows(detector)}
    if unknown := set(options.rows or ()) - set(wanted):
        raise SystemExit(f"there is no row {', '.join(sorted(unknown))}; the rows are {', '.join(wanted)}")
    dataset = PartShapesDataset.ahead("instances", options.scenes, options.size, directory=output / "scenes")
    vocabulary = dataset.vocabulary
    scenes = list(batches(dataset))
    found = detector_scores(detector, dataset, scenes)
    write_text(output / "detector.json", json.dumps(found, indent=1) + "\n")
    print(f"detector: {found}", flush=True)
    for name in options.models or [""]:
        result = output / "results" / f"{_label(name)}.json"
        segmenter = PartSegmenter.from_pretrained(name or None, options.device)
        record: dict[str, Any] = {
            "model": name or "built-in",
            "scenes": options.scenes,
            "size": options.size,
            "environment": environment(str(segmenter.device)),
            "first look, ms": first_look_time(segmenter, vocabulary, scenes),
            "rows": json.loads(result.read_text())["rows"] if result.is_file() else {},
        }
        for key, row in wanted.items():
            if key in (options.rows or wanted) and key not in record["rows"]:
                record["rows"][key] = score(segmenter, dataset, scenes, row, detector)
                write_text(result, json.dumps(record, indent=1) + "\n")
                print(f"{_label(name)}, {key}: {record['rows'][key]}", flush=True)
    summarise(output)


def rows(detector: Detector) -> list[Row]:
    """Return the rows of the table, in order."""

    def found(photo: TruePhoto, words: Vocabulary) -> list[FoundObject]:
        image = photo.sample.image
        return select(detector.find([image], words.objects)[0], words.objects, (image.shape[0], image.shape[1]))

    def masks(photo: TruePhoto, words: Vocabulary) -> list[FoundObject]:
        return true_objects(photo, words, masks=True)

    def boxes(photo: TruePhoto, words: Vocabulary) -> list[FoundObject]:
        return true_objects(photo, words, masks=False)

    return [
        Row("regions", "first look"),
        Row("regions", "crops"),
        Row("found boxes", "first look"),
        Row("found boxes", "crops"),
        Row("found boxes, not grown", "crops", found),
        Row("true boxes", "first look", boxes),
        Row("true boxes", "crops", boxes),
        Row("noisy boxes", "crops", noisy_boxes),
        Row("noisy boxes, grown", "crops", noisy_boxes, grown=True),
        Row("true masks", "first look", masks),
        Row("true masks, background competes", "crops", masks),
        Row("true masks", "crops", masks),
    ]


def noisy_boxes(photo: TruePhoto, vocabulary: Vocabulary) -> list[FoundObject]:
    """Return the true boxes, each edge of them moved by a normal error; the same for every model."""
    generator = np.random.default_rng(int(photo.key.split("/")[-1]))
    height, width = photo.sample.image.shape[:2]
    noisy = []
    for some in true_objects(photo, vocabulary, masks=False):
        x0, y0, x1, y1 = some.corners
        sides = np.array([x1 - x0, y1 - y0] * 2)
        x0, y0, x1, y1 = np.array(some.corners) + NOISE * sides * generator.standard_normal(4)
        moved = FoundObject.from_corners(some.object, min(x0, x1 - 1), min(y0, y1 - 1), x1, y1)
        noisy.append(moved.within((height, width)))
    return noisy


def score(
    segmenter: PartSegmenter, dataset: PartShapesDataset, scenes: Scenes, row: Row, detector: Detector
) -> dict[str, Any]:
    """Score one row, and time it where the package's own looks are used."""
    vocabulary = dataset.vocabulary
    quality, precision = make_counts(dataset, "partpq"), make_counts(dataset, "ap")
    assert isinstance(quality, PartPQ)
    assert isinstance(precision, AveragePrecision)
    times: list[float] = []
    for batch in scenes:
        images = [photo.sample.image for photo in batch]
        instances: Any = "components" if row.source == "regions" else detector
        if row.objects is not None:
            instances = [row.objects(photo, vocabulary) for photo in batch]
            instances = Told(instances) if row.grown else instances
        with torch.inference_mode(), _looks(row, segmenter, vocabulary):
            started = time.perf_counter()
            results = segmenter(
                images, vocabulary, instances=instances, min_part_probability=0.0, batch_size=len(images)
            )
            times.append((time.perf_counter() - started) / len(images))
        for photo, result in zip(batch, results, strict=True):
            truth = true_maps(photo.sample, vocabulary, background=True)
            quality.update(truth, predicted_maps(result, background=True), photo.key)
            precision.update(photo.regions, found_regions(result), photo.key)
    pq, ap = quality.compute(), precision.compute()
    own = row.parts == "crops" and row.source != "true masks, background competes"
    figures = {
        "PartPQ": pq.all.pq,
        "PartSQ": pq.all.sq,
        "PartRQ": pq.all.rq,
        **pooled(pq),
        "AP objects": ap.objects.ap,
        "AP50 objects": ap.objects.ap50,
        "AP object-parts": ap.object_parts.ap,
        "COCO AP object-parts": ap.coco_object_parts.ap,
        "COCO AP seen object-parts": ap.coco_object_parts.seen,
        "COCO AP unseen object-parts": ap.coco_object_parts.unseen,
        # The first batch chooses kernels.
        "ms a scene": 1000 * float(np.median(times[1:] or times)) if own else None,
    }
    return without_nan(figures)


def pooled(scores: PartPQScores) -> dict[str, float]:
    """Return PartPQ over the segments of all objects together, and their numbers."""
    things = [item for item in scores.classes if item.name != BACKGROUND]
    tp, fp, fn = (sum(getattr(item, name) for item in things) for name in ("tp", "fp", "fn"))
    contributions = sum(item.sq * item.tp for item in things if item.tp)
    return {
        "PartPQ pooled": contributions / max(tp + (fp + fn) / 2, 1),
        "PartSQ pooled": contributions / max(tp, 1),
        "matched": tp,
        "false": fp,
        "missed": fn,
    }


# -- looks --------------------------------------------------------------------------------------------------------


def _looks(row: Row, segmenter: PartSegmenter, vocabulary: Vocabulary) -> AbstractContextManager[Any]:
    """Return the context in which the package looks at objects as the row says."""
    if row.parts == "first look":
        return mock.patch.object(owners, "look", _first_look(segmenter, vocabulary))
    if row.source == "true masks, background competes":
        return mock.patch.object(owners, "look", _look_with_background)
    return nullcontext()


def _first_look(segmenter: PartSegmenter, vocabulary: Vocabulary) -> Look:
    """Return a `crops.look` that cuts its maps out of those of the whole photo."""

    def look(
        predict: PredictCrops, work: Sequence[tuple[np.ndarray, Crop]], with_background: bool, at_once: int
    ) -> Iterator[tuple[Crop, LabelMaps]]:
        whole: dict[int, LabelMaps] = {}
        for photo, crop in work:
            if id(photo) not in whole:
                size = photo.shape[0], photo.shape[1]
                [whole[id(photo)]] = segmenter.label_maps(segmenter.prepare([photo]), vocabulary, [size])
            maps = LabelMaps(*(values[crop.window] for values in whole[id(photo)]))
            yield crop, _of_object(maps, crop.object, with_background)

    return look


def _look_with_background(
    predict: PredictCrops, work: Sequence[tuple[np.ndarray, Crop]], with_background: bool, at_once: int
) -> Iterator[tuple[Crop, LabelMaps]]:
    """Look as `crops.look` does, with background on all crops."""
    for crop, maps in crops.look(predict, work, True, at_once):
        yield crop, _of_object(maps, crop.object, with_background)


def _of_object(maps: LabelMaps, wanted: int, with_background: bool) -> LabelMaps:
    """Return maps of one object alone; without background all else is the object without a part."""
    own = maps.object_map == wanted
    labels = torch.where(own, maps.label_map, NO_OBJECT)
    rest = NO_OBJECT if with_background else wanted
    return LabelMaps(labels, torch.where(own, maps.object_map, rest), maps.scores)


def first_look_time(segmenter: PartSegmenter, vocabulary: Vocabulary, scenes: Scenes) -> float:
    """Return the milliseconds of a scene without instances."""
    times = []
    for batch in scenes[:6]:
        images = [photo.sample.image for photo in batch]
        started = time.perf_counter()
        segmenter(images, vocabulary, batch_size=len(images))
        times.append((time.perf_counter() - started) / len(images))
    return 1000 * float(np.median(times[1:] or times))


# -- scenes and the detector --------------------------------------------------------------------------------------


def batches(dataset: PartShapesDataset) -> Iterator[list[TruePhoto]]:
    """Yield the scenes with their true regions."""
    samples_of_all = iter(dataset)
    while samples := list(islice(samples_of_all, BATCH)):
        yield [TruePhoto(some.key, some.key, some, _regions(some, dataset.vocabulary)) for some in samples]


def _regions(sample: PartSample, vocabulary: Vocabulary) -> PhotoRegions:
    assert sample.instances is not None
    return regions_of_maps(sample.part_labels, sample.object_labels, sample.instances, len(vocabulary))


def detector_scores(detector: Detector, dataset: PartShapesDataset, scenes: Scenes) -> dict[str, Any]:
    """Return AP of the detector's boxes, and how many are right at several thresholds (IoU 0.5 with the true box)."""
    vocabulary, own = dataset.vocabulary, detector.threshold
    like = make_counts(dataset, "ap")
    assert isinstance(like, AveragePrecision)
    counts = AveragePrecision(like.categories, like.seen, "lvis", "bbox")
    numbers = {threshold: np.zeros(3, int) for threshold in THRESHOLDS}
    times = []
    detector.threshold = 0.05
    for batch in scenes:
        images = [photo.sample.image for photo in batch]
        started = time.perf_counter()
        everything = detector.find(images, vocabulary.objects)
        times.append((time.perf_counter() - started) / len(images))
        for photo, found in zip(batch, everything, strict=True):
            height, width = photo.sample.image.shape[:2]
            found = select(found, vocabulary.objects, (height, width))
            regions = [
                FoundRegion(len(vocabulary) + vocabulary.object_index(some.object), some.box, some.score)
                for some in found
            ]
            objects = tuple(region for region in photo.regions.regions if region.label >= len(vocabulary))
            counts.update(replace(photo.regions, regions=objects), regions, photo.key)
            truth = true_objects(photo, vocabulary, masks=False)
            for threshold in THRESHOLDS:
                numbers[threshold] += _matched([some for some in found if some.score >= threshold], truth)
    detector.threshold = own
    ap = counts.compute()
    figures = {
        "threshold": own,
        "AP": ap.objects.ap,
        "AP50": ap.objects.ap50,
        "AP75": ap.objects.ap75,
        "COCO AP": ap.coco_objects.ap,
        "ms a scene": 1000 * float(np.median(times[1:] or times)),
        "found, false, missed at threshold": {str(value): some.tolist() for value, some in numbers.items()},
    }
    return without_nan(figures)


def _matched(found: Sequence[FoundObject], truth: Sequence[FoundObject]) -> np.ndarray:
    """Return the numbers of found, false and missed objects of one scene; a surer one takes its best partner first."""
    free = list(truth)
    for some in sorted(found, key=lambda one: -one.score):
        ious = [
            float(box_ious(np.array(some.corners), np.array([other.corners]))[0]) * (other.object == some.object)
            for other in free
        ]
        if ious and max(ious) >= 0.5:
            free.pop(int(np.argmax(ious)))
    right = len(truth) - len(free)
    return np.array([right, len(found) - right, len(free)])


# -- table --------------------------------------------------------------------------------------------------------


def summarise(output: Path) -> None:
    """Write mean and deviation over the models whose runs differ in the seed alone, by the names of the runs."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((output / "results").glob("*.json")):
        groups.setdefault(re.sub(r", seed \d+$", "", path.stem), []).append(json.loads(path.read_text()))
    summary: dict[str, Any] = {}
    lines = []
    for group, records in groups.items():
        names = list(dict.fromkeys(name for record in records for name in record["rows"]))
        found = {name: [record["rows"][name] for record in records if name in record["rows"]] for name in names}
        summary[group] = {
            "models": [record["model"] for record in records],
            "first look, ms": spread([record["first look, ms"] for record in records]),
            "rows": {
                name: {figure: spread([row[figure] for row in some]) for figure in some[0]}
                for name, some in found.items()
            },
        }
        lines += [f"{group}, {len(records)} models", "", "| objects | parts | " + " | ".join(COLUMNS) + " |"]
        lines.append("|---|---|" + "--:|" * len(COLUMNS))
        for name, figures in summary[group]["rows"].items():
            lines.append(f"| {name} | " + " | ".join(cell(figures[column]) for column in COLUMNS) + " |")
        lines.append("")
    if (output / "detector.json").is_file():
        summary["detector"] = json.loads((output / "detector.json").read_text())
    write_text(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_text(output / "summary.md", "\n".join(lines))
    print("\n".join(lines))


def cell(figure: dict[str, Any]) -> str:
    """Return a figure as text."""
    if figure["mean"] is None:
        return "-"
    return f"{figure['mean']:.1f}" + ("" if figure["std"] is None else f" ± {figure['std']:.1f}")


def _label(name: str) -> str:
    """Return the name of a model's result: the folder of its run."""
    path = Path(name)
    return "built-in" if not name else path.parent.name if path.name in ("model", "best") else path.name


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--models", nargs="*", metavar="DIR", help="directories of models; default: the built-in one")
    parser.add_argument(
        "--detector", default=BUILT_IN_DETECTOR, metavar="NAME", help="detector of the found boxes; default: built in"
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows alone, such as 'found boxes | crops'")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--size", type=int, default=384, help="side of the scenes in pixels")
    parser.add_argument("--device", help="default: CUDA if there is one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
