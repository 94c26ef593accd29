"""Directories of detectors that are damaged, hostile or another model's: each refused by one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.instances.tiny import build
from tests.models.damage import configure, cut, remove

from partclipseg.errors import PartCLIPSegError
from partclipseg.instances.detectors import Detector
from partclipseg.instances.outlines import Outliner


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("grounding-dino", tmp_path_factory.mktemp("detector"))


def poison(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def prepare(**changes: Any) -> Callable[[Path], Any]:
    return configure("preprocessor_config.json", **changes)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "type of a list": (configure(model_type=[1]), "and a detector must be one of owlv2"),
    "type of a table": (configure(model_type={}), "and a detector must be one of"),
    "type of a number": (configure(model_type=7), "and a detector must be one of"),
    "no type": (configure(model_type=...), "and a detector must be one of"),
    "another model": (configure(model_type="sam2"), "holds a model of type 'sam2', and a detector must be one of"),
    "no configuration": (remove("config.json"), "has no config.json"),
    "no weights": (remove("model.safetensors"), "has no weights"),
    "cut weights": (cut("model.safetensors", lambda length: length - 1000), "is cut or damaged"),
    "NaN": (poison, "NaN or infinity in"),
    "a million layers": (configure(text_config__num_hidden_layers=10**6), "states a num_hidden_layers of more than"),
    "a million layers in all": (configure(encoder_layers=10**6), "states a encoder_layers of more than 1,000"),
    "a million blocks of a stage": (configure(backbone_config__depths=[1, 1, 10**6, 1]), "states a depths of more"),
    "a million numbers a row": (configure(text_config__hidden_size=10**6), "the configuration asks for"),
    "no tower": (configure(text_config=None), "the configuration asks for"),
    "a list for a tower": (configure(text_config=[1]), "cannot be loaded"),
    "an unknown number type": (configure(dtype="float99"), "cannot be loaded"),
    "an own threshold of text": (configure(detection_threshold="x"), "states a detection_threshold of 'x'"),
    "size as text": (prepare(size="x"), "states size as 'x', which must be a shortest_edge and a longest_edge from 1"),
    "size as a number": (prepare(size=7), "states size as 7"),
    "size of text": (prepare(size={"shortest_edge": "a", "longest_edge": 9}), "states size as"),
    "half a size": (prepare(size={"shortest_edge": 64}), "states size as"),
    "size below 0": (prepare(size={"shortest_edge": -5, "longest_edge": 9}), "states size as"),
    "size that takes all memory": (prepare(size={"shortest_edge": 10**7, "longest_edge": 10**8}), "states size as"),
    "size of broken pixels": (prepare(size={"shortest_edge": 64.5, "longest_edge": 128}), "states size as"),
    "mean of two": (prepare(image_mean=[1, 2]), "states image_mean as .*, which must be three numbers"),
    "mean of one": (prepare(image_mean=0.5), "states image_mean as"),
    "mean of text": (prepare(image_mean="abc"), "states image_mean as"),
    "deviation of 0": (prepare(image_std=[0, 0, 0]), "states image_std as .*, which must be three numbers above 0"),
    "deviation of NaN": (prepare(image_std=[float("nan")] * 3), "states image_std as"),
    "settings cut": (lambda folder: (folder / "preprocessor_config.json").write_bytes(b"{"), "is not valid JSON"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_detector(name: str, detector: Path, tmp_path: Path):
    damage, message = DAMAGES[name]
    folder = shutil.copytree(detector, tmp_path / "model")
    damage(folder)
    with pytest.raises(PartCLIPSegError, match=message) as caught:
        Detector.from_pretrained(folder).find([np.zeros((40, 56, 3), np.uint8)], ["dog"])
    assert str(folder) in str(caught.value)
    with pytest.raises(PartCLIPSegError):
        Outliner.from_pretrained(folder)


def test_code_in_a_directory_is_not_run(detector: Path, tmp_path: Path):
    folder = shutil.copytree(detector, tmp_path / "model")
    configure(auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}, trust_remote_code=True)(folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert json.loads((folder / "config.json").read_text())["trust_remote_code"]
    Detector.from_pretrained(folder, threshold=0.5)
    assert not (tmp_path / "ran").exists()
