"""Choose the best and worst photos of an evaluation, and segment them once more for display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from partclipseg.data.loader import PartDataset
from partclipseg.data.resize import resize_photo
from partclipseg.data.sample import UNLABELLED
from partclipseg.evaluation.choices import WITHIN_OBJECTS, Protocol
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.photos import PhotoRecords, read_batches
from partclipseg.evaluation.pictures import PhotoExample, draw_class_bars, write_photo_page
from partclipseg.evaluation.run import predict
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.kept_files import KeptFiles
from partclipseg.writing import writing

EXAMPLES = 6
"""Number of best and of worst photos shown."""


def draw_report(
    files: KeptFiles,
    title: str,
    segmenter: PartSegmenter,
    dataset: PartDataset,
    photos: Sequence[PhotoRecords],
    evaluators: Mapping[Protocol, Evaluator],
    zoom: bool = False,
) -> tuple[dict[Protocol, str] | None, str]:
    """Write the bars of each protocol and the page of the best and worst photos among the `files` of a report.

    Returns the names of the bars' pictures by protocol, None without matplotlib, and the name of the page.
    """
    # The last protocol is the strictest: it shows whole photos.
    *_, evaluator = evaluators.values()
    best, worst = best_and_worst(evaluator, EXAMPLES)
    groups = {
        heading: make_examples(segmenter, dataset, photos, evaluator, keys, zoom)
        for heading, keys in (("Best photos", best), ("Worst photos", worst))
        if keys
    }
    bars: dict[Protocol, str] | None = {}
    try:
        for protocol, counts in evaluators.items():
            name = f"classes-{protocol}.png"
            with writing(files.folder / name), files.write(name) as temporary:
                draw_class_bars(counts.compute(), temporary, f"{title}, {protocol}")
            bars[protocol] = name
    except ImportError:
        bars = None
    page = "photos.html"
    with writing(files.folder / page):
        write_photo_page(files, page, title, evaluator.protocol, groups, dataset.vocabulary)
    return bars, page


def best_and_worst(evaluator: Evaluator, number: int) -> tuple[list[str], list[str]]:
    """Return the keys of the records with the highest and lowest mean IoU, sorted from the extremes; no key is in both.

    At most `number` of each. Records without labels are left out.
    """
    scored = {key: evaluator.record_iou(key) for key in evaluator.regions}
    ranked = sorted((key for key, iou in scored.items() if not math.isnan(iou)), key=lambda key: (-scored[key], key))
    best = ranked[: min(number, (len(ranked) + 1) // 2)]
    worst = ranked[max(len(best), len(ranked) - number) :][::-1]
    return best, worst


def make_examples(
    segmenter: PartSegmenter,
    dataset: PartDataset,
    photos: Sequence[PhotoRecords],
    evaluator: Evaluator,
    keys: Sequence[str],
    zoom: bool = False,
) -> list[PhotoExample]:
    """Make the contents of the pictures for records of an evaluator, in the order of `keys`; `zoom` as in `predict`."""
    owners = {key: photo for photo in photos for key in photo.keys(evaluator.protocol)}
    examples: dict[str, PhotoExample] = {}
    owning = list(dict.fromkeys(owners[key] for key in keys))
    ahead = segmenter.model.ahead_shape
    sizes = () if zoom or ahead is None else (ahead,)
    for (photo,) in read_batches(dataset, owning, None, batch_size=1, workers=0):
        image = photo.image
        resized = replace(photo, image=resize_photo(image, *sizes))
        for prediction in predict(segmenter, dataset.vocabulary, [resized], [evaluator.protocol], zoom):
            key, labels, _ = prediction.labels
            label_map = prediction.label_map.cpu().numpy().astype(np.int32)
            if evaluator.protocol in WITHIN_OBJECTS:
                # Without background the parts fill the whole photo, also where no label can be compared.
                label_map = np.where(labels == UNLABELLED, UNLABELLED, label_map)
            if key in keys:
                examples[key] = PhotoExample(key, evaluator.record_iou(key), image, labels, label_map)
    return [examples[key] for key in keys]
