from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.processes import Command
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from partclipseg.apps.cli import main
from partclipseg.evaluation import pictures
from partclipseg.shapes.world import partshapes_world

PHOTOS = 6


@pytest.fixture
def arguments(model_directory: Path, own_data: Path) -> list[str]:
    options = ["--dataset", "index-png", "--data", str(own_data), "--device", "cpu", "--workers", "0"]
    return ["evaluate", str(model_directory), *options, "--batch-size", "1"]


@pytest.fixture(autouse=True)
def small_pictures(few_bars: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the photos of each report small: at their size they take most of an evaluation's time."""
    monkeypatch.setattr(pictures, "draw_strip", partial(pictures.draw_strip, side=60))


def scores_in(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))["scores"]


def test_report_of_every_protocol(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "report"
    assert main([*arguments, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    for text in ("Oracle-Obj", "Pred-All", "Strict", "mIoU", "Boundary IoU", "PartCLIPSegModel"):
        assert text in printed
    scores = scores_in(output)
    assert set(scores) == {"oracle_obj", "pred_all", "strict"}
    assert all(scores[protocol]["records"] == PHOTOS for protocol in scores)
    names = {path.name for path in output.iterdir()}
    assert names == {
        ".written",
        "classes-oracle_obj.png", "classes-pred_all.png", "classes-strict.png", "photos", "photos.html", "report.md",
        "scores.json",
    }  # fmt: skip
    assert len(list((output / "photos").iterdir())) == PHOTOS
    markdown = (output / "report.md").read_text(encoding="utf-8")
    assert "classes-strict.png" in markdown
    assert "photos.html" in markdown


def test_a_second_look_when_asked(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from partclipseg.inference.segmenter import PartSegmenter

    looks: list[tuple[int, ...]] = []

    def counted(self, photos, maps, vocabulary, present_objects=None):
        looks.extend(photo.shape[:2] for photo in photos)
        return maps

    monkeypatch.setattr(PartSegmenter, "look_again", counted)
    output = ["--output", str(tmp_path / "out")]
    assert main([*arguments, *output, "--zoom"]) == 0
    assert "looked at a second time (--zoom)" in capsys.readouterr().out
    assert len(looks) == 3 * PHOTOS  # Pred-All, Oracle-Obj, and the pictures of the report
    assert set(looks) == {(40 + 4 * index, 56) for index in range(PHOTOS)}, "at the photos' own sizes"
    assert main(arguments) == 0
    assert len(looks) == 3 * PHOTOS


def test_without_output_nothing_is_written(arguments: list[str], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    assert main([*arguments, "--protocol", "pred_all", "--boundary", "none"]) == 0
    assert set(tmp_path.rglob("*")) == before


def test_one_protocol_equals_its_share_of_all(arguments: list[str], tmp_path: Path) -> None:
    arguments = [*arguments, "--limit", "2"]
    assert main([*arguments, "--output", str(tmp_path / "all")]) == 0
    for protocol in ("oracle_obj", "pred_all", "strict"):
        assert main([*arguments, "--protocol", protocol, "--output", str(tmp_path / protocol)]) == 0
        assert scores_in(tmp_path / protocol)[protocol] == scores_in(tmp_path / "all")[protocol]


def test_stopped_and_started_again_it_continues(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from partclipseg.evaluation import run

    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0
    scored: list[str] = []
    real_score = run.score

    def score_until(stop: int):
        def score(segmenter, vocabulary, photos, evaluators, zoom) -> None:
            if len(scored) == stop:
                raise KeyboardInterrupt
            real_score(segmenter, vocabulary, photos, evaluators, zoom)
            scored.extend(photo.key for photo in photos)

        return score

    stopped = [*arguments, "--output", str(tmp_path / "stopped")]
    monkeypatch.setattr(run, "score", score_until(2))
    assert main(stopped) == 130
    assert not (tmp_path / "stopped" / "report.md").exists()
    monkeypatch.setattr(run, "score", score_until(PHOTOS + 1))
    capsys.readouterr()
    assert main(stopped) == 0
    assert "continuing: 2 of 6 photos are scored already" in capsys.readouterr().out
    assert len(scored) == len(set(scored)) == PHOTOS
    assert scores_in(tmp_path / "stopped") == scores_in(tmp_path / "whole")


@pytest.fixture
def stopped(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> list[str]:
    """The command of an evaluation that was stopped by Ctrl-C after two photos."""
    from partclipseg.evaluation import run

    real_score, scored = run.score, []

    def score(segmenter, vocabulary, photos, evaluators, zoom) -> None:
        if len(scored) == 2:
            raise KeyboardInterrupt
        real_score(segmenter, vocabulary, photos, evaluators, zoom)
        scored.extend(photos)

    command = [*arguments, "--protocol", "strict", "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(run, "score", score)
        assert main(command) == 130
    said = capsys.readouterr().err
    assert "stopped after 2 of 6 photos; the scores so far are saved in" in said
    assert "the same command continues" in said
    return command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--boundary", "none"], "other options (boundary: per_class then, none now)"),
        (["--zoom"], "other options (zoom: False then, True now)"),
        (["--limit", "3"], "other options (limit: None then, 3 now)"),
        (["--verify"], "other data (the photos changed since)"),
    ],
)
def test_state_of_other_options_is_refused(
    stopped: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([*stopped, *options]) == 1
    assert message in capsys.readouterr().err


def test_scores_of_other_data_are_never_taken(
    stopped: list[str], own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (own_data / "classes.txt").write_text("cat's leg\ncat's ear\ndog's ear\n")
    assert main(stopped) == 1
    said = capsys.readouterr().err
    assert "other data (the annotations and the class list changed since)" in said
    (state,) = (tmp_path / "out").glob("*.state")
    assert f"delete {state}" in said
    state.unlink()
    assert main(stopped) == 0
    first = scores_in(tmp_path / "out")
    (own_data / "classes.txt").write_text("cat's ear\ncat's leg\ndog's ear\n")
    assert main(stopped) == 0, "a finished evaluation leaves no state"
    fresh = [*stopped[:-1], str(tmp_path / "fresh")]
    assert main(fresh) == 0
    assert scores_in(tmp_path / "out") == scores_in(tmp_path / "fresh") != first


def test_two_evaluations_do_not_share_a_folder(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from partclipseg.files import locked

    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 1
    assert "another run is writing to" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.md", "scores.json", "photos.html"])
@pytest.mark.parametrize("text", ["mine", "[1]", '{"mine": 1}'])
def test_what_no_evaluation_wrote_is_kept(arguments: list[str], tmp_path: Path, capsys, name: str, text: str) -> None:
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir()
    theirs.write_text(text)
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert f"holds {name}, which no evaluation wrote: name another folder" in capsys.readouterr().err
    assert theirs.read_text() == text


def test_what_cannot_be_written_is_printed(arguments: list[str], tmp_path: Path, capsys) -> None:
    (tmp_path / "out/report.md").mkdir(parents=True)
    command = [*arguments, "--protocol", "pred_all", "--boundary", "none", "--output", str(tmp_path / "out")]
    assert main([*command, "--limit", "1"]) == 1
    printed = capsys.readouterr()
    assert "Pred-All" in printed.out
    assert "report:" not in printed.out
    assert "report.md cannot be read or written" in " ".join(printed.err.split())


@pytest.mark.parametrize("name", ["report.md", "scores.json", "photos.html"])
def test_a_report_that_a_person_changed_is_kept(arguments: list[str], tmp_path: Path, capsys, name: str) -> None:
    command = [*arguments, "--protocol", "pred_all", "--boundary", "none", "--output", str(tmp_path / "out")]
    assert main([*command, "--limit", "2"]) == 0
    path = tmp_path / "out" / name
    theirs = path.read_text() + (" " if name == "scores.json" else "a note by hand")
    path.write_text(theirs)
    assert main([*command, "--limit", "3"]) == 0
    new = path.with_name(path.stem + ".new" + path.suffix)
    printed = capsys.readouterr().out
    assert f"{name} was changed by a person and is kept; the new one is {new.name}" in printed
    assert printed.endswith(f"report: {new if name == 'report.md' else new.with_name('report.md')}\n")
    assert path.read_text() == theirs
    assert new.is_file()
    assert main([*command, "--limit", "3", "--overwrite"]) == 0
    assert path.read_text() == new.read_text()


def test_broken_data_stop_it_in_the_words_of_check_data(
    arguments: list[str], own_data: Path, capsys: pytest.CaptureFixture
) -> None:
    (own_data / "images/p0.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(own_data / "labels/p1.png")
    Image.fromarray(np.full((48, 56), 7, np.uint8)).save(own_data / "labels/p2.png")
    (own_data / "images/p3.png").unlink()
    assert main(["check-data", "index-png", "--data", str(own_data)]) == 1
    checked = " ".join(capsys.readouterr().out.split())
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "model:" not in captured.out  # it stopped before the model was loaded
    lines = [line.strip() for line in captured.err.splitlines() if line.startswith("  ")]
    assert len(lines) == 4
    for name in ("images/p0.png", "labels/p1.png", "labels/p2.png", "images/p3."):
        assert sum(name in line for line in lines) == 1
    assert all(" ".join(line.split()) in checked for line in lines)


def test_limit_and_other_words_are_remarked(arguments: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main([*arguments, "--limit", "2", "--vocabulary", "cat: ear, leg", "--output", str(output)]) == 0
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "only the first photos were scored (--limit 2), other words than" in text
    assert scores_in(output)["strict"]["records"] == 2
    assert [item["name"] for item in scores_in(output)["strict"]["classes"]] == ["cat's ear", "cat's leg"]


def test_without_matplotlib_the_rest_is_written(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*arguments, "--output", str(tmp_path / "out"), "--protocol", "strict"]) == 0
    assert 'matplotlib is missing: pip install ".[plots]"' in capsys.readouterr().out
    assert (tmp_path / "out/report.md").is_file()
    assert not list((tmp_path / "out").glob("classes-*"))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--batch-size", "0"], 2, "--batch-size must be at least 1, not 0"),
        (["--limit", "0"], 2, "--limit must be at least 1, not 0"),
        (["--workers", "-1"], 2, "--workers must be at least 0, not -1"),
        (["--annotations", "a.json"], 2, "--annotations does not apply to index-png"),
        (["--device", "nowhere"], 2, "nowhere"),
        (["--protocol", "published"], 2, "published"),
        (["--dataset", "coco", "--classes", "c.txt"], 2, "--classes does not apply to coco"),
        (["--dataset", "partshapes"], 2, "--data does not apply to partshapes"),
    ],
)
def test_wrong_options(
    arguments: list[str], options: list[str], code: int, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([*arguments, *options]) == code
    assert message in capsys.readouterr().err


def test_a_data_set_on_disk_needs_its_folder(capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "partshapes", "--dataset", "coco"]) == 2
    assert "--data is missing: name the folder of coco" in capsys.readouterr().err


def test_partshapes_needs_no_files(model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["evaluate", str(model_directory), "--dataset", "partshapes", "--limit", "3", "--device", "cpu"]
    command += ["--workers", "0", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert "only the first photos were scored (--limit 3)" in capsys.readouterr().out
    world = partshapes_world()
    for scores in scores_in(tmp_path / "out").values():
        assert scores["records"] == 3
        assert [item["name"] for item in scores["classes"]] == list(world.vocabulary.names)
        assert [index for index, item in enumerate(scores["classes"]) if item["seen"]] == list(world.seen)
    assert len(list((tmp_path / "out/photos").iterdir())) == 3
    assert main([*command, "--vocabulary", "dog: ear"]) == 2
    assert "leave --vocabulary out" in capsys.readouterr().err


def test_a_directory_without_a_model_is_named(own_data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(own_data), "--dataset", "index-png", "--data", str(own_data), "--workers", "0"]) == 1
    assert "no config.json" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "folder", "options"),
    [
        ("pascal-part-116", "PascalPart116", ["--limit", "2", "--boundary", "none"]),
        ("ade20k-part-234", "ADE20KPart234", ["--limit", "2", "--boundary", "none", "--protocol", "oracle_obj"]),
        ("coco", "car_parts", ["--object", "car", "--limit", "4"]),
    ],
)
def test_real_data(
    dataset: str, folder: str, options: list[str], model_directory: Path, shared: Path, tmp_path: Path
) -> None:
    command = ["evaluate", str(model_directory), "--dataset", dataset, "--data", str(shared / "data" / folder)]
    assert main([*command, *options, "--device", "cpu", "--workers", "0", "--output", str(tmp_path / "out")]) == 0
    assert all(item["records"] > 0 for item in scores_in(tmp_path / "out").values())


def run_twice(arguments: list[str]) -> int:
    """The command in two processes, as `torchrun --standalone --nproc-per-node 2` starts them, but within a moment."""
    configuration = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="evaluate", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0, start_method="fork",
    )  # fmt: skip
    return max(elastic_launch(configuration, run_on_cpu)(arguments).values())


def run_on_cpu(arguments: list[str]) -> int:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return main(arguments)


@pytest.mark.slow
def test_two_processes_score_as_one(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "--output", str(tmp_path / "one")]) == 0
    arguments = [word for word in arguments if word not in ("--device", "cpu")]  # nobody says that it is a CPU run
    process = Command(*arguments, "--output", tmp_path / "two", run=run_twice)
    said = process.output.read()
    assert process.wait() == 0, said
    assert said.count("2 x cpu") == 1, "each took the other for a stranger"
    assert scores_in(tmp_path / "two") == scores_in(tmp_path / "one")
    assert not list((tmp_path / "two").glob("*.state"))
