"""PartPQ and AP of models: what is compared, and `evaluate --metric`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg import PartSegmenter, open_dataset
from partclipseg.apps.cli import main
from partclipseg.data.coco_masks import encode_mask
from partclipseg.data.sample import OUTSIDE, PartSample
from partclipseg.errors import UsageError
from partclipseg.evaluation.average_precision import ApScores
from partclipseg.evaluation.instances import (
    evaluate_instances,
    found_regions,
    make_counts,
    panoptic_classes,
    predicted_maps,
    true_maps,
)
from partclipseg.evaluation.partpq import PanopticMaps, PartPQ, PartPQScores
from partclipseg.formats.instances import partpq_image
from partclipseg.instances.found import FoundObject
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_text("dog: ear, leg; cat: ear, tail; ball: rim")


@pytest.fixture(scope="module")
def segmenter(model_directory: Path) -> PartSegmenter:
    return PartSegmenter.from_pretrained(model_directory, "cpu", "float32")


def scenes(count: int = 3) -> PartShapesDataset:
    return PartShapesDataset("instances", count, 64)


@pytest.mark.parametrize("metric", ["partpq", "ap"])
def test_true_masks_find_every_object_whatever_the_model(segmenter: PartSegmenter, metric: Any) -> None:
    """A mask's pixels are all its object's, so that the parts alone can be wrong."""
    scores = evaluate_instances(segmenter, scenes(), metric, instances="true-masks", batch_size=2)
    assert scores.photos == 3
    if isinstance(scores, PartPQScores):
        assert scores.all.rq == 100
        assert scores.classes[-1].name == "background"
        assert (scores.classes[-1].pq, scores.classes[-1].tp) == (pytest.approx(100, abs=1), 3)
        assert sum(item.tp for item in scores.classes[:-1]) == sum(len(scenes().scene(i).members) for i in range(3))
        assert 0 < scores.with_parts.pq < 100
    else:
        assert scores.objects.ap == pytest.approx(100)
        assert scores.coco_objects.ap50 == pytest.approx(100)
        assert scores.object_parts.ap < 100


def test_scores_do_not_depend_on_batches_and_processes(segmenter: PartSegmenter) -> None:
    one, other = (
        evaluate_instances(segmenter, scenes(), "ap", instances="true-masks", batch_size=size, workers=workers)
        for size, workers in ((1, 0), (3, 1))
    )
    assert isinstance(one, ApScores)
    assert isinstance(other, ApScores)
    assert [item.ap for item in one.categories] == pytest.approx([item.ap for item in other.categories], nan_ok=True)
    assert evaluate_instances(segmenter, scenes(), instances="components", limit=1).photos == 1


def test_remarks_about_missed_objects_are_left_to_the_scores(
    segmenter: PartSegmenter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        evaluate_instances(segmenter, scenes(2), instances="true-boxes")
    assert not [record for record in caplog.records if "own no pixel" in record.getMessage()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "pq"}, "unknown metric 'pq': choose one of partpq, ap"),
        ({"instances": "boxes"}, "neither 'components' nor a file of objects"),
        ({"limit": 0}, "the limit must be at least 1, not 0"),
        ({"batch_size": 0}, "the batch size must be at least 1, not 0"),
    ],
)
def test_wrong_arguments(segmenter: PartSegmenter, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate_instances(segmenter, scenes(), **arguments)


# -- truth and prediction -- ------------------------------------------------------------------------------------------


def sample(parts: list[int], objects: list[int], instances: list[int]) -> PartSample:
    maps = (np.array([row], np.int32) for row in (parts, objects, instances))
    labels, words, numbers = maps
    return PartSample(np.zeros((1, len(parts), 3), np.uint8), labels, words, "row", numbers)


def rows(maps: PanopticMaps) -> list[list[int]]:
    return [values[0].tolist() for values in maps]


def test_the_truth_of_a_sample() -> None:
    """Classes are in the order of the objects: ball, cat, dog; parts are counted within their object."""
    row = sample([1, 0, -1, 3, -1, -1, -1], [2, 2, 2, 1, 2, OUTSIDE, -1], [0, 0, 0, 1, -1, 2, -1])
    assert rows(true_maps(row, WORDS, background=True)) == [
        [2, 2, 2, 1, 2, -1, 3],
        [0, 0, 0, 1, -1, -1, -1],
        [1, 0, -1, 1, -1, -1, -1],
    ]
    # Without exhaustive labels the background is void.
    assert rows(true_maps(row, WORDS, background=False))[0] == [2, 2, 2, 1, 2, -1, -1]
    classes = panoptic_classes(WORDS, background=True)
    assert [(item.name, item.parts, item.thing) for item in classes] == [
        ("ball", False, True),  # one part is none, as in the public evaluator
        ("cat", True, True),
        ("dog", True, True),
        ("background", False, False),
    ]
    assert len(panoptic_classes(WORDS, background=False)) == 3


@pytest.fixture
def result(segmenter: PartSegmenter):
    """Two dogs, a cat, and pixels of nobody."""
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    boxes = [("dog", (0, 0, 20, 40)), ("dog", (25, 0, 20, 40)), ("cat", (48, 0, 12, 40))]
    masks = []
    for word, (x, y, width, height) in boxes:
        mask = np.zeros((40, 60), bool)
        mask[y : y + height, x : x + width] = True
        masks.append(FoundObject.from_mask(word, mask, 0.5))
    return segmenter(photo, WORDS, instances=masks)


def test_partpqs_picture_gives_the_same_figures(result) -> None:
    """The picture of the format `partpq`, read back, is scored as the result is."""
    classes, instances, parts = np.moveaxis(np.asarray(partpq_image(result.labelled)).astype(int), 2, 0)
    read = PanopticMaps(
        np.where(classes == 255, 3, classes - 1), np.where(classes == 255, 0, instances),
        np.where(classes == 255, -1, np.where(parts == 255, -2, parts - 1)),
    )  # fmt: skip
    chance = np.random.default_rng(1)
    truth = predicted_maps(result, background=True)
    truth = truth._replace(parts=np.where(chance.random(truth.parts.shape) < 0.3, -1, truth.parts.clip(-1)))
    records = []
    for prediction in (read, predicted_maps(result, background=True)):
        counts = PartPQ(panoptic_classes(WORDS, background=True))
        counts.update(truth, prediction, "photo")
        records.append(counts.record("photo"))
    assert np.array_equal(*records)
    assert records[0][:, 0].tolist() == [0, 1, 2, 1]


def test_regions_of_a_result(result) -> None:
    regions = found_regions(result)
    objects = [one for one in regions if one.label >= len(WORDS)]
    assert [(one.label - len(WORDS), one.score) for one in objects] == [(2, 0.5), (2, 0.5), (1, 0.5)]
    for index, whole in enumerate(objects):
        owned = result.instance_map == index
        assert whole.region == encode_mask(owned)
    parts = [one for one in regions if one.label < len(WORDS)]
    assert parts
    assert all(0 < one.score < 0.5 for one in parts)  # the object's score times the part's own
    assert predicted_maps(result, background=False).classes.min() == -1


# -- files and the command -- -----------------------------------------------------------------------------------------


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """Two photos of noise with two dogs and a cat each, as COCO with owners; the second dog has no part."""
    root = tmp_path / "dogs"
    (root / "images").mkdir(parents=True)
    chance = np.random.default_rng(0)
    images, annotations = [], []
    for number in (1, 2):
        Image.fromarray(chance.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(root / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 64})
        for place, (category, x, owner) in enumerate([(4, 0, 0), (1, 2, 0), (2, 8, 0), (4, 30, 3), (5, 50, 4)]):
            mask = np.zeros((48, 64), bool)
            mask[10:40, x : x + (18 if category == 4 else 5)] = True
            entry = {"id": 10 * number + place, "image_id": number, "category_id": category}
            annotations.append(entry | {"segmentation": encode_mask(mask), "obj_ann_id": 10 * number + owner})
    categories = [
        {"id": 1, "name": "dog's ear", "supercategory": "dog"},
        {"id": 2, "name": "dog's leg", "supercategory": "dog"},
        {"id": 3, "name": "cat's ear", "supercategory": "cat"},
        {"id": 4, "name": "dog", "supercategory": "dog"},
        {"id": 5, "name": "cat", "supercategory": "cat"},
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "test.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def command(model_directory: Path, dogs: Path) -> list[str]:
    options = ["--dataset", "coco", "--data", str(dogs), "--device", "cpu", "--workers", "0", "--batch-size", "1"]
    return ["evaluate", str(model_directory), *options]


def scores_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())["scores"]


def test_partpq_of_own_data(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "report"
    assert main([*command, "--metric", "partpq", "--instances", "true-masks", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "PartPQ: parts with their owner" in printed
    assert "void" not in printed
    scores = scores_in(output)
    assert list(scores) == ["partpq"]
    by_name = {item["name"]: item for item in scores["partpq"]["classes"]}
    # A dog without a labelled part is a crowd; a cat has one part word, and so is compared as a whole.
    assert [by_name[word]["tp"] for word in ("dog", "cat", "background")] == [2, 2, 2]
    assert (by_name["cat"]["pq"], by_name["cat"]["parts"]) == (100, False)
    assert {path.name for path in output.iterdir() if path.is_file()} == {"report.md", "scores.json"}
    markdown = (output / "report.md").read_text()
    assert "| cat | 100.00 | 100.00 | 100.00 | 2 | 0 | 0 |" in markdown


def test_ap_of_own_data_and_its_files(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The files of the report, scored by pycocotools, give the report's figures."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    output = tmp_path / "report"
    assert main([*command, "--metric", "ap", "--instances", "true-masks", "--output", str(output)]) == 0
    assert "AP by the rules of LVIS and PACO" in capsys.readouterr().out
    scores = scores_in(output)["ap"]
    assert scores["objects"]["ap"] == pytest.approx(100)
    assert "AP\\_opart" in (output / "report.md").read_text()
    truth = json.loads((output / "truth.json").read_text())
    assert [item["name"] for item in truth["categories"]] == ["dog:ear", "dog:leg", "cat:ear", "cat", "dog"]
    owners = {entry["id"]: entry["obj_ann_id"] for entry in truth["annotations"]}
    assert sum(owner == number for number, owner in owners.items()) == 6
    assert set(owners.values()) <= set(owners)
    with contextlib.redirect_stdout(io.StringIO()):
        table = COCO(output / "truth.json")
        evaluation = COCOeval(table, table.loadRes(str(output / "detections.json")), "segm")  # type: ignore
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            step()
    assert 100 * evaluation.stats[0] == pytest.approx(scores["coco_all"]["ap"])
    # PACO's reader takes the truth for one of its own files.
    dataset = open_dataset("paco", output, annotations=output / "truth.json", images=tmp_path / "dogs/images")
    assert dataset.vocabulary.names == ("dog's ear", "dog's leg", "cat's ear")


NO_CROWD = "that is no crowd"


def all_crowds(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["iscrowd"] = 1


def first_photo_bare(content: dict[str, Any]) -> None:
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] == 2]


def no_ear(content: dict[str, Any]) -> None:
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != 1]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (all_crowds, ["--metric", "ap"], f"labelled object or part {NO_CROWD}: annotate single objects, whose iscro"),
        (all_crowds, ["--metric", "partpq"], f"object with labelled parts {NO_CROWD}: annotate single objects, whose "),
        (first_photo_bare, ["--metric", "ap", "--limit", "1"], f"object or part {NO_CROWD}: leave --limit out"),
        (first_photo_bare, ["--metric", "partpq", "--limit", "1"], f"labelled parts {NO_CROWD}: leave --limit out"),
        (first_photo_bare, ["--limit", "1"], "has a labelled part that is asked for: leave --limit out, or raise it"),
        (no_ear, ["--vocabulary", "dog: ear"], "ask for words that are labelled, or leave --vocabulary out"),
        (no_ear, ["--vocabulary", "dog: ear", "--protocol", "strict"], "leave --vocabulary out"),
    ],
)
def test_without_anything_to_score_it_says_so(
    change: Any, options: list[str], message: str, command: list[str], dogs: Path, tmp_path: Path, capsys
) -> None:
    content = json.loads((dogs / "test.json").read_text())
    change(content)
    (dogs / "test.json").write_text(json.dumps(content))
    assert main([*command, *options, "--output", str(tmp_path / "report")]) == 1
    said = capsys.readouterr().err
    assert "nothing to score: none of the" in said
    assert message in said
    assert not list((tmp_path / "report").glob("*.*")), "neither a report nor the state of a stopped evaluation"


def test_boxes_of_a_file_are_taken_by_the_photos_names(command: list[str], tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"1.png": [["dog", 0, 10, 18, 40]], "2.png": []}))
    output = tmp_path / "report"
    assert main([*command, "--metric", "partpq", "--instances", str(boxes), "--output", str(output)]) == 0
    classes = {item["name"]: item for item in scores_in(output)["partpq"]["classes"]}
    assert classes["cat"]["tp"] == 0
    assert classes["cat"]["fn"] == 2
    assert classes["dog"]["tp"] + classes["dog"]["fn"] == 2
    boxes.write_text(json.dumps({"1.png": []}))
    assert main([*command, "--metric", "partpq", "--instances", str(boxes)]) in (1, 2)


def test_stopped_and_started_again_it_continues(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ask = [*command, "--metric", "partpq", "--instances", "true-boxes"]
    assert main([*ask, "--output", str(tmp_path / "whole")]) == 0
    update, counted = PartPQ.update, []

    def stop(self, truth, prediction, key):
        if len(counted) == 1:
            raise KeyboardInterrupt
        counted.append(key)
        return update(self, truth, prediction, key)

    with monkeypatch.context() as patched:
        patched.setattr(PartPQ, "update", stop)
        assert main([*ask, "--output", str(tmp_path / "stopped")]) == 130
    assert "stopped after 1 of 2 photos" in capsys.readouterr().err
    other = [*command, "--metric", "partpq", "--output", str(tmp_path / "stopped")]
    assert main(other) == 1
    assert "instances: true-boxes then, components now" in capsys.readouterr().err
    assert main([*ask, "--output", str(tmp_path / "stopped")]) == 0
    assert "continuing: 1 of 2 photos is scored already" in capsys.readouterr().out
    assert scores_in(tmp_path / "stopped") == scores_in(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--instances", "components"], "--instances and its options apply to --metric partpq and ap"),
        (["--metric", "partpq", "--protocol", "strict"], "--protocol does not apply to --metric partpq"),
        (["--metric", "ap", "--zoom"], "--zoom does not apply to --metric ap"),
        (["--metric", "ap", "--boundary", "none"], "--boundary does not apply to --metric ap"),
        (["--metric", "ap", "--rule", "ov-parts"], "--rule does not apply to --metric ap"),
        (["--metric", "ap", "--instance-threshold", "2"], "--instance-threshold must be from 0 to 1, not 2"),
        (
            ["--metric", "ap", "--instances", "true-boxes", "--instance-threshold", "0.5"],
            "--instance-threshold is for a detector",
        ),
        (["--metric", "ap", "--instances", "nowhere.json"], "there is no file nowhere.json"),
        (["--metric", "pq"], "pq"),
        (["--split", "instances"], "coco has no split instances: choose train or test"),
    ],
)
def test_wrong_options(command: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err


def test_labels_that_tell_no_objects_apart(model_directory: Path, own_data: Path, capsys) -> None:
    (own_data / "labels/p5.png").unlink()
    (own_data / "images/p5.png").unlink()
    options = ["--dataset", "index-png", "--data", str(own_data), "--device", "cpu", "--metric", "partpq"]
    assert main(["evaluate", str(model_directory), *options]) == 2
    assert "the labels do not tell objects of one kind apart" in capsys.readouterr().err


def test_the_split_of_several_objects_of_one_kind(model_directory: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--dataset", "partshapes", "--split", "instances", "--limit", "1", "--device", "cpu", "--workers", "0"]
    ask = ["evaluate", str(model_directory), *options, "--metric", "partpq", "--instances", "true-masks"]
    assert main(ask) == 0
    assert "the instances split was scored" in capsys.readouterr().out


def test_counts_of_data_that_are_not_exhaustive(dogs: Path) -> None:
    """An empty list of absent categories says that a cat's ear may be there: the background is void then."""
    content = json.loads((dogs / "test.json").read_text())
    content["images"][0]["neg_category_ids"] = []
    (dogs / "test.json").write_text(json.dumps(content))
    counts = make_counts(open_dataset("coco", dogs).with_instances(), "partpq")
    assert isinstance(counts, PartPQ)
    assert [item.name for item in counts.classes] == ["cat", "dog"]
