"""Parity with OV-PARTS' own fine-tuned CLIPSeg (float32, CPU): logits, loss, gradients, predictions and counts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file as load_tensors

from partclipseg.apps.cli import main
from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.errors import PartCLIPSegError
from partclipseg.losses.config import MaskLossConfig
from partclipseg.models.clipseg.foreign import REFERENCE_PREFIX, load_released
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg.settings import CLIPSegSettings
from partclipseg.models.clipseg_weights import foreign_names
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg import foreign as partclipseg_files
from partclipseg.models.registry import find_foreign, load_file, load_tokenizer
from partclipseg.vocabulary import Vocabulary


class OVParts(NamedTuple):
    folder: Path
    meta: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    model: CLIPSegBaseline

    def words(self, split: str) -> Words:
        """The words of training or testing, by the golden's own tokenizer."""
        vocabulary = Vocabulary.from_names(self.meta[f"{split}_vocabulary"])
        tokenizer = load_tokenizer(self.folder / "tokenizer")
        tokens = tokenizer(self.model.prompts(vocabulary), padding="max_length", max_length=77, return_tensors="pt")
        torch.testing.assert_close(tokens["input_ids"], self.tensors[f"{split}.input_ids"], atol=0, rtol=0)
        return Words.of(vocabulary, self.model.encode_text(tokens["input_ids"], tokens["attention_mask"]))


@pytest.fixture
def ovparts(shared: Path, tmp_path: Path) -> OVParts:
    source = shared / "reference" / "golden" / "clipseg_baseline" / "dev"
    meta = json.loads((source / "meta.json").read_text())
    folder = tmp_path / "golden"
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).write_bytes((source / "tokenizer" / name).read_bytes())
    model = load_file(source / "checkpoint.pth", {**meta["hf_config"], "image_size": meta["size"]})
    return OVParts(folder, meta, load_tensors(source / "tensors.safetensors"), model)


def test_logits(ovparts: OVParts):
    model, name = ovparts.model, ovparts.meta["logits_of"]
    photo = model.prepare([ovparts.tensors[f"photo.{name}"].numpy()])
    with torch.no_grad():
        logits = model(photo, ovparts.words("test")).object_part_logits
    torch.testing.assert_close(photo["pixel_values"], ovparts.tensors[f"pixel_values.{name}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, ovparts.tensors[f"logits.{name}"], atol=1e-5, rtol=0)


def test_loss_and_gradients(ovparts: OVParts):
    model, tensors = ovparts.model, ovparts.tensors
    model.trained_parameters(CLIPSegSettings())
    output = model({"pixel_values": tensors["train.pixel_values"]}, ovparts.words("train"))
    torch.testing.assert_close(output.object_part_logits, tensors["train.logits"], atol=1e-5, rtol=0)
    labels = tensors["train.targets"].long()
    labels[labels == 255] = UNLABELLED
    objects = torch.full_like(labels, OUTSIDE)  # as the reference has it, all but labelled parts is background
    settings = CLIPSegSettings(loss=MaskLossConfig(outside="background"))
    loss = model.build_loss(settings)(output, labels, objects)["total"]
    assert loss.item() == pytest.approx(ovparts.meta["losses"]["loss_sem_seg"], abs=1e-6)
    loss.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    theirs = {REFERENCE_PREFIX + foreign for name in trained for foreign in foreign_names(name, model.config)}
    assert theirs == set(ovparts.meta["requires_grad"])
    for name, parameter in trained.items():
        names = foreign_names(name, model.config)
        assert parameter.grad is not None
        for foreign, gradient in zip(names, parameter.grad.chunk(len(names)), strict=True):
            expected = ovparts.meta["gradient_norms"][REFERENCE_PREFIX + foreign]
            assert gradient.norm().item() == pytest.approx(expected, rel=1e-3, abs=1e-8), foreign


def test_predictions_and_counts(ovparts: OVParts):
    model, tensors = ovparts.model, ovparts.tensors
    words = ovparts.words("test")
    classes = len(words.vocabulary)
    owners = words.class_to_object[:, None, None]
    confusion, unequal = np.zeros((classes + 1, classes + 1), np.int64), 0
    records = [record for record in ovparts.meta["records"] if not record["skipped"]]
    for index, record in enumerate(records):
        photo = tensors[f"photo.{record['file'].removesuffix('.jpg')}"].numpy()
        present = [words.vocabulary.objects.index(record["object"])]
        inputs = model.prepare([photo])
        (maps,) = model.label_maps(inputs, words, [photo.shape[:2]], [present])
        expected = tensors[f"record{index}.oracle_argmax"].long()
        # The reference compares probabilities, ours are logits: two classes may have the same float32 probability.
        with torch.no_grad():
            logits = model(inputs, words).object_part_logits[:, :-1]
        probabilities = F.interpolate(logits, photo.shape[:2], mode="bilinear").sigmoid()[0]  # [N_c, H, W]
        reached = [probabilities.gather(0, labels[None]) for labels in (maps.label_map, expected)]
        torch.testing.assert_close(*reached, atol=1e-7, rtol=0)
        assert owners.flatten()[maps.label_map].eq(present[0]).all()
        # Which of two equal classes wins depends on the processor's last bit: a few pixels of thousands at most.
        assert int((maps.label_map != expected).sum()) <= 4
        unequal += int((maps.label_map != expected).sum())
        predicted = maps.label_map.numpy()
        labels = tensors[f"record{index}.labels"].numpy().astype(np.int64)
        inside = tensors[f"record{index}.object_mask"].numpy().astype(bool)
        pairs = np.where(inside, predicted, classes), np.where(labels == 255, classes, labels)
        np.add.at(confusion, pairs, 1)
    counts = np.zeros_like(confusion)
    counts[tuple(tensors["oracle_obj.confusion_index"].numpy().astype(int))] = tensors["oracle_obj.confusion_count"]
    # A pixel of another class leaves one cell for another one.
    assert np.abs(confusion - counts).sum() <= 2 * unequal
    assert confusion.sum() == counts.sum()


def test_convert_and_predict(ovparts: OVParts, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from PIL import Image

    config = tmp_path / "config.json"
    config.write_text(json.dumps({**ovparts.meta["hf_config"], "image_size": ovparts.meta["size"]}))
    checkpoint = shared / "reference" / "golden" / "clipseg_baseline" / "dev" / "checkpoint.pth"
    model, tokenizer = str(tmp_path / "model"), str(ovparts.folder / "tokenizer")
    options = ["--vocabulary", "pascal-part-116", "--config", str(config), "--tokenizer", tokenizer]
    assert main(["convert", str(checkpoint), "--output", model, *options]) == 0
    assert "reference mode" not in capsys.readouterr().out  # PartCLIPSeg's alone
    photo = ovparts.tensors[f"photo.{ovparts.meta['logits_of']}"].numpy()
    Image.fromarray(photo).save(tmp_path / "photo.png")
    output = ["--output", str(tmp_path / "parts"), "--format", "png"]
    assert main(["predict", str(tmp_path / "photo.png"), "--model", model, *output]) == 0
    assert (tmp_path / "parts" / "photo.parts.png").is_file() or list((tmp_path / "parts").glob("*.png"))


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["partclipseg_model.clip.logit_scale"], "partclipseg"),
        (["clipseg_model.clip.logit_scale"], "clipseg-baseline"),
        (["clip.logit_scale", "decoder.reduces.0.bias"], "partclipseg"),
        (["backbone.res2.0.conv1.weight", "sem_seg_head.predictor.transformer.conv1.weight"], "catseg"),
        (["module.sem_seg_head.predictor.transformer.conv1.weight"], "catseg"),
        (["sem_seg_head.predictor.transformer.decoder.norm.weight", "clip_adapter.fuse_weight"], "zsseg"),
        (["backbone.dinov2.cls_token", "sem_seg_head.predictor.transformer.conv_proj_feat.weight"], "partcatseg"),
    ],
)
def test_files_are_told_by_their_tensors(names: list[str], family: str, tmp_path: Path):
    _, config = find_foreign(write(tmp_path / "file.pth", names))
    assert config.model_type == family


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["prompt_learner.prefix_prompt"],
            r"file.pth is a checkpoint of ZSSeg\+'s prompts alone, a method that is not here: give one of PartCLIPSeg, "
            "OV-PARTS' CLIPSeg, OV-PARTS' ZSSeg",
        ),
        (
            ["backbone.res2.0.conv1.weight", "sem_seg_head.pixel_decoder.mask_features.weight"],
            "checkpoint of MaskFormer",
        ),
        (["module.sem_seg_head.predictor.query_embed.weight"], "checkpoint of MaskFormer"),
        (
            ["sem_seg_head.predictor.query_embed.weight", "sem_seg_head.predictor.transformer.decoder.norm.weight"],
            "checkpoint of MaskFormer",
        ),
        (["layer1.weight"], "is no released file of a method that is known here: give one of PartCLIPSeg"),
    ],
)
def test_files_of_other_methods_are_refused_by_name(names: list[str], message: str, tmp_path: Path, capsys: Any):
    path = write(tmp_path / "file.pth", names)
    with pytest.raises(PartCLIPSegError, match=message):
        load_file(path)
    assert main(["convert", str(path), "--output", str(tmp_path / "out"), "--vocabulary", "dog: ear"]) == 1
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_every_name_of_zsseg_tells_its_method(shared: Path, tmp_path: Path):
    names = json.loads((shared / "reference" / "names_zsseg_r50.json").read_text())
    _, config = find_foreign(write(tmp_path / "zsseg.pth", names))
    assert (config.model_type, config.reference) == ("zsseg", True)


def write(path: Path, names: Iterable[str]) -> Path:
    torch.save({"model": {name: torch.zeros(1) for name in names}}, path)
    return path


def test_the_wrong_loader_names_the_method(tmp_path: Path):
    with pytest.raises(PartCLIPSegError, match=r"is no checkpoint of partclipseg: .*`partclipseg convert` tells"):
        partclipseg_files.load_reference_checkpoint(write(tmp_path / "a.pth", ["clipseg_model.clip.a"]))
    with pytest.raises(
        PartCLIPSegError, match="is no checkpoint of clipseg: no tensor's name begins with clipseg_model"
    ):
        load_released(write(tmp_path / "b.pth", ["partclipseg_model.clip.a"]))


def test_every_released_name_fits(shared: Path, tmp_path: Path):
    """The names and shapes of the files at their real size, on PyTorch's meta device."""
    listed = json.loads((shared / "reference" / "names_clipseg.json").read_text())
    with torch.device("meta"):
        from partclipseg.models.clipseg.config import CLIPSegBaselineConfig

        model = CLIPSegBaseline(CLIPSegBaselineConfig.from_reference())
    ours = {}
    for name, tensor in model.state_dict().items():
        names = foreign_names(name, model.config)
        ours.update({REFERENCE_PREFIX + foreign: [len(tensor) // len(names), *tensor.shape[1:]] if tensor.ndim else []
                     for foreign in names})  # fmt: skip
    unused = ("text_adapter", "tunable_linear", "position_ids")
    assert ours == {name: shape for name, shape in listed.items() if not any(word in name for word in unused)}
