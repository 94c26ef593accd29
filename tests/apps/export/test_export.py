"""Exported graphs against PyTorch, through onnxruntime and through the script that ships with them."""

from __future__ import annotations

import ast
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx
from tests.apps.export.sharing import sharing
from tests.conftest import shallow_config
from tests.test_docs import DOCS, run_blocks

from partclipseg.apps.cli import main
from partclipseg.apps.export import segment as onnx_segment
from partclipseg.apps.export.command import AGREEMENT, export_model
from partclipseg.data.photo import read_photo
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_onnx import TRACED
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.shapes.renderer import render_scene
from partclipseg.vocabulary import CATALOGS, Vocabulary

ENCODERS = ("photo_encoder", "text_encoder")
GRAPHS = (*ENCODERS, "decoder")
WORDS = "dog: ear, tail, leg; bus: wheel; bird: wing, leg"


@pytest.fixture(scope="module")
def shallow(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose graphs are quickly traced."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("shallow") / "model"
    shutil.copytree(model_directory, directory)
    PartCLIPSegModel(shallow_config()).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def segmenter(shallow: Path) -> PartSegmenter:
    return PartSegmenter.from_pretrained(shallow, device="cpu")


@pytest.fixture(scope="module")
def graphs() -> dict[str, Any]:
    """Graphs of that model; the baseline has the same encoders."""
    return {}


@pytest.fixture(scope="module")
def exported(shallow: Path, graphs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "onnx"
    with sharing(graphs, GRAPHS):
        assert main(["export", str(shallow), "--output", str(directory)]) == 0
    return directory


def test_what_the_page_says_is_what_happens(shallow, graphs, exported, tmp_path, monkeypatch, capsys):
    """tests/test_docs.py runs the blocks of the other pages; this one shares its graphs with the tests here."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shallow, "models/pascal")
    Image.fromarray(render_scene("test", 3, 64).image).save("photo.jpg")
    monkeypatch.setattr(sys, "path", list(sys.path))  # the page adds to it
    with sharing(graphs, GRAPHS):
        run_blocks(DOCS / "export.md", capsys)
    assert Path("pascal-onnx/decoder.onnx").read_bytes() == (exported / "decoder.onnx").read_bytes()


def keywords(config: PartCLIPSegConfig) -> dict[str, Any]:
    values = config.to_dict()
    return {key: value for key, value in values.items() if key not in {"model_type", "architectures", "dtype"}}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.fromarray(render_scene("test", 3, 160).image).resize((173, 121)).save(path)
    return path


def run_script(folder: Path, photo: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The exported script in a process where neither torch nor transformers can be imported."""
    code = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'partclipseg')));"
        "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(folder / "segment.py"), str(photo), *options],
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_without_torch_gives_the_same_labels(exported, segmenter, photo, tmp_path):
    output = tmp_path / "labels.png"
    done = run_script(exported, photo, "--vocabulary", WORDS, "--output", str(output))
    assert done.returncode == 0, done.stderr
    result = segmenter(photo, WORDS)
    found = np.asarray(Image.open(output)).astype(int)
    expected = np.where(result.label_map < 0, 255, result.label_map)
    assert len(np.unique(expected)) >= 3, "a map of one label would agree by chance"
    # float32 sums in another order decide ties differently, and nothing else.
    assert (found == expected).mean() >= AGREEMENT
    for segment in result.segments():
        assert segment.name in done.stdout


@pytest.mark.parametrize(
    ("batch", "size", "words"),
    [
        (1, (64, 64), "dog: ear"),  # one photo, one part, one object: sizes of 1 are what exporters freeze
        (3, (48, 80), WORDS),
        (5, (16, 96), "cat: paw, ear, eye; car: wheel"),  # a single row of patches
    ],
)
def test_every_size_is_free(exported, segmenter, batch, size, words):
    onnx = onnx_segment.Segmenter(exported)
    pairs = onnx_segment.read_words(words)
    rows, columns = (side // 16 for side in size)
    assert all(
        TRACED[name] != value
        for name, value in {"batch": batch, "classes": len(pairs), "rows": rows, "columns": columns}.items()
    )
    images = [Image.fromarray(render_scene("test", index, 64).image) for index in range(batch)]
    pixels = onnx.photo_inputs(images, size)["pixel_values"]
    found = onnx.decode(onnx.encode_photos({"pixel_values": pixels}), pairs)

    with torch.inference_mode():
        expected = segmenter.model(
            {"pixel_values": torch.from_numpy(pixels)}, segmenter.words(Vocabulary.from_text(words))
        )
    assert found["object_part_logits"].shape == (batch, len(pairs) + 1, *size)
    for name, values in found.items():
        # Logits here are of order 1; sums of a few hundred float32 products in another order differ by some 1e-6.
        np.testing.assert_allclose(values, expected[name].numpy(), atol=2e-5, err_msg=name)


def test_upsampling_is_torchs():
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    for size in ((7, 5), (23, 40), (3, 4), (1, 1)):
        expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear")
        # Both interpolate in float32: a few units in the last place of numbers near 1.
        np.testing.assert_allclose(onnx_segment.upsample(values, size), expected[0, 0].numpy(), atol=2e-6)


def test_directory_is_complete(exported):
    assert {path.name for path in exported.iterdir()} == {
        *("photo_encoder.onnx", "text_encoder.onnx", "decoder.onnx", "tokenizer.json", "tokenizer_config.json"),
        *("config.json", "segment.py", "README.md"),
    }
    card = (exported / "README.md").read_text()
    assert all(f"| `{path.name}` (" in card for path in exported.iterdir() if path.name != "README.md")
    assert "100.000% of the pixels" in card
    assert "| photo_encoder | out | `patches` | float | 2 x batch x rows x columns x 32 |" in card
    # The exporter notes the stack traces of the model's code in every node unless told otherwise.
    assert not any(b"site-packages" in path.read_bytes() for path in exported.glob("*.onnx"))


def photos_of_all_kinds() -> dict[str, Image.Image]:
    """Pictures by the name to save them under: what is turned, clear, of 16 bits, floats, and others."""
    ramp = np.add.outer(np.arange(20), np.arange(30)).astype(np.float32) / 48
    grey = Image.fromarray((ramp * 255).astype(np.uint8))
    return {
        "grey.png": grey,
        "clear.png": Image.merge("LA", [grey, grey]),
        "palette.gif": grey.convert("P"),
        "print.jpg": Image.merge("CMYK", [grey, grey, grey, grey]),
        "wide.png": Image.fromarray((ramp * 65535).astype(np.uint16)),
        "twelve.tif": Image.fromarray((ramp * 4095).astype(np.uint16)),
        "integers.tif": Image.fromarray((ramp * 60000).astype(np.int32)),
        "unit.tif": Image.fromarray(ramp),
        "levels.tif": Image.fromarray(ramp * 255),
        "bright.tif": Image.fromarray(ramp * 5000 - 20),
    }


def test_script_reads_photos_as_predict_does(exported, tmp_path):
    """In a process where the package cannot be imported; turned photos are read upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    for name, image in photos_of_all_kinds().items():
        image.save(tmp_path / name)
        if image.mode in {"L", "CMYK"}:
            image.save(tmp_path / f"turned-{name}", exif=exif)
    photos = sorted(tmp_path.iterdir())
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'partclipseg')));"
        "sys.path.append(sys.argv[1]); import numpy as np; from segment import read_image;"
        "np.savez(sys.argv[2], *(np.asarray(read_image(path)) for path in sys.argv[3:]))"
    )
    arguments = [str(exported), str(tmp_path / "read.npz"), *map(str, photos)]
    done = subprocess.run([sys.executable, "-B", "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "twelve.tif: its values end at 4,095" in done.stderr
    with np.load(tmp_path / "read.npz") as read:
        for index, path in enumerate(photos):
            theirs, ours = read[f"arr_{index}"], read_photo(path)
            assert np.array_equal(theirs, ours), path.name
            assert theirs.shape == ((30, 20, 3) if path.name.startswith("turned") else (20, 30, 3))


WRITTEN = [
    "dog: ear, tail; bus: wheel",
    "dog's ear, dog's tail",
    "dog\u2019s ear\uff0c dog\u2019s tail\uff1bbus\uff1a wheel\uff0c window",
    "dog's ear; bus: wheel\ndog: tail",
    "  dog :  left   ear ;; bus: wheel ; ",
    "cafe\u0301: chair",
    "potter's wheel: spoke",
    "dog: ear, bus: wheel",
    "dog: ear, ear",
    "dog: ear,, tail",
    "dog, cat: ear",
    "dog's ear, tail",
    "dog:",
    "dog",
    "dog: e\u200bar",
    "dog: " + "x" * 201,
    "x" * 300,
    "a\0b",
    "",
    '{"dog": ["ear", "tail"]}',
    '["dog',
    "words.txt",
    "pairs.json",
    "parts.json",
    "parts.yaml",
    "deep.json",
    "twice.json",
    "cut.json",
    "cut.yaml",
    "missing.json",
]
"""Words right and wrong, as text and as names of files."""


def test_script_reads_words_as_predict_does(exported, tmp_path, monkeypatch):
    """In a process where the package cannot be imported: the same pairs, or the same sentence."""
    monkeypatch.chdir(tmp_path)
    contents = {
        "words.txt": "# mine\ndog\u2019s ear, dog's tail\nbus: wheel\n",
        "pairs.json": '[["potter\'s wheel", "spoke"], "dog\'s ear"]',
        "parts.json": '{"dog": ["ear", "tail"]}',
        "parts.yaml": "dog: [ear, tail]\nbus: [wheel]\n",
        "deep.json": "[" * 100_000,
        "cut.json": '{"dog": [',
        "cut.yaml": "dog: [",
        "twice.json": '{"dog": ["ear"], "dog": ["tail"]}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'partclipseg')));"
        "sys.path.append(sys.argv[1]); import json; from segment import read_words\n"
        "def read(text):\n"
        "    try: return read_words(text)\n"
        "    except ValueError as error: return str(error)\n"
        "print(json.dumps([read(text) for text in json.load(sys.stdin)]))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(exported)],
        input=json.dumps(WRITTEN), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text, theirs in zip(WRITTEN, json.loads(done.stdout), strict=True):
        try:
            words = Vocabulary.load(text).with_objects("an exported model")
            ours: object = [list(pair) for pair in words.object_parts]
        except UsageError as error:
            ours = str(error).replace(f"({', '.join(CATALOGS)})", "()")
        assert theirs == ours, text


def test_script_refuses_a_comma_where_another_object_begins(exported, photo):
    done = run_script(exported, photo, "--vocabulary", "dog: ear, bus: wheel")
    assert done.returncode == 2
    assert 'put ";" or a new line between objects' in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_no_name_of_the_script_hides_another(exported):
    """The script is made of four modules."""
    defined = ast.parse((exported / "segment.py").read_text()).body
    names = [node.name for node in defined if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names += [
        target.id
        for node in defined
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and not isinstance(node.value, ast.Name)
    ]
    assert len(names) == len(set(names))


def test_script_without_words_says_so(exported, photo):
    done = run_script(exported, photo)
    assert done.returncode == 2
    assert "give --vocabulary" in done.stderr


def test_long_words_are_named(exported):
    with pytest.raises(ValueError, match="shorter word"):
        onnx_segment.Segmenter(exported).encode_text(["antidisestablishmentarianism"])


@pytest.mark.parametrize(("classes", "background"), [(255, 255), (256, 65535)])
def test_the_number_of_classes_decides_the_encoding_of_label_images(classes, background):
    labels = np.array([[-1, 3]])
    assert np.asarray(onnx_segment.label_image(labels, classes)).tolist() == [[background, 3]]


def test_a_missing_photo_is_said_in_a_sentence(exported, tmp_path):
    done = run_script(exported, tmp_path / "none.jpg", "--vocabulary", "dog: ear")
    assert done.returncode == 2
    assert "none.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_photo_is_said_in_a_sentence(exported, tmp_path):
    (tmp_path / "notes.jpg").write_text("these are my notes")
    done = run_script(exported, tmp_path / "notes.jpg", "--vocabulary", "dog: ear")
    assert done.returncode == 2
    assert "notes.jpg: not a photo in a known format" in done.stderr
    assert "Traceback" not in done.stderr


def test_existing_directory_is_refused(exported, model_directory, tmp_path, capsys):
    (tmp_path / "link").symlink_to("/nowhere/x")
    for there in (exported, tmp_path / "link"):
        assert main(["export", str(model_directory), "--output", str(there)]) == 2
        assert "exists already" in capsys.readouterr().err


def test_missing_packages_are_named(model_directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(model_directory), "--output", str(tmp_path / "x")]) == 1
    assert 'pip install ".[export]"' in capsys.readouterr().err


def test_wrong_graphs_are_not_kept(model_directory, tmp_path, monkeypatch):
    segmenter = PartSegmenter.from_pretrained(model_directory, device="cpu")
    monkeypatch.setattr("partclipseg.apps.export.graphs.trace", lambda model: {})
    monkeypatch.setattr("partclipseg.apps.export.command.agreement", lambda segmenter, folder: 0.5)
    with pytest.raises(PartCLIPSegError, match=r"only 50\.00%"):
        export_model(segmenter, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_built_in_model(tmp_path):
    segmenter = PartSegmenter.from_pretrained(device="cpu")
    directory = tmp_path / "onnx"
    assert main(["export", "partshapes", "--output", str(directory)]) == 0
    card = (directory / "README.md").read_text()
    own_card = card.partition("## Card of the source model")[2]
    assert "not in this directory" in own_card.partition("## Scores")[0]
    assert "`scores.json`" in own_card
    scenes = [Image.fromarray(render_scene("test", index, 128).image) for index in (0, 2, 3)]
    words = "girl: head, skirt, torso, arm, leg; car: body, wheel, window; bus: body, wheel, window"
    onnx = onnx_segment.Segmenter(directory)
    for scene in scenes:
        found, expected = onnx(scene, onnx_segment.read_words(words)), segmenter(scene, words).label_map
        assert (found == expected).mean() >= AGREEMENT  # as above
    assert len(np.unique(expected)) >= 6, "the last scene shows the girl and the car"


@pytest.mark.slow
def test_baseline(graphs, segmenter, tmp_path, photo):
    model = CLIPSegBaseline(CLIPSegBaselineConfig(**keywords(shallow_config())))
    model.load_state_dict(segmenter.model.state_dict(), strict=False)  # so that the encoders' graphs are the same
    segmenter = PartSegmenter(model, segmenter.tokenizer)
    with sharing(graphs, ENCODERS):
        export_model(segmenter, tmp_path / "onnx")
    expected = segmenter(photo, WORDS).label_map
    assert len(np.unique(expected)) >= 3
    found = onnx_segment.Segmenter(tmp_path / "onnx")(Image.open(photo), onnx_segment.read_words(WORDS))
    assert (found == expected).mean() >= AGREEMENT


@pytest.mark.slow
def test_float16_in_reference_mode(model_directory, tmp_path, photo):
    changes = {"reference_object_lookup": True, "image_size": [64, 96]}
    tokenizer = PartSegmenter.from_pretrained(model_directory, device="cpu").tokenizer
    config = PartCLIPSegConfig(**{**keywords(shallow_config()), **changes})
    segmenter = PartSegmenter(PartCLIPSegModel(config), tokenizer)
    segmenter.model.trained_on(Vocabulary.from_text("bus: door, wheel; dog: ear, paw; zebra: tail"))
    # Random logits lie close together and 10 bits of mantissa tell fewer of them apart: one pixel in fifty.
    assert export_model(segmenter, tmp_path / "half", dtype="float16") >= 0.98
    for path in (tmp_path / "half").glob("*.onnx"):
        weights = [value for value in onnx.load(path).graph.initializer if math.prod(value.dims) > 100]
        assert {value.data_type for value in weights} == {onnx.TensorProto.FLOAT16}, path.name
    found = onnx_segment.Segmenter(tmp_path / "half")(Image.open(photo), onnx_segment.read_words(WORDS))
    assert (found == segmenter(photo, WORDS).label_map).mean() >= 0.98


def test_int8(segmenter, exported, tmp_path, photo, monkeypatch):
    """Random logits lie close together, so that 7 bits tell fewer of them apart: nearly one pixel in ten differs."""

    class Traced:
        """The graphs of the other export, as tracing takes long."""

        @staticmethod
        def save(path: Path, external_data: bool) -> None:
            shutil.copy(exported / path.name, path)

    monkeypatch.setattr("partclipseg.apps.export.graphs.trace", lambda graphs: dict.fromkeys(graphs, Traced))
    model = segmenter.model.config._name_or_path
    assert main(["export", model, "--dtype", "int8", "--output", str(tmp_path / "x")]) == 0
    names = ("photo_encoder", "text_encoder", "decoder")
    sizes = {name: [(f / f"{name}.onnx").stat().st_size for f in (tmp_path / "x", exported)] for name in names}
    assert sizes["photo_encoder"][0] < sizes["photo_encoder"][1]
    assert sizes["decoder"][0] < sizes["decoder"][1]
    assert sizes["text_encoder"][0] == sizes["text_encoder"][1]
    assert json.loads((tmp_path / "x/config.json").read_text())["dtype"] == "int8"
    assert {path.name for path in (tmp_path / "x").iterdir()} == {path.name for path in exported.iterdir()}
    found = onnx_segment.Segmenter(tmp_path / "x")(Image.open(photo), onnx_segment.read_words(WORDS))
    assert (found == segmenter(photo, WORDS).label_map).mean() >= 0.9
