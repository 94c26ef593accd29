"""int8 products against float32: layers, the built-in model, and where they are refused."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from partclipseg.apps.cli import main
from partclipseg.errors import UsageError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.detectors import Detector
from partclipseg.models.int8 import Int8Linear, check_int8, int8_mlp
from partclipseg.models.number_types import PREDICTION_TYPES
from partclipseg.models.partcatseg.config import PartCATSegConfig
from partclipseg.models.partcatseg.model import PartCATSegModel
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import find_dtype
from partclipseg.shapes.dataset import PartShapesDataset

CPU = torch.device("cpu")


def _computes_int8() -> bool:
    try:
        check_int8(CPU)
    except UsageError:
        return False
    return True


needs_int8 = pytest.mark.skipif(not _computes_int8(), reason="this CPU has no fast int8 products")


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@needs_int8
@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 200),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_a_layer_is_close_and_its_rows_do_not_meet(rows, width, outputs, bias, size, seed):
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(width, outputs, bias=bias)
    x = size * torch.randn(rows, width, generator=generator)
    x[0] *= 1000  # an outlier, which must not cost the other rows their digits
    layer, expected = Int8Linear(linear), linear(x).detach()
    found = layer(x)
    # Half a step of 127 for each factor, at the worst in one direction.
    worst = (x.abs().amax(1, keepdim=True) / 254) * linear.weight.abs().sum(1)
    worst = worst + x.abs().sum(1, keepdim=True) * (linear.weight.abs().amax(1) / 254) * 1.01
    assert bool(((found - expected).abs() <= 1.01 * worst + 1e-5 * expected.abs().max()).all())
    for row in range(rows):
        torch.testing.assert_close(layer(x[row : row + 1])[0], found[row], rtol=1e-5, atol=1e-6)


@needs_int8
def test_hidden_values_of_two_layers():
    expand, contract = nn.Linear(64, 2048), nn.Linear(2048, 64)
    x = torch.randn(300, 64)
    expected = contract(torch.relu(expand(x))).detach()
    assert error(int8_mlp(x, Int8Linear(expand), Int8Linear(contract)), expected) < 0.04
    zeros = int8_mlp(torch.zeros(2, 64), Int8Linear(expand), Int8Linear(contract))
    assert error(zeros, contract(torch.relu(expand(torch.zeros(2, 64)))).detach()) < 0.02


@needs_int8
def test_a_layer_can_be_copied_pickled_and_fed_zeros():
    layer, x = Int8Linear(nn.Linear(24, 8)), torch.randn(2, 3, 24)
    assert layer(x).shape == (2, 3, 8)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    assert layer.bias is not None
    torch.testing.assert_close(layer(torch.zeros(4, 24)), layer.bias.expand(4, 8))


@needs_int8
def test_the_built_in_model_keeps_its_labels():
    dataset = PartShapesDataset("test", 6, 256)
    segmenters = {dtype: PartSegmenter.from_pretrained(device="cpu", dtype=dtype) for dtype in ("float32", "int8")}
    samples = list(dataset)
    sizes = [(256, 256)] * len(samples)
    maps = {
        dtype: np.stack([
            item.label_map.numpy()
            for item in segmenter.label_maps(segmenter.prepare([s.image for s in samples]), dataset.vocabulary, sizes)
        ])
        for dtype, segmenter in segmenters.items()
    }
    truth = np.stack([sample.part_labels for sample in samples])
    agreement = (maps["int8"] == maps["float32"]).mean()
    assert 0.995 <= agreement < 1
    right = {dtype: (found == truth).mean() for dtype, found in maps.items()}
    assert abs(right["int8"] - right["float32"]) < 0.003
    assert {dtype: segmenter.model.number_type for dtype, segmenter in segmenters.items()} == {
        "float32": "float32",
        "int8": "int8",
    }


@needs_int8
def test_the_decoder_of_a_wide_model(config):
    values = {k: v for k, v in config.to_dict().items() if k not in {"model_type", "architectures", "dtype"}}
    model = PartCLIPSegModel(PartCLIPSegConfig(**{**values, "decoder_intermediate_size": 1024})).eval()
    pixels, words = torch.randn(2, 3, 64, 64), torch.randn(5, config.projection_dim)
    with torch.inference_mode():
        expected = model.word_logits({"pixel_values": pixels}, words)
        narrow = PartCLIPSegModel(config)
        stamp = model.weights_stamp()
        for one in (model, narrow):
            one.quantise()
        found = model.word_logits({"pixel_values": pixels}, words)
    assert 0 < error(found, expected) < 0.1
    assert model.weights_stamp() != stamp
    layers = [name for name, layer in model.named_modules() if isinstance(layer, Int8Linear)]
    assert sum("decoder.layers" in name for name in layers) == 2 * len(config.extract_layers)
    assert not any(isinstance(layer, Int8Linear) for layer in narrow.decoder.modules())


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda folder: find_dtype("int8", torch.device("cuda"), PREDICTION_TYPES), "int8 is for CPUs, and the device"),
        (lambda folder: find_dtype("int8", torch.device("mps"), PREDICTION_TYPES), "int8 is for CPUs, and the device"),
        (lambda folder: find_dtype("int8", CPU), "unknown dtype 'int8': choose from float32, bfloat16, float16"),
        (lambda folder: Detector.from_pretrained(folder, device="cpu", dtype="int8"), "unknown dtype 'int8'"),
        (lambda folder: PartCATSegModel(PartCATSegConfig()).quantise(), "int8 is for PartCLIPSeg and the CLIPSeg"),
    ],
)
def test_where_int8_is_refused(act, words, model_directory):
    with torch.device("meta"), pytest.raises(UsageError, match=words):
        act(model_directory)


@needs_int8
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda load, out: load(compile=True), "give int8 or compile"),
        (lambda load, out: load().save_pretrained(out), "load it in float32"),
        (lambda load, out: load().push_to_hub("owner/model"), "load it in float32"),
        (lambda load, out: load().model.save_pretrained(out), "load it in float32"),
    ],
)
def test_what_a_model_in_int8_cannot(act, words, model_directory, tmp_path):
    with pytest.raises(UsageError, match=words):
        act(partial(PartSegmenter.from_pretrained, model_directory, "cpu", "int8"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["no AVX", "no VNNI", "no oneDNN"])
def test_a_cpu_without_fast_products(fault, monkeypatch):
    def overflow(self, rows, *rest):
        return torch.full((len(rows), len(self.weight)), 32767.0)

    def missing(self, *rest):
        raise RuntimeError("Didn't find engine for operation qlinear")

    if fault == "no AVX":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    else:
        monkeypatch.setattr(Int8Linear, "product", overflow if fault == "no VNNI" else missing)
    with pytest.raises(UsageError, match=r"needs an x86 CPU with VNNI instructions .* use float32 here"):
        find_dtype("int8", CPU, PREDICTION_TYPES)


@needs_int8
def test_predict_and_label_in_int8(model_directory, tmp_path: Path, capsys):
    photo = tmp_path / "photos/photo.png"
    photo.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(photo)
    words = ["--vocabulary", "dog: ear, tail", "--model", str(model_directory), "--device", "cpu", "--dtype", "int8"]
    assert main(["predict", str(photo), *words, "--output", str(tmp_path / "out")]) == 0
    assert "cpu, int8" in capsys.readouterr().out
    for _ in range(2):  # the second run takes up the first one, and says that nothing is left
        assert main(["label", str(photo.parent), *words, "--output", str(tmp_path / "labels")]) == 0
    assert json.loads((tmp_path / "labels/options.json").read_text())["dtype"] == "int8"
