"""OV-PARTS' published evaluation from files to scores: its golden photos and labels, by its own two models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file as load_tensors
from tests.models.zsseg.test_golden import golden_config, ids_of

from partclipseg import open_dataset
from partclipseg.evaluation.photos import group_records
from partclipseg.evaluation.run import make_evaluators, score_photos
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.interface import Words
from partclipseg.models.registry import load_file, load_tokenizer
from partclipseg.vocabulary import Vocabulary


def write_photos(folder: Path, photos: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> None:
    """Write photos and the label maps of a golden in the layout of Pascal-Part-116."""
    for name, values in (
        ("images/val", photos),
        ("annotations_detectron2_part/val", {stem: labels[f"part_labels.{stem}"] for stem in photos}),
        ("annotations_detectron2_obj/val", {stem: labels[f"object_labels.{stem}"] for stem in photos}),
    ):
        (folder / name).mkdir(parents=True)
        for stem, tensor in values.items():
            Image.fromarray(tensor.numpy().astype(np.uint8)).save(folder / name / f"{stem}.png")


class KnownWords(PartSegmenter):
    """A segmenter whose words are embedded ahead, by tokens that no tokenizer gives."""

    known: Words

    def words(self, vocabulary: Vocabulary) -> Words:
        return self.known


def clipseg(folder: Path, meta: dict[str, Any]) -> PartSegmenter:
    model = load_file(folder / "checkpoint.pth", {**meta["hf_config"], "image_size": meta["size"]})
    return PartSegmenter(model, load_tokenizer(folder / "tokenizer"))


def zsseg(folder: Path, meta: dict[str, Any]) -> PartSegmenter:
    segmenter = KnownWords(load_file(folder / "checkpoint.pth", golden_config(meta)), None)
    vocabulary = Vocabulary.from_names(meta["test_vocabulary"])
    with torch.no_grad():
        embeddings = segmenter.model.encode_text(ids_of(meta, vocabulary), torch.ones(1))
    segmenter.known = Words.of(vocabulary, embeddings)
    return segmenter


@pytest.mark.parametrize(("name", "load"), [("clipseg_baseline", clipseg), ("zsseg", zsseg)])
def test_scores_of_files_are_those_of_the_released_evaluator(name: str, load: Any, shared: Path, tmp_path: Path):
    """The labels of ZSSeg+ are resized to the size of its photos, 96 pixels in the golden: fwIoU tells it from 800."""
    goldens = shared / "reference/golden"
    meta = json.loads((goldens / name / "dev/meta.json").read_text())
    tensors = load_tensors(goldens / name / "dev/tensors.safetensors")
    records = [record for record in meta["records"] if not record["skipped"]]
    photos = {}
    for index, record in enumerate(records):
        stem = record["file"].removesuffix(".jpg")
        photos[stem] = tensors[f"photo.{stem}" if name == "clipseg_baseline" else f"record{index}.photo"]
    write_photos(tmp_path, photos, load_tensors(goldens / "clipseg_baseline/dev/tensors.safetensors"))
    dataset = open_dataset("pascal-part-116", tmp_path, "test")
    assert [f"{one['file'].removesuffix('.jpg')}-{one['object']}" for one in records] == list(dataset.keys())  # type: ignore
    evaluators = make_evaluators(dataset, "oracle_obj", boundary=None, rule="ov-parts")
    assert sum(score_photos(load(goldens / name / "dev", meta), dataset, group_records(dataset), evaluators)) == 3
    scores = evaluators["oracle_obj"].compute()
    sets = {"mIoU": scores.all, "mIoU-base": scores.seen, "mIoU-unbase": scores.unseen, "h-IoU": scores.harmonic}
    ours = {key: members.iou for key, members in sets.items()} | {"fwIoU": scores.frequency_weighted_iou}
    # Pixels of equal probability may fall to either class: a few of thousands.
    assert ours == pytest.approx(meta["oracle_obj"], abs=0.02)
