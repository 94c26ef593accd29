from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from partclipseg.data.datasets import open_dataset
from partclipseg.data.sample import OUTSIDE, UNLABELLED, objects_in
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.choices import ALL_PROTOCOLS, PROTOCOLS
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.examples import best_and_worst, make_examples
from partclipseg.evaluation.photos import EvaluationPhoto, PhotoRecords, RecordLabels, group_records, read_batches
from partclipseg.evaluation.run import is_scored, predict, score
from partclipseg.evaluation.state import SavedScores, model_digest
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.label_maps import oracle_obj, pred_all
from partclipseg.shapes.dataset import PartShapesDataset


@pytest.fixture
def segmenter(model_directory: Path) -> PartSegmenter:
    return PartSegmenter.from_pretrained(model_directory, device="cpu")


def evaluators_of(dataset, **options) -> dict:
    return {protocol: Evaluator(dataset.vocabulary, dataset.seen, protocol, **options) for protocol in PROTOCOLS}


def test_the_whole_photo_unites_its_records() -> None:
    first = RecordLabels("dog", np.array([[3, -1, -1, -1]], np.int32), np.array([[1, OUTSIDE, OUTSIDE, -1]], np.int32))
    second = RecordLabels("cat", np.array([[-1, 0, -1, -1]], np.int32), np.array([[OUTSIDE, 0, OUTSIDE, -1]], np.int32))
    whole = EvaluationPhoto("photo", np.zeros((1, 1, 3), np.uint8), (first, second)).whole()
    assert whole.key == "photo"
    np.testing.assert_array_equal(whole.part_labels, [[3, 0, UNLABELLED, UNLABELLED]])
    np.testing.assert_array_equal(whole.object_labels, [[1, 0, OUTSIDE, UNLABELLED]])


def test_records_of_a_photo_are_one_group(shared: Path) -> None:
    dataset = open_dataset("pascal-part-116", shared / "data/PascalPart116", "test")
    photos = group_records(dataset)
    assert [index for photo in photos for index in photo.indices] == list(range(len(dataset)))
    assert len({photo.key for photo in photos}) == len(photos) == 13
    assert max(len(photo.indices) for photo in photos) > 1


def test_one_pass_predicts_what_each_protocol_would(own_data: Path, segmenter: PartSegmenter) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    vocabulary = dataset.vocabulary
    photos = group_records(dataset)
    (batch,) = read_batches(dataset, photos, segmenter.model.config.image_shape, batch_size=99, workers=0)
    predictions = list(predict(segmenter, vocabulary, batch, PROTOCOLS))
    assert len(predictions) == 3 * len(photos)
    output = segmenter.outputs([dataset[index].image for index in range(len(dataset))], vocabulary)
    sizes = [dataset[index].part_labels.shape for index in range(len(dataset))]
    present = [objects_in(dataset[index].object_labels) for index in range(len(dataset))]
    expected = {
        "pred_all": pred_all(output, sizes, vocabulary.class_to_object),
        "oracle_obj": oracle_obj(output, sizes, vocabulary.class_to_object, present),
    }
    expected["strict"] = expected["pred_all"]
    for protocol in PROTOCOLS:
        own = [item.label_map for item in predictions if item.protocol == protocol]
        for ours, theirs in zip(own, expected[protocol], strict=True):
            assert torch.equal(ours, theirs.label_map)


def test_a_photo_is_scored_once_every_protocol_has_counted_it(own_data: Path, segmenter: PartSegmenter) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    sample, photo = dataset[0], PhotoRecords("photo", (0, 1), ("dog", "cat"))
    records = tuple(RecordLabels(key, sample.part_labels, sample.object_labels) for key in photo.record_keys)
    for protocol in ALL_PROTOCOLS:
        evaluators = {protocol: Evaluator(dataset.vocabulary, None, protocol, boundary=None)}
        assert not is_scored(photo, evaluators)
        score(segmenter, dataset.vocabulary, [EvaluationPhoto("photo", sample.image, records)], evaluators)
        assert is_scored(photo, evaluators), protocol
        assert len(evaluators[protocol]) == len(photo.keys(protocol))


def test_two_looks_predict_what_the_segmenter_does(segmenter: PartSegmenter) -> None:
    with torch.no_grad():  # regions, as trained models give them, in place of specks
        for layer in segmenter.model.decoder.modules():
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight.copy_(5 * layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    dataset = PartShapesDataset("val", 3, size=192)
    photos = [PhotoRecords(str(index), (index,), (str(index),)) for index in range(3)]
    (batch,) = read_batches(dataset, photos, None, batch_size=3, workers=0)
    with torch.inference_mode():
        predictions = list(predict(segmenter, dataset.vocabulary, batch, ["pred_all", "oracle_obj"], zoom=True))
    changed = 0
    for protocol, label_map, labels in predictions:
        sample = dataset[int(labels.key.rpartition("/")[2])]
        words = [dataset.vocabulary.objects[index] for index in objects_in(sample.object_labels)]
        objects = words if protocol == "oracle_obj" else None
        twice = segmenter(sample.image, dataset.vocabulary, objects=objects, zoom=True)
        # Here the first look decodes every class, there those that can win: ties may fall differently.
        assert np.mean(label_map.numpy() != twice.label_map) < 5e-3
        once = segmenter(sample.image, dataset.vocabulary, objects=objects)
        changed += bool((twice.label_map != once.label_map).any())
    assert len(predictions) == 6
    assert changed >= 3


def test_workers_and_batches_change_nothing(own_data: Path) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    photos = group_records(dataset)
    runs = [
        [photo for batch in read_batches(dataset, photos, (32, 32), size, workers) for photo in batch]
        for size, workers in ((1, 0), (4, 2))
    ]
    for first, second in zip(*runs, strict=True):
        assert first.key == second.key
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.records[0].part_labels, second.records[0].part_labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named(own_data: Path, workers: int) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    (own_data / "images/p2.png").write_bytes(b"no picture")
    with pytest.raises(PartCLIPSegError, match=r"p2\.png"):
        list(read_batches(dataset, group_records(dataset), (32, 32), 2, workers))


def test_wrong_batch_size_is_refused(own_data: Path) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    with pytest.raises(UsageError, match="at least 1, not 0"):
        next(read_batches(dataset, group_records(dataset), (32, 32), 0, 0))


def test_stopping_and_continuing_gives_equal_scores(own_data: Path, segmenter: PartSegmenter, tmp_path: Path) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    photos = group_records(dataset)

    def score_all(evaluators: dict, some: list) -> None:
        for batch in read_batches(dataset, some, segmenter.model.config.image_shape, 1, 0):
            score(segmenter, dataset.vocabulary, batch, evaluators)

    whole = evaluators_of(dataset)
    score_all(whole, photos)
    # Two processes stop half way; one goes on with what both have saved.
    saved = SavedScores(tmp_path / "out", {"model": "m"})
    for process in range(2):
        part = evaluators_of(dataset)
        score_all(part, photos[process:4:2])
        saved.save(part, process)
    continued = evaluators_of(dataset)
    saved.load(continued)
    pending = [photo for photo in photos if not is_scored(photo, continued)]
    assert pending == photos[4:]
    saved.save_all(continued)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores-0.state"]
    score_all(continued, pending)
    for protocol in PROTOCOLS:
        assert continued[protocol].compute().to_dict() == whole[protocol].compute().to_dict()


def test_scores_of_other_options_are_refused(tmp_path: Path, own_data: Path) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    evaluators = evaluators_of(dataset)
    SavedScores(tmp_path, {"model": "a", "split": "test", "dtype": "float32"}).save(evaluators)
    with pytest.raises(PartCLIPSegError, match=r"\(model: a then, b now; dtype: float32 then, bfloat16 now\)"):
        SavedScores(tmp_path, {"model": "b", "split": "test", "dtype": "bfloat16"}).load(evaluators)


def test_scores_go_on_however_a_path_is_spelled(tmp_path: Path, own_data: Path, monkeypatch) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    (tmp_path / "detector").mkdir()
    monkeypatch.chdir(tmp_path)
    SavedScores(tmp_path, {"instances": "detector", "limit": None}).save(evaluators_of(dataset))
    SavedScores(tmp_path, {"instances": f"{tmp_path}/detector", "limit": None}).load(evaluators_of(dataset))


def test_model_digest_follows_the_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = model_digest(str(tmp_path))
    (tmp_path / "notes.txt").write_text("no matter")
    assert model_digest(str(tmp_path)) == first
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert model_digest(str(tmp_path)) != first
    assert model_digest("owner/name") == "owner/name"
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"weights")
    assert model_digest(str(tmp_path / "a.pth")) == model_digest(str(tmp_path / "b.pth")) != first


def test_best_and_worst_never_overlap() -> None:
    evaluator = Evaluator(["cat's ear", "cat's leg"])
    labels = np.array([[0, 0, 1, 1]], np.int32)
    for key, prediction in {"b": [0, 0, 1, 1], "a": [0, 0, 1, 1], "half": [0, 0, 0, 0], "none": [1, 1, 0, 0]}.items():
        evaluator.update(np.array([prediction], np.int32), labels, key=key)
    evaluator.update(labels, np.full_like(labels, -1), key="unlabelled")
    assert best_and_worst(evaluator, 1) == (["a"], ["none"])
    assert best_and_worst(evaluator, 6) == (["a", "b"], ["none", "half"])
    assert best_and_worst(Evaluator(["cat's ear"]), 6) == ([], [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_examples_are_what_was_scored(own_data: Path, segmenter: PartSegmenter, protocol: str) -> None:
    dataset = open_dataset("index-png", own_data, "test")
    photos = group_records(dataset)
    evaluator = evaluators_of(dataset)[protocol]
    for batch in read_batches(dataset, photos, segmenter.model.config.image_shape, 1, 0):
        score(segmenter, dataset.vocabulary, batch, {protocol: evaluator})
    best, worst = best_and_worst(evaluator, 2)
    for example in make_examples(segmenter, dataset, photos, evaluator, [*worst, *best]):
        again = Evaluator(dataset.vocabulary, protocol=protocol)
        objects = np.where(example.labels < 0, -1, 0)
        again.update(example.prediction, example.labels, objects, key=example.key)
        assert example.image.shape[:2] == example.labels.shape
        assert again.record_iou(example.key) == example.iou
