"""``partclipseg train`` from the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.training.checkpoint import CheckpointStore


@pytest.fixture
def own_photos(tmp_path: Path) -> Path:
    """Six photos with two parts of a car, as index PNGs with a class list."""
    root = tmp_path / "photos"
    for index in range(6):
        image = np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        labels = np.full((48, 64), 255, np.uint8)
        labels[8:24, 8:40], labels[24:40, 8:40] = 0, 1
        for folder, picture in (("images", image), ("labels", labels)):
            path = root / folder / "train" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    (root / "classes.txt").write_text("car's door\ncar's wheel\n")
    return root


def arguments(start: Path, output: Path, *more: str) -> list[str]:
    return [
        "train", "own-data", "--start", str(start), "--image-size", "64", "--output", str(output),
        "--steps", "2", "--batch-size", "2", "--held-out", "1", "--workers", "0", "--dtype", "float32", *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ({"model/mine.txt": "mine"}, "holds model, which no run of training wrote"),
        ({"best/mine.txt": "mine", "notes.txt": "mine"}, "holds best, which no run of training wrote"),
        ({"log.jsonl": "mine"}, "holds log.jsonl, which no run of training wrote"),
        ({"config.yaml": "mine: 1", "model/mine.txt": "mine"}, "holds config.yaml and model, which no run"),
        ({"config.yaml": "[" * 9_000}, "holds config.yaml, which no run of training wrote"),
        (
            {"config.yaml": "recipe: {steps: 9}\nmade_with: {}\n", "model/mine.txt": "mine"},
            "holds model, the results of another recipe",
        ),
        ({"checkpoints": "mine"}, "checkpoints cannot be read or written (Not a directory)"),
    ],
)
@pytest.mark.parametrize("recipe", ["own-data", "partshapes-backbone"])
def test_what_no_run_wrote_is_kept(
    model_directory: Path, own_photos: Path, tmp_path: Path, capsys, theirs: dict[str, str], named: str, recipe: str
) -> None:
    output = tmp_path / "run"
    for name, text in theirs.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    call = arguments(model_directory, output, "--data", str(own_photos), "--dataset", "index-png")
    code = main(call if recipe == "own-data" else ["train", recipe, "--output", str(output)])
    assert code == (1 if "checkpoints" in theirs else 2)
    said = capsys.readouterr().err
    assert named in said
    assert "move" in said
    assert {name: (output / name).read_text() for name in theirs} == theirs


def test_own_photos_in_a_model_out(
    model_directory: Path, own_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"a run {'of a long name ' * 6}[bold]"  # no line is broken, and nothing is read as markup
    options = arguments(model_directory, output, "--data", str(own_photos), "--dataset", "index-png")
    options += ["--loss.part-weight", "0.5"]
    assert main(options) == 0
    settings, scored, model = capsys.readouterr().err.splitlines()
    assert "device" in settings
    assert scored.startswith("step 2: held-out mIoU")
    assert model.startswith(f"model: {output}/model (held-out mIoU")
    assert json.loads((output / "model/vocabulary.json").read_text())
    assert yaml.safe_load((output / "config.yaml").read_text())["recipe"]["settings"]["loss"]["part_weight"] == 0.5

    assert main([*options, "--learning-rate", "0.5"]) == 1
    assert "learning_rate: 0.0001 then, 0.5 now" in capsys.readouterr().err
    assert main(options) == 0


def test_what_a_person_changed_in_a_run_is_kept(
    model_directory: Path, own_photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "run"
    options = arguments(model_directory, output, "--data", str(own_photos), "--dataset", "index-png")
    assert main(options) == 0
    theirs = {"config.yaml": "# a note\n" + (output / "config.yaml").read_text(), "model/README.md": "by hand"}
    for name, text in theirs.items():
        (output / name).write_text(text)
    assert main(options) == 0
    assert {name: (output / name).read_text() for name in theirs} == theirs
    assert "config.yaml was changed by a person and is kept" in caplog.messages
    assert "model was changed by a person and is kept" in caplog.messages
    assert main([*options, "--workers", "1"]) == 0  # which stands in the configuration
    assert {name: (output / name).read_text() for name in theirs} == theirs
    assert "config.yaml was changed by a person and is kept; the new one is config.new.yaml" in caplog.messages


def test_a_run_stands_for_its_data(model_directory: Path, own_photos: Path, tmp_path: Path, capsys) -> None:
    options = arguments(model_directory, tmp_path / "run", "--data", str(own_photos), "--dataset", "index-png")
    assert main(options) == 0
    assert main(options) == 0
    path = own_photos / "labels/train/0.png"
    labels = np.array(Image.open(path))
    labels[8:24] = 1
    Image.fromarray(labels).save(path)
    capsys.readouterr()
    assert main(options) == 1
    said = capsys.readouterr().err
    assert "holds a finished run on other data (the annotations changed since): name another --output" in said
    assert main([*options, "--accept-changed-data"]) == 0


def test_broken_data_stop_it_in_the_words_of_check_data(
    model_directory: Path, own_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_photos / "images/train/3.png").write_bytes(b"no picture")
    options = arguments(model_directory, tmp_path / "run", "--data", str(own_photos), "--dataset", "index-png")
    assert main(options) == 1
    assert "images/train/3.png" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_two_trainings_do_not_share_a_folder(model_directory: Path, own_photos: Path, tmp_path: Path, capsys) -> None:
    from partclipseg.files import locked

    (tmp_path / "run").mkdir()
    options = arguments(model_directory, tmp_path / "run", "--data", str(own_photos), "--dataset", "index-png")
    with locked(tmp_path / "run"):
        assert main(options) == 1
        assert main(["train", "partshapes-backbone", "--output", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.count("another run is writing to") == 2


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (["--data", "nowhere"], 2, "nowhere"),
        ([], 2, "--data is missing"),
        (["--steps", "0"], 2, "steps must be at least 1"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_wrong_calls(
    changes: list[str], code: int, message: str,
    model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main([*arguments(model_directory, tmp_path / "run"), *changes]) == code
    captured = capsys.readouterr()
    assert message in captured.err + captured.out
    assert not (tmp_path / "run").exists()


def test_a_start_that_is_not_there(own_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    options = arguments(tmp_path / "empty", tmp_path / "run", "--data", str(own_photos), "--dataset", "index-png")
    assert main(options) == 1
    assert "config.json" in capsys.readouterr().err


def test_a_tokenizer_of_another_model_is_refused(
    model_directory: Path, own_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start"
    shutil.copytree(model_directory, start)
    path = start / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["surplus</w>"] = 5_000
    path.write_text(json.dumps(tokenizer))
    options = arguments(start, tmp_path / "run", "--data", str(own_photos), "--dataset", "index-png")
    assert main(options) == 1
    assert "has 5,001 tokens and the text tower" in " ".join(capsys.readouterr().err.split())


def test_ctrl_c_says_how_to_continue(
    model_directory: Path, own_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    options = arguments(model_directory, tmp_path / "run", "--data", str(own_photos), "--dataset", "index-png")
    options += ["--checkpoint-every", "1"]
    save = CheckpointStore.save

    def interrupted(self: CheckpointStore, *given: Any, **more: Any) -> None:
        save(self, *given, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", interrupted)
        assert main(options) == 130
    assert "the same command continues from the last checkpoint" in " ".join(capsys.readouterr().err.split())
    assert main(options) == 0
    assert (tmp_path / "run/model/model.safetensors").is_file()


@pytest.fixture
def pascal_photos(tmp_path: Path) -> Path:
    """Pascal-Part-116 with three photos of a dog's ear, one of a bird's head and one of both."""
    from partclipseg.vocabulary import Catalog

    catalog = Catalog.load("pascal-part-116")
    names, root = [pair.name for pair in catalog.object_parts], tmp_path / "PascalPart116"
    shown = {f"2008_{place}": ["dog's ear"] for place in range(3)}
    for key, parts in {**shown, "2008_7": ["bird's head"], "2008_9": ["dog's ear", "bird's head"]}.items():
        image = np.random.default_rng(len(key)).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        maps = {kind: np.full((48, 64), 255, np.uint8) for kind in ("part", "obj")}
        for place, name in enumerate(parts):
            rows = slice(20 * place, 20 * place + 16)
            maps["part"][rows], maps["obj"][rows] = names.index(name), catalog.objects.index(name.split("'")[0])
        for folder, picture in (("images", image), *((f"annotations_detectron2_{k}", m) for k, m in maps.items())):
            path = root / folder / "train" / (f"{key}.jpg" if folder == "images" else f"{key}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return root


def test_few_shots_of_a_benchmark(model_directory: Path, pascal_photos: Path, tmp_path: Path, capsys) -> None:
    def run(output: str, *more: str) -> Path:
        options = arguments(model_directory, tmp_path / output, "--data", str(pascal_photos), *more)
        options[1] = "pascal"
        # Four of the five are chosen or fewer; attention control needs photos of several parts.
        assert main([*options, "--loss.attention-control", "off"]) == 0
        return tmp_path / output

    first, again = run("a", "--shots", "1", "--shot-seed", "2"), run("b", "--shots", "1", "--shot-seed", "2")
    split = json.loads((first / "few-shot.json").read_text())
    assert (split["seed"], split["shots"], split["rule"]) == (2, 1, "photos of an object")
    assert 1 <= len(split["files"]) <= 2
    theirs = json.loads((first / "train_1shot.json").read_text())
    paths = [f"datasets/PascalPart116/images/train/{key}.jpg" for key in split["files"]]
    assert [entry["file_name"] for entry in theirs] == paths
    for name in ("few-shot.json", "train_1shot.json", "model/model.safetensors"):
        assert (first / name).read_bytes() == (again / name).read_bytes()  # a seed decides all of it
    assert (first / "model/few-shot.json").read_bytes() == (first / "few-shot.json").read_bytes()  # for its copies
    assert len(json.loads((first / "model/vocabulary.json").read_text())) == 116  # unseen classes are trained too

    listed = run("c", "--shot-list", str(first / "train_1shot.json"))
    assert json.loads((listed / "few-shot.json").read_text())["files"] == split["files"]
    assert (listed / "model/model.safetensors").read_bytes() == (first / "model/model.safetensors").read_bytes()
    options = arguments(model_directory, first, "--data", str(pascal_photos), "--shots", "1", "--shot-seed", "3")
    options[1] = "pascal"
    assert main([*options, "--loss.attention-control", "off"]) == 1
    assert "shot_seed: 2 then, 3 now" in " ".join(capsys.readouterr().err.split())


def test_a_few_shot_split_of_rendered_scenes(model_directory: Path, tmp_path: Path, capsys) -> None:
    def run(name: str, *more: str) -> Path:
        options = [
            "train", "partshapes", "--start", str(model_directory), "--output", str(tmp_path / name),
            "--data", str(tmp_path / "scenes"), "--scenes", "40", "--held-out", "2", "--image-size", "64",
            "--steps", "1", "--batch-size", "2", "--dtype", "float32", "--retention.weight", "0",
        ]  # fmt: skip
        assert main([*options, *more]) == 0, capsys.readouterr().err
        return tmp_path / name

    first, again, other = (run(str(n), "--shots", "1", "--shot-seed", str(seed)) for n, seed in enumerate((0, 0, 1)))
    split = json.loads((first / "few-shot.json").read_text())
    assert (split["shots"], split["seed"]) == (1, 0)
    assert set(split["files"]) < {str(number) for number in range(40)}
    for name in ("few-shot.json", "train_1shot.json", "model/model.safetensors"):
        assert (first / name).read_bytes() == (again / name).read_bytes()  # a seed decides all of it
    assert json.loads((other / "few-shot.json").read_text())["files"] != split["files"]
    assert len(json.loads((first / "model/vocabulary.json").read_text())) == 374  # unseen classes are trained too
    listed = run("listed", "--shot-list", str(first / "train_1shot.json"))
    assert (listed / "model/model.safetensors").read_bytes() == (first / "model/model.safetensors").read_bytes()
    (tmp_path / "list.json").write_text('{"files": ["99"]}')
    options = ["train", "partshapes", "--start", str(model_directory), "--data", str(tmp_path / "scenes")]
    options += ["--output", str(tmp_path / "x"), "--scenes", "40", "--image-size", "64"]
    assert main([*options, "--shot-list", str(tmp_path / "list.json")]) == 2
    assert "names none of the photos of partshapes" in " ".join(capsys.readouterr().err.split())


def test_partshapes_are_rendered_and_kept(model_directory: Path, tmp_path: Path, capsys) -> None:
    options = [
        "train", "partshapes", "--start", str(model_directory), "--output", str(tmp_path / "run"),
        "--data", str(tmp_path / "scenes"), "--scenes", "4", "--held-out", "2", "--image-size", "64",
        "--steps", "1", "--batch-size", "2", "--dtype", "float32",
    ]  # fmt: skip
    assert main(options) == 1  # there is no CLIPSeg whose words could be kept
    assert "--retention.weight 0" in capsys.readouterr().err
    assert main([*options, "--retention.weight", "0"]) == 0
    assert len(list((tmp_path / "scenes").iterdir())) == 2
    assert (tmp_path / "run/model/model.safetensors").is_file()


def test_help_names_the_recipes() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "partclipseg.apps.cli", "train", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name in ("pascal-reference", "own-data", "partshapes-clipseg"):
        assert name in shown
