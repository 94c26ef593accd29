"""Annotations that cannot train: ``check-data``, ``train`` and ``evaluate`` say the same, and exit 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from partclipseg.apps.cli import main

SQUARE = [[5, 5, 30, 5, 30, 30, 5, 30]]


def content() -> dict[str, Any]:
    """Two photos with two classes."""
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 48} for n in (1, 2)],
        "annotations": [{"id": n, "image_id": n, "category_id": n, "segmentation": SQUARE} for n in (1, 2)],
        "categories": [{"id": n, "name": part, "supercategory": "car"} for n, part in ((1, "wheel"), (2, "door"))],
    }


def segmentation(value: Any) -> Callable[[dict[str, Any]], None]:
    def change(file: dict[str, Any]) -> None:
        for annotation in file["annotations"]:
            annotation.update(segmentation=value, bbox=[5, 5, 25, 25])

    return change


FAULTS = [
    pytest.param(segmentation([]), "a box alone labels nothing", id="boxes only"),
    pytest.param(segmentation([[5, 5, 30, 30]]), "fewer than three corners", id="polygons of four numbers"),
    pytest.param(segmentation([[5, 5] * 4]), "covers no pixel", id="polygons of no area"),
    pytest.param(lambda file: file.update(categories=[]), "lists no category", id="no category"),
    pytest.param(lambda file: file.update(categories=None), "no list 'categories'", id="categories null"),
    pytest.param(lambda file: file["categories"][1].update(id=1), "1", id="one category twice"),
    pytest.param(lambda file: file["categories"][1].pop("name"), "name", id="a category without name"),
    pytest.param(lambda file: file["images"][1].update(id=1), "1", id="one photo twice"),
    pytest.param(lambda file: file.update(annotations=[]), "annotation", id="no annotation"),
    pytest.param(lambda file: file["annotations"][0].update(category_id=[1]), "whole number", id="an id that is none"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_what_check_data_refuses_is_not_trained_or_scored_on(
    change: Callable[[dict[str, Any]], None],
    message: str,
    model_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, model = tmp_path / "data", str(model_directory)
    root.mkdir()
    for number in (1, 2):
        Image.new("RGB", (48, 48), (40 * number, 99, 0)).save(root / f"{number}.png")
    file = content()
    change(file)
    (root / "annotations.json").write_text(json.dumps(file))
    train = [
        "train", "own-data", "--data", str(root), "--start", model, "--steps", "1", "--held-out", "0",
        "--batch-size", "2", "--workers", "0", "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    score = ["evaluate", model, "--dataset", "coco", "--data", str(root), "--output", str(tmp_path / "scores")]
    for call in (["check-data", "coco", "--data", str(root)], train, score):
        assert main(call) == 1, call[0]
        captured = capsys.readouterr()
        assert message in " ".join((captured.out + captured.err).split()), call[0]
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "scores").exists()


def test_the_same_without_a_fault_is_scored(model_directory: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        Image.new("RGB", (48, 48), (40 * number, 99, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "annotations.json").write_text(json.dumps(content()))
    assert main(["check-data", "coco", "--data", str(tmp_path)]) == 0
    assert main(["evaluate", str(model_directory), "--dataset", "coco", "--data", str(tmp_path)]) == 0
