"""``partclipseg benchmark`` from the command line."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from partclipseg.apps.cli import main
from partclipseg.data.datasets import open_dataset
from partclipseg.evaluation.resized_labels import ov_parts_size, resize_there_and_back
from partclipseg.vocabulary import Catalog, Vocabulary


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


@pytest.fixture
def trained(model_directory: Path, tmp_path: Path):
    """Copy the random model as one that was trained on some words."""

    def make(name: str, words: Vocabulary, files: list[str] | None = None) -> Path:
        model = tmp_path / name / "model"
        shutil.copytree(model_directory, model)
        words.save(model / "vocabulary.json")
        if files is not None:
            (model.parent / "few-shot.json").write_text(json.dumps({"seed": 0, "shots": 16, "files": files}))
        return model

    return make


def options(tmp_path: Path, *more: str) -> list[str]:
    return ["--workers", "0", "--limit", "1", "--device", "cpu", "--output", str(tmp_path / "report"), *more]


def test_real_photos_in_all_tasks(trained, shared: Path, tmp_path: Path, capsys) -> None:
    ade = trained("ade", Vocabulary.from_catalog("ade20k-part-234", "seen"))
    first = open_dataset("ade20k-part-234", shared / "data/ADE20KPart234").records[0].photo.key
    few = trained("few", Vocabulary.from_catalog("ade20k-part-234"), [first])
    command = ["benchmark", "ov-parts", str(ade), "--few-shot", str(few.parent), "--data", str(shared / "data")]
    assert main([*command, *options(tmp_path)]) == 0
    text = said(capsys)
    for words in ("zero-shot: ade20k-part-234", "few-shot: ade20k-part-234", "ade20k-part-234 → pascal-part-116"):
        assert words in text
    assert "12 of 116 object-parts (6 of car, 6 of person)" in text
    assert "the test records draw on the training and the validation files" in text
    assert "only the first photos were scored" in text
    content = json.loads((tmp_path / "report/benchmark.json").read_text())
    assert [(one["task"], one["dataset"]) for one in content["results"]] == [
        ("zero-shot", "ade20k-part-234"),
        ("cross-dataset", "pascal-part-116"),
        ("few-shot", "ade20k-part-234"),
        ("cross-dataset", "pascal-part-116"),
    ]
    assert content["results"][1]["source"] == content["results"][0]["all"]
    lines = (tmp_path / "report/results.jsonl").read_text().splitlines()
    # A few-shot model is not tested on the photos that it has seen.
    digests = [json.loads(line)["of"]["records"] for line in lines]
    assert digests[0] != digests[2]
    assert main([*command, *options(tmp_path)]) == 0
    assert (tmp_path / "report/results.jsonl").read_text().splitlines() == lines  # nothing is scored twice


def test_a_spread_on_rendered_scenes(trained, tmp_path: Path, capsys) -> None:
    from partclipseg.shapes.world import partshapes_world

    words = partshapes_world().vocabulary
    runs = [str(trained(f"run{seed}", words, ["x"]).parent) for seed in range(2)]
    assert main(["benchmark", "ov-parts", "--few-shot", *runs, *options(tmp_path)]) == 0
    text = said(capsys)
    assert "few-shot: partshapes" in text
    assert "cross-dataset: partshapes → partshapes-coarse" in text
    assert "mean of 2" in text
    assert "±" in text


def test_a_mean_is_over_models_that_were_trained_alike(trained, tmp_path: Path, capsys) -> None:
    from partclipseg.shapes.world import partshapes_world

    world = partshapes_world()
    zero = trained("zero", world.seen_vocabulary)
    runs = [str(trained(f"run{seed}", world.vocabulary, ["x"]).parent) for seed in range(2)]
    assert main(["benchmark", "ov-parts", str(zero), "--few-shot", *runs, *options(tmp_path)]) == 0
    _, _, cross = (tmp_path / "report/benchmark.md").read_text().split("## ")[1:]
    rows = [line.split("|")[1].strip() for line in cross.splitlines() if line.startswith("|")]
    assert rows[2:] == ["zero", "run0 (16 shots)", "run1 (16 shots)", "mean of 2"]


@pytest.fixture(scope="session")
def small_ade(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ADE20K-Part-234's photos with every eighth pixel of each row and column: theirs are 2,200 wide."""
    source, data = shared / "data/ADE20KPart234", tmp_path_factory.mktemp("small") / "ADE20KPart234"
    content = json.loads((source / "ade20k_instance_train.json").read_text())
    for entry in content["images"]:
        entry["height"], entry["width"] = -(-entry["height"] // 8), -(-entry["width"] // 8)
    for entry in content["annotations"]:
        small = np.asfortranarray(rle.decode(entry["segmentation"])[::8, ::8])
        counts = rle.encode(small)
        entry["segmentation"] = {**counts, "counts": counts["counts"].decode()}
        entry["area"], entry["bbox"] = int(rle.area(counts)), rle.toBbox(counts).tolist()
    for path in (*source.rglob("*.jpg"), *source.rglob("*.png")):
        copy = data / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(Image.open(path))[::8, ::8]).save(copy)
    (data / "ade20k_instance_train.json").write_text(json.dumps(content))
    return data


@pytest.fixture
def ade_photos(small_ade: Path, tmp_path: Path) -> Path:
    """The small ADE20K-Part-234 with training and validation files, whose photos are the same but for their names."""
    data = shutil.copytree(small_ade, tmp_path / "ADE20KPart234")
    content = json.loads((data / "ade20k_instance_train.json").read_text())
    for entry in content["images"]:
        entry["file_name"] = f"val_{entry['file_name']}"
    (data / "ade20k_instance_val.json").write_text(json.dumps(content))
    for folder in ("images", "annotations_detectron2_part"):
        (data / folder / "validation").mkdir()
        for path in (data / folder / "training").iterdir():
            shutil.copy(path, data / folder / "validation" / f"val_{path.name}")
    return data


UNTOLD, MISSING = "names the photos that it was trained on", "files, and the validation ones are missing"


@pytest.mark.parametrize(
    ("listed", "more", "task", "remark"),
    [
        ("beside", [], "few-shot", ""),
        ("inside", [], "few-shot", ""),
        ("nowhere", ["--task", "few-shot"], "few-shot", UNTOLD),
        ("nowhere", [], "supervised", UNTOLD),
        ("nowhere", ["--task", "zero-shot"], "zero-shot", ""),
    ],
)
def test_training_photos_among_the_scored_ones(
    listed: str, more: list[str], task: str, remark: str, trained, ade_photos: Path, tmp_path: Path, capsys
) -> None:
    """The list is of every training photo, so that the validation photos alone are left to score."""
    keys = [path.stem for path in (ade_photos / "images/training").iterdir()]
    model = trained("few", Vocabulary.from_catalog("ade20k-part-234"), keys)
    if listed != "beside":
        model = shutil.copytree(model, tmp_path / "copies/few")
    if listed == "inside":
        shutil.copy(tmp_path / "few/few-shot.json", model)
    command = ["benchmark", "ov-parts", str(model), "--data", str(ade_photos), *options(tmp_path), *more]
    for _ in range(2):  # scored, and taken from the results
        assert main(command) == 0
        [found] = json.loads((tmp_path / "report/benchmark.json").read_text())["results"]
        assert found["task"] == task
        assert remark in found["remark"]
        assert bool(found["remark"]) == bool(remark)


@pytest.mark.parametrize(
    ("missing", "more", "remark"),
    [
        (False, ["--vocabulary", "seen"], ""),  # no training photo has a record of these words
        (False, ["--split", "train"], ""),
        (True, [], MISSING),
    ],
)
def test_the_data_are_said_to_be_incomplete_by_their_files(
    missing: bool, more: list[str], remark: str, trained, ade_photos: Path, small_ade: Path, capsys
) -> None:
    model = trained("ade", Vocabulary.from_catalog("ade20k-part-234", "seen"))
    data = small_ade if missing else ade_photos
    command = ["evaluate", str(model), "--dataset", "ade20k-part-234", "--data", str(data)]
    command += ["--protocol", "oracle_obj", "--boundary", "none", "--workers", "0", "--device", "cpu"]
    assert main([*command, *more]) == 0
    text = said(capsys)
    assert remark in text
    assert ("the test records draw on" in text) == bool(remark)


def test_what_cannot_be_written_is_printed(trained, tmp_path: Path, capsys) -> None:
    from partclipseg.shapes.world import partshapes_world

    model = trained("m", partshapes_world().vocabulary)
    (tmp_path / "report/benchmark.md").mkdir(parents=True)
    assert main(["benchmark", "ov-parts", str(model), *options(tmp_path)]) == 1
    text = said(capsys)
    assert "supervised: partshapes" in text
    assert "benchmark.md cannot be read or written (Is a directory)" in text
    assert "report:" not in text


def test_the_last_line_names_the_report_that_was_written(trained, tmp_path: Path, capsys) -> None:
    from partclipseg.shapes.world import partshapes_world

    command = ["benchmark", "ov-parts", str(trained("m", partshapes_world().vocabulary)), *options(tmp_path)]
    assert main(command) == 0
    report = tmp_path / "report/benchmark.md"
    assert capsys.readouterr().out.endswith(f"report: {report}\n")
    report.write_text("a note by hand")
    assert main([*command, "--limit", "2"]) == 0
    assert capsys.readouterr().out.endswith(f"report: {report.with_name('benchmark.new.md')}\n")


def test_state_that_is_damaged_or_of_others(trained, tmp_path: Path, capsys) -> None:
    """Damaged results are scored again; a file of another program is kept to the byte, and so is a busy folder."""
    from partclipseg.files import locked
    from partclipseg.shapes.world import partshapes_world

    model = trained("m", partshapes_world().vocabulary)
    rows, command = tmp_path / "report/results.jsonl", ["benchmark", "ov-parts", str(model), *options(tmp_path)]
    assert main(command) == 0
    lines = rows.read_text().splitlines()
    broken = [{**json.loads(line), "result": result} for line, result in zip(lines, ({"all": "x"}, None), strict=True)]
    rows.write_text("".join(f"{json.dumps(line)}\n" for line in [*broken, {"of": 1}]))
    assert main(command) == 0
    assert rows.read_text().splitlines()[-2:] == lines
    capsys.readouterr()
    with locked(tmp_path / "report"):
        assert main(command) == 1
    assert "another run is writing to" in said(capsys)
    rows.write_text('{"loss": 1}\n{"loss": 0.5}')
    assert main(command) == 2
    assert "holds results.jsonl, which no benchmark wrote: name another folder" in said(capsys)
    assert rows.read_text() == '{"loss": 1}\n{"loss": 0.5}'


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "no model is named"),
        (["MODEL"], "there is nothing to score"),
        (["MODEL", "--data", "nowhere"], "nowhere: no such folder"),
        (["--few-shot", "."], "holds no finished training run"),
        (["MODEL", "--data", "MODEL"], "holds neither Pascal-Part-116 nor ADE20K-Part-234: check --data"),
        (["--few-shot", "MODEL/.."], "holds no few-shot.json, the list of the photos of a few-shot run: put it there"),
        (["MODEL", "MODEL"], "is named twice: name each model once"),
        (["MODEL", "--few-shot", "MODEL/.."], "is named twice: name each model once"),
        (["partshapes", "partshapes"], "partshapes is named twice"),
        (["MODEL", "--limit", "0"], "--limit must be at least 1"),
        (["MODEL", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_wrong_calls(more: list[str], message: str, trained, tmp_path: Path, capsys) -> None:
    model = trained("m", Vocabulary.from_text("dog: ear"))
    assert main(["benchmark", "ov-parts", *(word.replace("MODEL", str(model)) for word in more)]) == 2
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, keys: path.write_text(json.dumps({"files": keys})), "so nothing is left to score"),
        (lambda path, keys: path.write_text("{"), "is not valid JSON"),
        (lambda path, keys: path.mkdir(), "few-shot.json: it is a folder"),
        (lambda path, keys: path.symlink_to("nowhere"), "few-shot.json: it "),
    ],
)
def test_a_few_shot_list_of_no_use(damage, message: str, trained, shared: Path, tmp_path: Path, capsys) -> None:
    """It is never taken for a model that was trained on all photos, and no score is made of nothing."""
    data = shared / "data/PascalPart116"
    keys = [record.photo.key for record in open_dataset("pascal-part-116", data).records]
    model = trained("few", Vocabulary.from_catalog("pascal-part-116"))
    damage(model.parent / "few-shot.json", keys)
    first = trained("zero", Vocabulary.from_catalog("pascal-part-116", "seen"))
    command = ["benchmark", "ov-parts", str(first), "--few-shot", str(model.parent), "--data", str(data)]
    assert main([*command, *options(tmp_path)]) == 2
    assert message in said(capsys)
    rows = tmp_path / "report/results.jsonl"
    assert not rows.exists() or not rows.read_text()  # it is said before another model is scored


KINDS = ("part", "obj")


def test_labels_are_cut_by_object_masks_alone(trained, tmp_path: Path, capsys) -> None:
    """A part of a person on a dog's mask counts in the dog's record, and nothing beside the mask does."""
    catalog = Catalog.load("pascal-part-116")
    ear, hair = ([pair.name for pair in catalog.object_parts].index(name) for name in ("dog's ear", "person's hair"))
    parts, objects = (np.full((48, 64), 255, np.uint8) for _ in KINDS)
    objects[:, :32] = catalog.objects.index("dog")
    parts[:16], parts[16:32] = ear, hair
    data = tmp_path / "PascalPart116"
    maps = zip(KINDS, (parts, objects), strict=True)
    for folder, values in (*((f"annotations_detectron2_{kind}", values) for kind, values in maps), ("images", parts)):
        (data / folder / "val").mkdir(parents=True)
        Image.fromarray(values).save(data / folder / "val/2008_1.png")
    model = trained("pascal", Vocabulary.from_catalog("pascal-part-116", "seen"))
    assert main(["benchmark", "ov-parts", str(model), "--data", str(data), *options(tmp_path)]) == 0
    [found] = json.loads((tmp_path / "report/benchmark.json").read_text())["results"]
    assert (found["task"], found["seen"]) == ("zero-shot", 0)  # the hair is labelled, and no answer for a dog


def test_evaluate_says_what_the_training_words_share(trained, shared: Path, tmp_path: Path, capsys) -> None:
    model = trained("ade", Vocabulary.from_catalog("ade20k-part-234", "seen"))
    data = tmp_path / "PascalPart116"
    maps = ((f"annotations_detectron2_{kind}", "2010_005243.png") for kind in KINDS)
    for folder, name in (("images", "2010_005243.jpg"), *maps):
        (data / folder / "val").mkdir(parents=True)
        shutil.copy(shared / "data/PascalPart116" / folder / "val" / name, data / folder / "val")
    command = ["evaluate", str(model), "--dataset", "pascal-part-116", "--data", str(data)]
    command += ["--protocol", "oracle_obj", "--boundary", "none", "--rule", "ov-parts", *options(tmp_path)]
    assert main([*command, "--vocabulary-of-training", "model"]) == 0
    text = said(capsys)
    assert "12 of 116 object-parts (6 of car, 6 of person)" in text
    assert "beside published figures" not in text
    report = json.loads((tmp_path / "report/scores.json").read_text())
    assert sum(one["seen"] for one in report["scores"]["oracle_obj"]["classes"]) == 12
    assert report["published"] == {"oracle_obj": []}
    # The labels are those in the object masks of the records, as OV-PARTS cuts and resizes them.
    maps = (Image.open(data / f"annotations_detectron2_{kind}/val/2010_005243.png") for kind in KINDS)
    arrays = (torch.from_numpy(np.array(one)) for one in maps)
    parts, objects = (resize_there_and_back(one, ov_parts_size(one.shape)) for one in arrays)
    records = open_dataset("pascal-part-116", data).records
    labelled = sum(int(((parts != 255) & (objects == record.object)).sum()) for record in records)
    assert sum(one["pixels"] for one in report["scores"]["oracle_obj"]["classes"]) == labelled
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "vocabulary.json").unlink()
    assert main([*command[:1], str(bare), *command[2:], "--vocabulary-of-training", "model"]) == 2
    assert "came without words" in said(capsys)
    for words, message in (
        ("seen", "--vocabulary-of-training seen does not say of which data set: write model"),
        ("all", "--vocabulary-of-training all does not say of which data set: write model"),
        ("dog", "'dog' has no object, and a training needs one for every part"),
    ):
        assert main([*command, "--vocabulary-of-training", words]) == 2
        assert message in said(capsys)


@pytest.mark.parametrize("listed", [1, 0])
def test_evaluate_says_that_a_few_shot_model_has_seen_the_photos(
    listed: int, trained, small_ade: Path, capsys
) -> None:
    """ADE20K's test records draw on its training photos, which a few-shot list names."""
    keys = sorted({record.photo.key for record in open_dataset("ade20k-part-234", small_ade).records})
    model = trained("few", Vocabulary.from_catalog("ade20k-part-234"), [*keys[:listed], "elsewhere"])
    command = ["evaluate", str(model), "--dataset", "ade20k-part-234", "--data", str(small_ade)]
    command += ["--protocol", "oracle_obj", "--boundary", "none", "--workers", "0", "--device", "cpu"]
    assert main(command) == 0
    text = said(capsys)
    assert (f"the model was trained on 1 of {len(keys)} photos, by its few-shot list" in text) == bool(listed)


@pytest.mark.parametrize(
    "command",
    [
        ["benchmark", "ov-parts", "partshapes"],
        ["evaluate", "partshapes", "--dataset", "partshapes-coarse", "--vocabulary-of-training", "model"],
    ],
)
def test_the_built_in_model_was_not_trained_on_all_of_its_words(command: list[str], tmp_path: Path, capsys) -> None:
    assert main([*command, *options(tmp_path)]) == 0
    assert "the model was trained on 84 of 174 object-parts" in said(capsys)


def test_a_converted_model_was_trained_on_the_words_of_its_task(trained, shared: Path, tmp_path: Path, capsys) -> None:
    model = trained("ade", Vocabulary.from_catalog("ade20k-part-234"))
    command = ["benchmark", "ov-parts", str(model), "--data", str(shared / "data/PascalPart116"), *options(tmp_path)]
    for more, number in ((["--task", "zero-shot"], 12), ([], 18)):
        assert main([*command, *more]) == 0
        assert f"trained on {number} of 116 object-parts" in said(capsys)


def test_evaluate_scores_parts_of_predicted_objects(trained, tmp_path: Path, capsys) -> None:
    model = trained("m", Vocabulary.from_text("dog: ear"))
    command = ["evaluate", str(model), "--dataset", "partshapes", "--protocol", "predicted_objects"]
    assert main([*command, "--boundary", "none", *options(tmp_path)[:-2]]) == 0
    text = said(capsys)
    assert "Parts of predicted objects" in text
    assert "not OV-PARTS' Pred-Obj" in text


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ([], ["--vocabulary-of-training", "model"], "vocabulary_of_training: None then"),
        (["--vocabulary-of-training", "model"], [], "None now"),
        (["--vocabulary-of-training", "model"], ["--vocabulary-of-training", "dog: ear"], "vocabulary_of_training: "),
        (["--protocol", "pred_all"], ["--protocol", "predicted_objects"], "protocol: pred_all then"),
        (["--rule", "partcatseg"], ["--rule", "ov-parts"], "rule: partcatseg then, ov-parts now"),
        ([], [], ""),
    ],
)
def test_a_stopped_evaluation_goes_on_with_the_same_options_alone(
    first: list[str], then: list[str], message: str, trained, tmp_path: Path, capsys, monkeypatch
) -> None:
    from partclipseg.evaluation.state import SavedScores

    monkeypatch.setattr(SavedScores, "remove", lambda self: None)  # as if it had been stopped after the last photo
    model = trained("m", Vocabulary.from_text("cat: tail; dog: ear, tail"))
    command = ["evaluate", str(model), "--dataset", "partshapes", "--boundary", "none", *options(tmp_path)]
    first, then = (more if "--protocol" in more else [*more, "--protocol", "oracle_obj"] for more in (first, then))
    assert main([*command, *first]) == 0
    assert list((tmp_path / "report").glob("scores-*.state"))
    (tmp_path / "report/scores.json").unlink()
    assert main([*command, *then]) == (1 if message else 0)
    text = said(capsys)
    assert message in text
    assert ("holds an unfinished evaluation with other options" in text) == bool(message)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """InstructPart with two photos to test on."""
    root = tmp_path / "InstructPart" / "test"
    entries = []
    for place, (word, part) in enumerate((("dog", "ear"), ("cat", "tail"))):
        key = f"p{place}-{word}-{part}"
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        mask = np.zeros((40, 50), np.uint8)
        mask[5:20, 5:30] = 255
        Image.fromarray(mask).save(root / "masks" / f"{key}.png")
        noise = np.random.default_rng(place).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{key}.jpg")
        texts = ["Go; to it", "a, very: long question " * 20]
        part_list = [{"object": word, "part": part, "instruction": texts}]
        entries.append({"image_path": f"p{place}.jpg", "part_list": part_list})
    (root / "data_test.json").write_text(json.dumps(entries))
    return root.parent


@pytest.mark.parametrize(("phrasing", "too_long"), [(0, 0), (1, 2)])
def test_instructpart_asks_by_name_and_by_sentence(
    phrasing: int, too_long: int, model_directory: Path, questions: Path, tmp_path: Path, capsys
) -> None:
    output = tmp_path / "scores.json"
    command = ["benchmark", "instructpart", str(model_directory), "--data", str(questions), "--device", "cpu"]
    command += ["--phrasing", str(phrasing), "--output", str(output)]
    assert main(command) == 0
    assert "Oracle referring part segmentation" in said(capsys)
    named, told = json.loads(output.read_text())["scores"]
    assert (named["asking"], named["questions"], named["too_long"]) == ("referring", 2, 0)
    assert (told["asking"], told["questions"], told["too_long"]) == ("instruction", 2 - too_long, too_long)
    assert 0 <= named["giou"] <= 100
    assert main(command) == 2  # the file is a person's now
    assert "exists already" in said(capsys)


HAS_PROC = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody makes files")


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        pytest.param("/proc/scores.json", 1, "/proc cannot be read or written", marks=HAS_PROC),
        pytest.param("/proc/folder/scores.json", 1, "/proc cannot be read or written", marks=HAS_PROC),
        ("FOLDER/file/scores.json", 1, "a file stands where a folder should be"),
        (f"FOLDER/{'x' * 300}.json", 1, "the name is too long"),
        ("FOLDER", 2, "exists already: name another file"),
        ("FOLDER/link", 2, "exists already: name another file"),
    ],
)
def test_instructpart_checks_its_output_before_it_scores(
    output: str, code: int, message: str, questions: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    # The model is not there, and has not been looked for.
    command = ["benchmark", "instructpart", str(tmp_path / "model"), "--data", str(questions), "--device", "cpu"]
    assert main([*command, "--output", output.replace("FOLDER", str(tmp_path))]) == code
    assert message in said(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"InstructPart", "file", "link"}


def test_instructpart_prints_what_cannot_be_written(
    model_directory: Path, questions: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("partclipseg.files.write_text", full)
    command = ["benchmark", "instructpart", str(model_directory), "--data", str(questions), "--device", "cpu"]
    assert main([*command, "--output", str(tmp_path / "scores.json")]) == 1
    text = said(capsys)
    assert "Oracle referring part segmentation" in text
    assert "make room" in text


def test_instructpart_refuses_what_is_not_there(model_directory: Path, questions: Path, capsys) -> None:
    command = ["benchmark", "instructpart", str(model_directory), "--data", str(questions), "--device", "cpu"]
    assert main([*command, "--phrasing", "9"]) == 2
    assert "--phrasing is one of 0 to 5" in said(capsys)
    assert main([*command, "--phrasing", "4", "--task", "instruction"]) == 2
    assert "has 2 sentences" in said(capsys)
    (questions / "test/masks/p0-dog-ear.png").unlink()
    assert main(command) == 1
    assert "the mask is missing" in said(capsys)
