"""The exported script with damaged folders, wrong words and outputs that are somebody's: one sentence, nothing lost."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper
from tests.apps.export.sharing import sharing

from partclipseg.apps.cli import main

WORDS = "dog: head, ear; bus: wheel"


class Program:
    """A graph in place of a traced one, which takes long to make; the labels are of no interest here."""

    def __init__(self, inputs: dict[str, list[Any]], output: str, shape: list[Any], *nodes: onnx.NodeProto) -> None:
        whole = {"input_ids", "attention_mask", "class_to_object"}
        types = {name: TensorProto.INT64 if name in whole else TensorProto.FLOAT for name in inputs}
        values = [helper.make_tensor_value_info(name, types[name], sizes) for name, sizes in inputs.items()]
        result = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(nodes, "graph", values, result)
        self.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def save(self, path: Path, external_data: bool) -> None:
        onnx.save(self.model, path)


def programs() -> dict[str, Program]:
    node, photos = helper.make_node, ["b", 3, "h", "w"]
    constants = {"one": [1.0], "last": [0.0], "shape": [1, -1, 1, 1]}
    words = {name: ["k", "t"] for name in ("input_ids", "attention_mask")}
    kinds = {name: TensorProto.INT64 if name == "shape" else TensorProto.FLOAT for name in constants}
    return {
        "photo_encoder": Program(
            {"pixel_values": photos}, "pixels", photos, node("Identity", ["pixel_values"], ["pixels"])
        ),
        "text_encoder": Program(
            words, "text_embeddings", ["k", "t"], node("Cast", ["input_ids"], ["text_embeddings"], to=TensorProto.FLOAT)
        ),
        # Each class has the brightness, times one more than the number of its object.
        "decoder": Program(
            {"pixels": photos, "class_to_object": ["n"], "part_embeddings": ["k", "t"]},
            "object_part_logits",
            ["b", "m", "h", "w"],
            *(
                node("Constant", [], [name], value=helper.make_tensor(name, kinds[name], [len(values)], values))
                for name, values in constants.items()
            ),
            node("Cast", ["class_to_object"], ["numbers"], to=TensorProto.FLOAT),
            node("Add", ["numbers", "one"], ["factors"]),
            node("Concat", ["factors", "last"], ["all"], axis=0),
            node("Reshape", ["all", "shape"], ["weights"]),
            node("ReduceMean", ["pixels"], ["mean"], axes=[1], keepdims=1),
            node("Abs", ["mean"], ["brightness"]),
            node("Mul", ["weights", "brightness"], ["object_part_logits"]),
        ),
    }


@pytest.fixture(scope="module")
def exported(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the command writes it; of 16-bit floats, whose labels may differ from PyTorch's."""
    folder = tmp_path_factory.mktemp("hostile") / "onnx"
    with sharing(made := programs(), made):
        assert main(["export", str(model_directory), "--output", str(folder), "--dtype", "float16"]) == 0
    return folder


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(path)
    return path


Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Call:
    """Run the script of a folder in this process; the answer is the exit code and the last line of the errors."""

    def run(folder: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(folder / "segment.py"), *arguments])
        code: Any = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        return code, (capsys.readouterr().err.strip().splitlines() or [""])[-1]

    return run


def put(name: str, value: Any) -> Callable[[Path], object]:
    """Put a value into ``config.json``; the value `...` removes the entry."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config[name] = value
        kept = {key: one for key, one in config.items() if one is not ...}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def swap(folder: Path) -> None:
    shutil.copy(folder / "text_encoder.onnx", folder / "decoder.onnx")


ENTRIES = ("image_size", "image_mean", "image_std", "photos", "prompts", "threshold", "max_tokens", "pad_token_id")

DAMAGES = [
    *((lambda folder, name=name: (folder / name).unlink(), "no such file")
      for name in ("photo_encoder.onnx", "text_encoder.onnx", "decoder.onnx", "tokenizer.json")),
    (lambda folder: (folder / "config.json").unlink(), "it is missing"),
    (write("decoder.onnx", b""), "it is damaged"),
    (write("photo_encoder.onnx", b"<html>404</html>"), "it is damaged"),
    (write("text_encoder.onnx", b"version https://git-lfs.github.com/spec/v1\n"), "it is damaged"),
    (write("tokenizer.json", b"{"), "it is damaged"),
    (write("config.json", b""), "it is empty"),
    (write("config.json", b'{"image_size": ['), "is not valid JSON"),
    (write("config.json", b"[]"), "no configuration of an exported model"),
    (write("config.json", b"<html>404</html>"), "web page"),
    (swap, "a graph cannot be run"),
    *((put(name, ...), f"it lacks the entry '{name}'") for name in ENTRIES),
    (put("image_size", [0, 0]), "no use for the value '[0, 0]' of 'image_size'"),
    (put("image_size", [10**6, 10**6]), "'image_size'"),
    (put("image_mean", [1]), "'image_mean'"),
    (put("image_std", [0, 0, 0]), "'image_std'"),
    (put("prompts", {}), "'prompts'"),
    (put("prompts", {"other": ["{part}"]}), "a graph cannot be run"),
    (put("threshold", "a"), "'threshold'"),
    (put("min_part_probability", float("nan")), "'min_part_probability'"),
    (put("max_tokens", True), "'max_tokens'"),
    (put("pad_token_id", -1), "'pad_token_id'"),
    (put("photos", {"inputs": {}}), "'photos'"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_folder_is_said(damage, message: str, exported: Path, photo: Path, tmp_path: Path, call) -> None:
    folder = shutil.copytree(exported, tmp_path / "damaged")
    damage(folder)
    code, said = call(folder, str(photo), "--vocabulary", WORDS)
    assert code == 1, said
    assert message in said
    assert said.endswith("export the model again")
    assert not list(tmp_path.glob("*.labels.png"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("labels.jpg", "name a file that ends in .png"),  # which would not keep the numbers
        ("labels", "name a file that ends in .png"),
        ("", "name a file that ends in .png"),
        ("a\0b.png", "name a file that ends in .png"),
        ("no/where.png", "there is no folder no: make it"),
        ("folder.png", "is a folder: name a file in it"),
        ("photo.png", "is the photo itself"),
        ("link.png", "is the photo itself"),
        ("mine.png", "mine.png exists already: name another file with --output, or give --overwrite"),
        (None, "photo.labels.png exists already"),
        ("n" * 300 + ".png", "File name too long: name another file"),
    ],
)
def test_no_file_is_lost(output: str | None, message: str, exported: Path, photo: Path, tmp_path: Path, call) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("photo.png")
    for name in ("mine.png", "photo.labels.png"):
        (tmp_path / name).write_bytes(b"of a person")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    more = [] if output is None else ["--output", output]
    code, said = call(exported, "photo.png", "--vocabulary", WORDS, *more)
    assert (code, {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}) == (2, before)
    assert message in said


def test_a_file_is_replaced_where_that_is_asked_for_but_never_the_photo(
    exported: Path, photo: Path, tmp_path: Path, call: Call
) -> None:
    content = photo.read_bytes()
    (tmp_path / "photo.labels.png").write_bytes(b"of before")
    assert call(exported, "photo.png", "--vocabulary", WORDS, "--overwrite") == (0, "")
    assert np.asarray(Image.open(tmp_path / "photo.labels.png")).shape == (50, 70)
    again = ["--output", "photo.png", "--overwrite"]
    assert call(exported, "photo.png", "--vocabulary", WORDS, *again)[0] == 2
    assert photo.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "photo.labels.png"}


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_photos_of_any_size(shape: tuple[int, int], exported: Path, photo: Path, tmp_path: Path, call: Call) -> None:
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(photo)
    assert call(exported, "photo.png", "--vocabulary", WORDS, "--output", "x.png") == (0, "")
    assert np.asarray(Image.open("x.png")).shape == shape


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dog: antidisestablishmentarianism", "is longer than 24 tokens: use a shorter word"),
        ("ear", "'ear' has no object"),
        (":", "no part"),
        ("dog: a\0b", "invisible character"),
    ],
)
def test_wrong_words(words: str, message: str, exported: Path, photo: Path, call: Call) -> None:
    code, said = call(exported, "photo.png", "--vocabulary", words)
    assert code == 2
    assert re.search(message, said)


def test_own_words_without_an_object(model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = shutil.copytree(model_directory, tmp_path / "model")
    for content in ('["ear", "tail"]', '{"dog": ["leg"], "any": ["ear"]}'):
        (model / "vocabulary.json").write_text(content)
        assert main(["export", str(model), "--output", str(tmp_path / "onnx")]) == 1
        said = capsys.readouterr().err
        assert f"vocabulary.json of {model}: 'ear' has no object, and an exported model needs one" in said
        assert not (tmp_path / "onnx").exists()
