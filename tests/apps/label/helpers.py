"""Calls, readers and measures of the tests of ``partclipseg label``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tests.hashes import hashes

from partclipseg.apps.label.job import BulkJob
from partclipseg.shapes.renderer import render_scene
from partclipseg.vocabulary import Vocabulary

WORDS = "dog: ear, tail, leg; bus: wheel; bird: wing, leg"
FORMATS = ("coco", "yolo", "labelme", "png", "jsonl", "label-studio")

PHOTOS = 32
"""Number of photos in the fixture `many`."""


def make_photos(folder: Path, count: int) -> None:
    for index in range(count):
        path = folder / f"scenes/{index % 3}/{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render_scene("test", index, 128).image).save(path)


def arguments(photos: Path, output: Path, model: Path, *more: str) -> list[str]:
    options = ["--vocabulary", WORDS, "--model", str(model), "--batch-size", "4"]
    options += [] if "--formats" in more else ["--formats", *FORMATS]
    return ["label", str(photos), "--output", str(output), *options, "--workers", "1", *more]


def digests(folder: Path) -> dict[str, str]:
    """All files but YOLO's photos, which are links."""
    return {name: digest for name, digest in hashes(folder).items() if not name.startswith("yolo/images/")}


def records(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def index_map(output: Path, stem: str) -> np.ndarray:
    labels = np.asarray(Image.open(output / f"labels/{stem}.png")).astype(int)
    return np.where(labels == 255, -1, labels)


def rasterise(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside by the even-odd rule: one crossing test for each edge, nothing of the writer."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, dtype=bool)
    for polygon in polygons:
        odd = np.zeros(size, dtype=bool)
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y1 != y2:
                crosses = (y1 > y) != (y2 > y)
                odd ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        inside |= odd
    return inside


def assert_outlines(polygons: dict[str, list[np.ndarray]], labels: np.ndarray, vocabulary=None) -> None:
    """Outlines follow the masks: a pixel differs only within reach of a border, and IoU is high.

    Outlines may leave the border by 1 pixel, a pixel's centre is half a diagonal from its corners: a pixel farther
    than 2 from every other label must be right. At most half of a band of 1 pixel may be wrong: with A pixels and a
    border of P pixels, IoU is at least 1 - P / A or so; nine tenths for anything as compact as these segments.
    """
    names = (vocabulary or Vocabulary.load(WORDS)).names
    padded = np.pad(labels, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    interior = (windows == labels[:, :, None, None]).all((2, 3))
    checked = 0
    for index, name in enumerate(names):
        mask = labels == index
        drawn = rasterise(polygons.get(name, []), labels.shape)
        assert (mask == drawn)[interior].all(), name
        if (mask & interior).sum() > 0.5 * mask.sum() > 0:  # compact
            assert (mask & drawn).sum() / (mask | drawn).sum() > 0.9, name
            checked += 1
    assert checked, "no segment was compact enough for the test to mean anything"


def small_job(photos: Path, output: Path, model: Path) -> BulkJob:
    return BulkJob(photos, output, Vocabulary.load(WORDS), ("png",), str(model), batch_size=4)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
