"""No command predicts with an untrained PartCLIPSeg: a plain CLIPSeg answers as CLIPSeg, half a model is refused."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import small_config

from partclipseg.apps.cli import main
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.clipseg.plain import PlainCLIPSeg
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import load_tokenizer

WORDS = "cat: ear, leg; dog: ear"
WITHOUT_TRAINING = "CLIPSeg without training"


@pytest.fixture(scope="module")
def plain_directory(tmp_path_factory: pytest.TempPathFactory, tokenizer_directory: Path) -> Path:
    """A small CLIPSeg as the hub has it, some of whose probabilities are above the threshold and some below."""
    torch.manual_seed(3)
    values = small_config().to_dict()
    del values["model_type"]
    directory = tmp_path_factory.mktemp("plain")
    PlainCLIPSeg(PlainCLIPSeg.config_class(**values)).save_pretrained(directory)
    load_tokenizer(tokenizer_directory).save_pretrained(directory)
    return directory


@pytest.fixture(params=["plain", "half"])
def directory(request: pytest.FixtureRequest, plain_directory: Path, model_directory: Path, tmp_path: Path) -> Path:
    """A plain CLIPSeg; or its weights beside a PartCLIPSeg's configuration, which would leave half of it random."""
    if request.param == "plain":
        return plain_directory
    shutil.copytree(plain_directory, tmp_path / "half")
    shutil.copy(model_directory / "config.json", tmp_path / "half" / "config.json")
    return tmp_path / "half"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos" / "a.png"


Look = Callable[[Path, Path, Path], np.ndarray]


def predict(model: Path, photo: Path, output: Path) -> np.ndarray:
    options = ["--vocabulary", WORDS, "--model", str(model), "--device", "cpu", "--format", "png"]
    assert main(["predict", str(photo), *options, "--output", str(output)]) == 0
    return np.asarray(Image.open(output / "a.labels.png"))


def label(model: Path, photo: Path, output: Path) -> np.ndarray:
    options = ["--vocabulary", WORDS, "--model", str(model), "--device", "cpu", "--format", "png"]
    assert main(["label", str(photo.parent), *options, "--output", str(output)]) == 0
    return np.asarray(Image.open(next(output.rglob("a*.png"))))


def serve(model: Path, photo: Path, output: Path) -> np.ndarray:
    """The map that a client of the started server gets."""
    pytest.importorskip("gradio")
    import uvicorn
    from starlette.testclient import TestClient

    from partclipseg.apps.serve import command
    from partclipseg.apps.serve.api import create_api

    answers = []

    def answer(server: uvicorn.Server, sockets: list) -> None:
        client = TestClient(server.config.app)  # pyright: ignore[reportArgumentType]
        files = {"photo": ("a.png", photo.read_bytes())}
        fields, headers = {"vocabulary": WORDS, "formats": "png"}, {"Accept": "application/zip"}
        answers.append(client.post("/v1/segment", files=files, data=fields, headers=headers))
        for socket in sockets:
            socket.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "run", answer)
        patch.setattr(command, "create_app", lambda engine, *_, **__: create_api(engine))  # the page takes seconds
        assert main(["serve", "--model", str(model), "--port", "0", "--device", "cpu"]) == 0
    assert answers[0].status_code == 200, answers[0].text
    with zipfile.ZipFile(io.BytesIO(answers[0].content)) as archive:
        return np.asarray(Image.open(archive.open("a.labels.png")))


@pytest.mark.parametrize("look", [predict, label, serve])
def test_prediction(look: Look, directory: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if directory.name == "half":
        with pytest.raises(AssertionError, match="1 == 0"):
            look(directory, photo, tmp_path / "out")
        assert_refused(capsys.readouterr().err)
        return
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # an untrained model would answer otherwise each time
        found.append(look(directory, photo, tmp_path / f"out{seed}"))
        assert WITHOUT_TRAINING in capsys.readouterr().out
    segmenter = PartSegmenter.from_pretrained(directory, "cpu", "float32")
    assert isinstance(segmenter.model, PlainCLIPSeg)
    expected = segmenter(str(photo), WORDS).label_map
    assert len(np.unique(expected)) > 1, "the case is to show parts"
    for labels in found:
        assert np.array_equal(labels, np.where(expected < 0, 255, expected))


def test_evaluation(directory: Path, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = ["--dataset", "index-png", "--data", str(own_data), "--device", "cpu", "--workers", "0"]
    data += ["--boundary", "none", "--protocol", "pred_all", "--limit", "2"]
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        output = tmp_path / f"report{seed}"
        code = main(["evaluate", str(directory), *data, "--output", str(output)])
        printed = capsys.readouterr()
        if directory.name == "half":
            assert code == 1
            assert_refused(printed.err)
            return
        assert code == 0
        assert WITHOUT_TRAINING in printed.out
        scores.append(json.loads((output / "scores.json").read_text())["scores"])
    assert scores[0] == scores[1]


def test_a_model_that_finds_no_object(plain_directory: Path, own_data: Path, capsys: pytest.CaptureFixture) -> None:
    """It is not said that the labels are missing, where the parts of predicted objects leave all of them out."""
    command = ["evaluate", str(plain_directory), "--dataset", "index-png", "--data", str(own_data), "--device", "cpu"]
    command += ["--workers", "0", "--boundary", "none", "--protocol", "predicted_objects", "--limit", "2"]
    assert main([*command, "--threshold", "1"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the model found no object of the vocabulary where parts are labelled (2 photos): choose another" in said
    assert "label some" not in said


def test_export(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    if directory.name != "half":
        pytest.skip("tests/apps/export/test_plain_clipseg.py exports a plain CLIPSeg and compares its maps")
    assert main(["export", str(directory), "--output", str(tmp_path / "onnx")]) == 1
    assert_refused(capsys.readouterr().err)
    assert not (tmp_path / "onnx").exists()


def assert_refused(said: str) -> None:
    said = " ".join(said.split())
    assert "does not fit the model in" in said
    assert "missing: background" in said


def test_an_untrained_model_would_be_noticed(plain_directory: Path, photo: Path) -> None:
    """What `from_pretrained` of the class gives as a start for training has another map for each seed."""
    maps = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = PartCLIPSegModel.from_pretrained(plain_directory)
        segmenter = PartSegmenter(model, load_tokenizer(plain_directory))
        maps.append(segmenter(str(photo), WORDS).label_map)
    assert not np.array_equal(*maps)
