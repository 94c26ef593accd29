"""Saved scores: they stand for their data, and say what is damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from partclipseg.data import source
from partclipseg.data.datasets import open_dataset
from partclipseg.data.fingerprint import changed_data, fingerprint
from partclipseg.errors import PartCLIPSegError
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.photos import group_records, read_batches
from partclipseg.evaluation.state import SavedScores
from partclipseg.files import locked
from partclipseg.writing import claimed, writing


def opened(root: Path, **own: Any):
    return open_dataset("index-png", root, "test", **own)


def mend_label(root: Path) -> None:
    labels = np.array(Image.open(root / "labels/p0.png"))
    labels[0, 0] = 1
    Image.fromarray(labels).save(root / "labels/p0.png")


def replace_photo(root: Path) -> None:
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(root / "images/p0.png")


def exchange_classes(root: Path) -> None:
    (root / "classes.txt").write_text("cat's leg\ncat's ear\ndog's ear\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: None, ""),
        (mend_label, "the annotations"),
        (exchange_classes, "the annotations"),
        (replace_photo, "the photos"),
        (lambda root: (replace_photo(root), mend_label(root)), "the annotations and the photos"),
        (lambda root: os.utime(root / "images/p1.png", (1, 1)), "the photos"),
        (lambda root: (root / "notes.txt").write_text("no matter"), ""),
    ],
)
def test_what_changed_is_told(own_data: Path, change, said: str) -> None:
    before = fingerprint(opened(own_data))
    change(own_data)
    assert changed_data(before, fingerprint(opened(own_data))) == said


def test_photos_are_compared_by_content_when_asked(own_data: Path) -> None:
    before = fingerprint(opened(own_data), verify=True)
    moved = own_data.with_name("moved")
    shutil.copytree(own_data, moved, copy_function=shutil.copyfile)  # other times
    assert fingerprint(opened(moved), verify=True) == before
    assert changed_data(before, fingerprint(opened(own_data))) == "the photos"
    replace_photo(own_data)
    assert changed_data(before, fingerprint(opened(own_data), verify=True)) == "the photos"


def test_coco_annotations_count_by_content(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "categories": [{"id": 1, "name": "ear", "supercategory": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]}],
    }
    path = tmp_path / "annotations.json"

    def digest(**own: Any) -> dict[str, str]:
        path.write_text(json.dumps(content))
        return fingerprint(open_dataset("coco", tmp_path, "test", **own))

    before = digest()
    assert digest() == before
    assert changed_data(before, digest(mapping={"ear": "cat's tail"})) == "the annotations"
    content["annotations"][0]["segmentation"][0][2] = 10
    assert changed_data(before, digest()) == "the annotations"


def test_a_photo_is_decoded_once_for_all_its_records(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset("pascal-part-116", shared / "data/PascalPart116", "test")
    alone = [dataset[index] for index in range(len(dataset))]
    decoded: list[Path] = []
    read = source.read_photo
    monkeypatch.setattr(source, "read_photo", lambda path: (decoded.append(path), read(path))[1])
    photos = group_records(dataset)
    batches = list(read_batches(dataset, photos, (32, 32), 4, 0))
    together = [record for batch in batches for photo in batch for record in photo.records]
    assert (len(together), len(decoded)) == (20, 13)
    for sample, record in zip(alone, together, strict=True):
        assert sample.key == record.key
        np.testing.assert_array_equal(sample.part_labels, record.part_labels)
        np.testing.assert_array_equal(sample.object_labels, record.object_labels)


def saved_state(folder: Path) -> tuple[SavedScores, dict[Any, Evaluator], Path]:
    evaluator = Evaluator(["cat's ear", "cat's leg"], protocol="pred_all")
    labels = np.array([[0, 0, 1, 1]], np.int32)
    evaluator.update(labels, labels, key="a")
    saved = SavedScores(folder, {"model": "m"}, {"annotations": "x", "photos": "y"})
    saved.save({"pred_all": evaluator})
    return saved, {"pred_all": Evaluator(["cat's ear", "cat's leg"], protocol="pred_all")}, folder / "scores-0.state"


def test_scores_of_other_data_are_refused_with_the_remedy(tmp_path: Path) -> None:
    _, evaluators, path = saved_state(tmp_path)
    now = SavedScores(tmp_path, {"model": "m"}, {"annotations": "other", "photos": "y"})
    with pytest.raises(PartCLIPSegError, match=rf"other data \(the annotations changed since\): .*delete {path}"):
        now.load(evaluators)


def edited(**changes: Any):
    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        content["scores"]["pred_all"]["regions"].update(changes)
        torch.save(content, path)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b"no state"),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"options": 3, "scores": {}}, path),
        lambda path: torch.save({"options": {"model": "m"}, "data": [], "scores": {}}, path),
        lambda path: torch.save({"options": {"model": "m"}, "data": {"annotations": "x", "photos": "y"},
                                 "scores": {"pred_all": 7}}, path),
        edited(cells=torch.tensor([-1, 400], dtype=torch.int32)),
        edited(lengths=torch.tensor([5])),
        edited(keys=[]),
        edited(counts="many"),
        edited(size=None),
    ],
)  # fmt: skip
def test_a_damaged_state_is_named_with_what_to_delete(tmp_path: Path, damage) -> None:
    saved, evaluators, path = saved_state(tmp_path)
    damage(path)
    with pytest.raises(PartCLIPSegError, match=rf"{path} is damaged: delete it to score its photos again"):
        saved.load(evaluators)


class RustError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"\(No space left on device\): make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/.hidden.tmp"), r"\(Permission denied\): change"),
        (RustError("Error: I/O error: No space left on device (os error 28)"), "make room"),
        (RustError("Read-only file system (os error 30)"), "name a folder that can be written to"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "PytorchStreamWriter.*: check the path and"),
    ],
)
def test_whatever_a_writer_raises_is_one_sentence(tmp_path: Path, error: Exception, said: str) -> None:
    path = tmp_path / "model"
    with pytest.raises(PartCLIPSegError, match=f"^{path} cannot be .*{said}"), writing(path):
        raise error


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make a file")
def test_a_folder_that_takes_no_files_is_not_claimed() -> None:
    with pytest.raises(PartCLIPSegError, match=r"^/proc cannot be read or written"), claimed(Path("/proc")):
        pass


def test_a_folder_is_claimed_by_one_run(tmp_path: Path) -> None:
    refused = pytest.raises(PartCLIPSegError, match="another run is writing to")
    with claimed(tmp_path / "out"), refused, claimed(tmp_path / "out"):
        pass
    with locked(tmp_path / "out"):
        pass
