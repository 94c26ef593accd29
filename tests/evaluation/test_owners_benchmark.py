"""The benchmark of parts with their owners: its rows are scored as the package scores, its detector by true boxes."""

import importlib
import json
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from partclipseg.evaluation.instances import evaluate_instances
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.detectors import Detector
from partclipseg.instances.found import FoundObject
from partclipseg.shapes.dataset import PartShapesDataset


@pytest.fixture(scope="module")
def benchmark() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
        yield importlib.import_module("instances")


@pytest.fixture(scope="module")
def dataset() -> PartShapesDataset:
    return PartShapesDataset("instances", 3, 64)


def test_rows_are_scored_as_the_package_scores(benchmark: ModuleType, dataset: PartShapesDataset) -> None:
    segmenter = PartSegmenter.from_pretrained(device="cpu")
    scenes = list(benchmark.batches(dataset))
    detector = Detector.from_pretrained("partshapes-detector", "cpu")
    rows = {(row.source, row.parts): row for row in benchmark.rows(detector)}
    masks = {key: row for key, row in rows.items() if "masks" in key[0]}
    found = {key: benchmark.score(segmenter, dataset, scenes, row, None) for key, row in masks.items()}
    own = evaluate_instances(segmenter, dataset, "partpq", instances="true-masks")
    crops, first = found["true masks", "crops"], found["true masks", "first look"]
    assert crops["PartPQ"] == own.all.pq
    assert crops["ms a scene"] > 0
    # With a mask every object is matched, and its parts alone differ.
    for scores in found.values():
        assert (scores["matched"], scores["false"], scores["missed"]) == (9, 0, 0)
        assert scores["AP objects"] == pytest.approx(100)
    assert crops["PartPQ pooled"] > found["true masks, background competes", "crops"]["PartPQ pooled"]
    assert first["PartPQ pooled"] != crops["PartPQ pooled"]


class Perfect:
    """A detector that knows the true boxes, or all of them but the first of each scene, moved."""

    threshold = 0.5

    def __init__(self, scenes: list, vocabulary: Any, objects: Any, worse: bool) -> None:
        self.known = {photo.sample.image.tobytes(): objects(photo, vocabulary) for batch in scenes for photo in batch}
        self.worse = worse

    def find(self, photos: list[np.ndarray], words: Any) -> list[list[FoundObject]]:
        found = [list(self.known[photo.tobytes()]) for photo in photos]
        if self.worse:
            for some in found:
                some[0] = FoundObject(some[0].object, (0, 0, 5, 5), 0.65)
        return found


@pytest.mark.parametrize(("worse", "at_06", "at_07"), [(False, [9, 0, 0], [9, 0, 0]), (True, [6, 3, 3], [6, 0, 3])])
def test_a_detector_is_scored_by_the_true_boxes(
    benchmark: ModuleType, dataset: PartShapesDataset, worse: bool, at_06: list[int], at_07: list[int]
) -> None:
    scenes = list(benchmark.batches(dataset))
    detector = Perfect(scenes, dataset.vocabulary, partial(benchmark.true_objects, masks=False), worse)
    scores = benchmark.detector_scores(detector, dataset, scenes)
    counts = scores["found, false, missed at threshold"]
    assert (counts["0.6"], counts["0.7"]) == (at_06, at_07)
    assert (scores["AP"] > 99) != worse
    assert detector.threshold == scores["threshold"] == 0.5


def test_noisy_boxes_are_the_same_each_time(benchmark: ModuleType, dataset: PartShapesDataset) -> None:
    [[photo, *_]] = benchmark.batches(dataset)
    one, two = (benchmark.noisy_boxes(photo, dataset.vocabulary) for _ in range(2))
    truth = benchmark.true_objects(photo, dataset.vocabulary, masks=False)
    assert [some.box for some in one] == [some.box for some in two] != [some.box for some in truth]


def test_models_that_differ_in_the_seed_are_one_group(benchmark: ModuleType, tmp_path: Path) -> None:
    names = [*benchmark.COLUMNS]
    for name, value in (("default, seed 0", 1.0), ("default, seed 1", 3.0), ("built-in", 5.0)):
        row = dict.fromkeys(names, value)
        record = {"model": name, "first look, ms": value, "rows": {"regions | crops": row}}
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(record))
    benchmark.summarise(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["default"]["rows"]["regions | crops"]["PartPQ"] == {
        "mean": 2.0, "std": pytest.approx(2**0.5), "values": [1.0, 3.0]
    }  # fmt: skip
    assert summary["built-in"]["rows"]["regions | crops"]["PartPQ"]["std"] is None
    assert "| regions | crops | 2.0 ± 1.4 |" in (tmp_path / "summary.md").read_text()


def test_a_row_that_is_not_there_is_refused_before_scenes_are_made(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "owners"
    monkeypatch.setattr("sys.argv", ["instances.py", "--output", str(output), "--device", "cpu", "--rows", "no | row"])
    with pytest.raises(SystemExit, match=r"there is no row no \| row; the rows are regions \| first look, "):
        benchmark.main()
    assert not output.exists()
