"""Oracle-Obj tells ZSSeg+ the masks of the objects; `convert` makes a directory that `evaluate` takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.test_families import small_zsseg

import partclipseg
from partclipseg.apps.cli import main
from partclipseg.data.sample import PartSample
from partclipseg.evaluation.photos import group_records, read_batches
from partclipseg.evaluation.run import predict
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.crops import Edges, crop_around
from partclipseg.models.registry import load_tokenizer
from partclipseg.models.zsseg.foreign import place_of
from partclipseg.models.zsseg.model import ZSSegModel
from partclipseg.vocabulary import Vocabulary


class Photos:
    """Two records of noise: the dog in one half of the photo, then in the other."""

    vocabulary = Vocabulary.from_text("dog: ear, tail; cat: ear")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> PartSample:
        parts, objects = np.full((40, 60), -1, np.int32), np.full((40, 60), -1, np.int32)
        side = slice(0, 30) if index == 0 else slice(30, 60)
        parts[5:20, side], objects[:, side] = 0, self.vocabulary.object_index("dog")
        image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        return PartSample(image, parts, objects, str(index))


def segmenter(tokenizer_directory: Path) -> PartSegmenter:
    torch.manual_seed(1)
    return PartSegmenter(ZSSegModel(small_zsseg()), load_tokenizer(tokenizer_directory))


def test_oracle_obj_gives_the_mask_of_the_record(tokenizer_directory: Path) -> None:
    model, dataset = segmenter(tokenizer_directory), Photos()
    (batch,) = read_batches(dataset, group_records(dataset), None, batch_size=2, workers=0)
    with torch.inference_mode():
        first, second = (one.label_map for one in predict(model, dataset.vocabulary, batch, ["oracle_obj"]))
        inputs = model.prepare([dataset[0].image])
        masks = [torch.from_numpy(dataset[index].object_labels >= 0) for index in range(2)]
        expected = [
            model.label_maps(model.model.with_object_masks(inputs, [mask]), dataset.vocabulary, [(40, 60)], [[1]])[0]
            for mask in masks
        ]
        assert list(predict(model, dataset.vocabulary, batch, ["predicted_objects"]))
    assert dataset.vocabulary.objects[1] == "dog"
    assert torch.equal(first, expected[0].label_map)
    assert torch.equal(second, expected[1].label_map)
    assert not torch.equal(expected[0].scores, expected[1].scores)  # the photo is the same, the object is not


def test_objects_with_masks_are_looked_at_with_them(tokenizer_directory: Path) -> None:
    """The model is told the mask of an object, as in training, and the object's parts share the pixels of the mask."""
    model, sample = segmenter(tokenizer_directory), Photos()[0]
    mask = sample.object_labels >= 0
    given = [partclipseg.FoundObject("dog", (0, 0, 30, 40), mask=mask)]
    result = model([sample.image], Photos.vocabulary, instances=[given])[0]
    crop = crop_around(1, Edges(0, 0, 40, 30), model.model.image_shape, (40, 60))
    inputs = model.prepare([sample.image[crop.window]])
    size = (crop.height, crop.width)
    told, untold = (
        model.label_maps(some, Photos.vocabulary, [size], [[1]])[0]
        for some in (model.model.with_object_masks(inputs, [torch.from_numpy(mask[crop.window])]), inputs)
    )
    inside = torch.from_numpy(mask[crop.window])
    assert np.array_equal(result.label_map[mask], told.label_map[inside])
    part = int(told.label_map[inside][0])
    means = [float(maps.scores[inside & (told.label_map == part)].mean()) for maps in (told, untold)]
    assert result.scores[part] == pytest.approx(means[0], rel=1e-5)  # float32 sums
    assert result.scores[part] != pytest.approx(means[1], rel=1e-5)


def test_convert_and_predict(tokenizer_directory: Path, tmp_path: Path, capsys) -> None:
    model = segmenter(tokenizer_directory).model
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():  # as a released file has them
        place = place_of(name)
        theirs = tensor.T if place.transposed else tensor
        if place.third is not None:
            stacked = tensors.setdefault(place.name, torch.zeros(place.shape(tuple(tensor.shape))))
            stacked.chunk(3)[place.third].copy_(tensor)
        elif not name.endswith(("num_batches_tracked", "position_ids")):
            tensors[place.name] = theirs.clone()
    tensors["criterion.empty_weight"] = torch.zeros(75)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in tensors.items()}}, tmp_path / "zsseg.pth")
    (tmp_path / "config.json").write_text(json.dumps({**model.config.to_dict(), "reference": True, "repairs": None}))
    command = ["convert", str(tmp_path / "zsseg.pth"), "--output", str(tmp_path / "model"), "--vocabulary", "dog: ear"]
    command += ["--config", str(tmp_path / "config.json"), "--tokenizer", str(tokenizer_directory)]
    assert main(command) == 0
    assert "reference mode" in " ".join(capsys.readouterr().out.split())
    loaded = PartSegmenter.from_pretrained(tmp_path / "model", device="cpu").model
    assert loaded.config.reference
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=0, rtol=0)
    del tensors["clip_adapter.non_object_embedding"]
    torch.save({"model": tensors}, tmp_path / "zsseg.pth")
    assert main([*command[:3], str(tmp_path / "other"), *command[4:]]) == 1
    assert "clip_adapter.non_object_embedding" in capsys.readouterr().err
