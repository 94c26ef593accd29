"""`partclipseg predict`, through the command line's own entry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from partclipseg.apps.cli import main
from partclipseg.apps.predict import output_stems
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.renderer import render_scene

WORDS = "dog: ear, head; bus: wheel"


@pytest.fixture
def album(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for name, size in {"a.png": (40, 30), "b.jpg": (30, 40), "trip/c.png": (50, 50)}.items():
        path = tmp_path / "album" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        coarse = Image.fromarray(generator.integers(0, 255, (4, 4, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
    return tmp_path / "album"


@pytest.fixture
def predict(model_directory, tmp_path):
    def run(*arguments: str | Path, words: str | None = WORDS) -> int:
        options = {"--model": model_directory, "--output": tmp_path / "out", "--vocabulary": words}
        missing = [(name, value) for name, value in options.items() if value and name not in arguments]
        return main(["predict", *(str(word) for word in (*arguments, *sum(missing, ())))])

    return run


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("zoom", [False, True])
def test_a_second_look_when_asked(predict, album, monkeypatch, zoom):
    looks: list[list[tuple[int, ...]]] = []

    def counted(self, photos, maps, vocabulary, present_objects=None):
        looks.append([photo.shape[:2] for photo in photos])
        return maps

    monkeypatch.setattr(PartSegmenter, "look_again", counted)
    assert predict(album, "--format", "json", *["--zoom"] * zoom) == 0
    assert looks == ([[(30, 40), (40, 30)]] if zoom else []), "at the photos' own sizes"


def test_a_folder(predict, album, tmp_path, capsys):
    assert predict(album) == 0
    names = [f"{stem}.{end}" for stem in "ab" for end in ("json", "labels.png", "overlay.png")]
    assert files(tmp_path / "out") == sorted([*names, "annotations.coco.json"])
    output = capsys.readouterr().out
    assert "PartCLIPSegModel" in output
    assert "cpu, float32" in output or "cuda" in output
    assert "2 of 2 photos" in output

    coco = COCO(tmp_path / "out" / "annotations.coco.json")
    for image in coco.loadImgs(coco.getImgIds()):
        stem = Path(image["file_name"]).stem
        labels = np.asarray(Image.open(tmp_path / "out" / f"{stem}.labels.png"))
        assert labels.shape == (image["height"], image["width"])
        again = np.full(labels.shape, 255)
        for annotation in coco.loadAnns(coco.getAnnIds([image["id"]])):
            again[coco.annToMask(annotation) > 0] = annotation["category_id"] - 1
        assert np.array_equal(again, labels)
        segments = json.loads((tmp_path / "out" / f"{stem}.json").read_text())["segments"]
        assert {s["index"]: s["area"] for s in segments} == {
            int(k): int(n) for k, n in zip(*np.unique(labels[labels < 255], return_counts=True), strict=True)
        }


def test_files_and_patterns_and_chosen_formats(predict, album, tmp_path):
    assert predict(album / "a.png", album / "**" / "c.*", "--format", "json", "labelme", "--batch-size", "1") == 0
    assert files(tmp_path / "out") == ["a.json", "a.labelme.json", "c.json", "c.labelme.json"]


def test_bad_photos_are_passed_and_listed(predict, album, tmp_path, capsys):
    (album / "bad.jpg").write_bytes(b"not a photo")
    (album / "empty.png").touch()
    assert predict(album, "--format", "json") == 1
    assert files(tmp_path / "out") == ["a.json", "b.json"]
    errors = capsys.readouterr().err
    assert "2 of 4 photos could not be segmented" in errors
    assert f"{album / 'bad.jpg'}: not a photo in a known format" in errors
    assert f"{album / 'empty.png'}: the file is empty" in errors


def test_nothing_but_bad_photos(predict, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    assert predict(tmp_path / "bad.jpg") == 1
    assert files(tmp_path / "out") == []
    assert "1 of 1 photos" in capsys.readouterr().err


def test_photos_of_one_name_do_not_overwrite_each_other(predict, album, tmp_path):
    Image.open(album / "a.png").resize((9, 7)).save(album / "trip" / "a.png")
    assert predict(album, album / "trip", "--format", "json") == 0
    assert files(tmp_path / "out") == ["a.json", "b.json", "trip/a.json", "trip/c.json"]
    assert json.loads((tmp_path / "out" / "trip" / "a.json").read_text())["width"] == 9


@pytest.mark.parametrize(
    ("photos", "stems"),
    [
        (["x/a.jpg", "y/b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["x/a.jpg", "x/A.jpg"], ["a.jpg", "A.jpg"]),  # alike on file systems that ignore capitals
        (["x/a.jpg", "x/a.png"], ["a.jpg", "a.png"]),
        (["x/a.jpg", "a.jpg"], ["x/a", "a"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
    ],
)
def test_output_stems(photos, stems):
    assert output_stems([Path(photo) for photo in photos]) == stems


def test_known_objects(predict, album, tmp_path):
    assert predict(album / "a.png", "--format", "png", "json", "--objects", "bus") == 0
    assert np.unique(np.asarray(Image.open(tmp_path / "out" / "a.labels.png"))).tolist() == [2]


def test_parts_below_a_score_are_left_out(predict, album, tmp_path):
    def scores() -> list[float]:
        document = json.loads((tmp_path / "out" / "annotations.coco.json").read_text())
        return [annotation["score"] for annotation in document["annotations"]]

    assert predict(album, "--formats", "coco") == 0
    everything = scores()
    limit = sorted(everything)[len(everything) // 2]
    assert predict(album, "--format", "coco", "--min-score", str(limit)) == 0
    assert 0 < len(scores()) < len(everything)
    assert min(scores()) >= limit - 1e-3  # written with four digits


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no photo is named"),
        (["nowhere.jpg"], 2, "nowhere.jpg: no such file or folder"),
        (["*.jpg"], 2, "no photo matches this pattern"),
        (["{album}", "--vocabulary", "dog:"], 2, "'dog' has no part"),
        (["{album}", "--objects", "cat"], 2, "'cat' is not an object of the vocabulary"),
        (["{album}", "--device", "toaster"], 2, "no device 'toaster'"),
        (["{album}", "--batch-size", "0"], 2, "batch size"),
        (["{album}", "--min-score", "50"], 2, "--min-score must be from 0 to 1, not 50"),
        (["{album}", "--format", "tiff"], 2, "tiff"),
        (["{album}", "--output", "{album}/a.png"], 1, "cannot write to"),
        (["{album}", "--model", "{album}"], 1, "config.json"),
        (["{album}", "--max-pixels", "10"], 1, "more than the limit of 10"),
    ],
)
def test_errors(predict, album, capsys, arguments, code, words):
    assert predict(*[argument.format(album=album) for argument in arguments]) == code
    assert words in "".join(capsys.readouterr())


def test_without_words_the_model_must_bring_them(predict, album, capsys):
    assert predict(album, words=None) == 2
    assert "give a vocabulary" in capsys.readouterr().err


def test_without_words_those_of_the_model_are_asked_for(predict, album, model_directory, tmp_path):
    from partclipseg.vocabulary import Vocabulary

    own = tmp_path / "model"
    shutil.copytree(model_directory, own)
    Vocabulary.load("bird: beak, wing").save(own / "vocabulary.json")
    assert predict(album / "a.png", "--model", own, "--format", "coco", words=None) == 0
    coco = json.loads((tmp_path / "out" / "annotations.coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["bird's beak", "bird's wing"]


def test_help_is_for_newcomers(capsys):
    assert main(["predict", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--vocabulary", "--model", "rendered scenes only", "labelme", "partclipseg predict photo.jpg"):
        assert word in text


def test_without_a_model_the_built_in_one_finds_its_objects(tmp_path, capsys):
    scene = render_scene("test", 3, 256)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "scene.png"), "--output", str(out), "--format", "json", "png"]) == 0
    assert "knows rendered scenes only, not photos" in capsys.readouterr().out
    found = {segment["object"] for segment in json.loads((out / "scene.json").read_text())["segments"]}
    assert found == {"girl", "car"}  # among the 56 objects that it knows: no words were given
    labels = np.asarray(Image.open(out / "scene.labels.png")).astype(int)
    assert (labels == np.where(scene.parts < 0, 65535, scene.parts.astype(int))).mean() > 0.9
    assert main(["predict", str(tmp_path / "scene.png"), "--vocabulary", "car: wheel", "--output", str(out)]) == 0
    assert "car's wheel" in capsys.readouterr().out


def test_an_installation_without_its_model_says_so(album, tmp_path, capsys, monkeypatch):
    from partclipseg.inference import segmenter

    monkeypatch.setattr(segmenter, "BUILT_IN", "lost")
    assert main(["predict", str(album / "a.png"), "--vocabulary", WORDS, "--output", str(tmp_path / "out")]) == 1
    assert "no built-in model: name a model's directory with --model" in capsys.readouterr().err
