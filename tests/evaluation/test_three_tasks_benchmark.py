"""The page of benchmarks/three_tasks.py, made of results that are there, all or some."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest

from partclipseg.errors import PartCLIPSegError
from partclipseg.kept_files import KeptFiles
from partclipseg.training.log import write_configuration
from partclipseg.training.recipe import with_settings
from partclipseg.training.towers import BackboneRecipe

RESULTS = [
    ("CLIPSeg", 0, {"zero-shot": {"seen": 50.0, "unseen": 20.0, "harmonic": 28.0, "all": 40.0},
                    "cross-world": {"source": 40.0, "all": None}}),
    ("CLIPSeg", 1, {"zero-shot": {"seen": 54.0, "unseen": 20.0, "harmonic": 30.0, "all": 40.0},
                    "cross-world": {"source": 40.0, "all": None}}),
    ("ZSSeg+", 1, {"16 shots": {"seen": 3.0, "unseen": 4.0, "harmonic": 3.4, "all": 3.2}}),
]  # fmt: skip


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
        return importlib.import_module("three_tasks")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out/three-tasks").mkdir(parents=True)
    facts = {"steps": 1000, "photos": None, "scenes": 8, "machine": "a GPU"}
    for number, (method, seed, tasks) in enumerate(RESULTS):
        record = {"method": method, "seed": seed, "tasks": tasks, **facts}
        (tmp_path / f"out/three-tasks/{9 - number}.json").write_text(json.dumps(record))
    return tmp_path / "out"


def test_the_page_says_what_was_not_run_and_keeps_what_was_written(benchmark, output, tmp_path, capsys):
    page = tmp_path / "docs/page.md"
    benchmark.main(["--results", str(output), "--backbones", "1", "--page", str(page)])
    text, printed = page.read_text(), capsys.readouterr().out
    for row, times in {
        "| CLIPSeg | 2 | 52.0 ± 2.8 | 20.0 ± 0.0 | 29.0 ± 1.4 |": 1,
        "| PartCLIPSeg | 0 | not run | not run | not run |": 2,
        "| ZSSeg+ | 1 | 3.0 | 4.0 | 3.2 |": 1,
        "| CLIPSeg | 2 | 40.0 ± 0.0 | - |": 1,
    }.items():
        assert text.count(row) == printed.count(row) == times, row
    assert "one backbone, the same for all seeds" in text
    picture = (tmp_path / "docs/pictures/three-tasks.svg").read_text()
    assert picture.count("not run") == 13
    assert picture.count("<rect") == 1 + 2 + len(benchmark.METHODS)  # paper, bars, legend

    stored = output / "three-tasks.json"
    written = "# A title\n\nA person's sentence.\n\n"
    page.write_text(written + text[text.index(benchmark.HEADING):].replace("52.0", "1.0"))
    benchmark.main(["--results", str(stored), "--page", str(page)])
    assert page.read_text() == written + text[text.index(benchmark.HEADING):]


def test_values_stand_in_the_order_of_the_seeds(benchmark, output):
    benchmark.main(["--results", str(output)])
    summary = json.loads((output / "three-tasks.json").read_text())
    assert summary["tasks"]["zero-shot"]["CLIPSeg"]["seeds"] == [0, 1]
    assert summary["tasks"]["zero-shot"]["CLIPSeg"]["seen"] == [50.0, 54.0]
    assert (summary["runs"]["seed"], summary["runs"]["backbones"]) == ([0, 1], None)


class TakenOverError(Exception):
    pass


SHORT = {"steps": 8, "batch_size": 4, "scenes": 16, "image_size": 64}
SHORTER = {**SHORT, "steps": 4}


@pytest.mark.parametrize(
    ("method", "changes", "settings", "difference"),
    [
        ("CLIPSeg", SHORT, {}, None),
        ("CLIPSeg", {**SHORT, "compile": True, "log_every": 7}, {}, None),
        ("PartCATSeg", SHORT, {}, None),
        ("CLIPSeg", SHORTER, {}, "steps: 4 then, 8 now"),
        ("CLIPSeg", {**SHORT, "learning_rate": 0.5}, {}, "learning_rate: 0.5 then, 0.001 now"),
        ("CLIPSeg", {**SHORT, "seed": 1}, {}, "seed: 1 then, 0 now"),
        ("PartCATSeg", SHORT, {"reference": True}, "settings.reference: True then, False now"),
        ("PartCATSeg", SHORT, {"guidance": "elsewhere/guidance-1/model"},
         "settings.guidance: 'guidance-1' then, 'guidance-0' now"),
        ("CLIPSeg", {**SHORT, "start": "elsewhere/backbone-1/model"}, {}, "start: 'backbone-1' then, 'backbone-0' now"),
    ],
)  # fmt: skip
def test_a_finished_model_is_taken_over_if_it_is_of_the_recipe(
    benchmark, tmp_path, monkeypatch, method, changes, settings, difference
):
    """Its towers may lie elsewhere; those of another seed are others."""
    variant, make = benchmark.METHODS[method]
    start = "aggregation-0" if method == "PartCATSeg" else "backbone-0"
    own = {"guidance": "elsewhere/guidance-0/model"} if method == "PartCATSeg" else {}
    recipe = with_settings(make(), **{**own, **settings})
    recipe = replace(recipe, **{"seed": 0, "held_out": 0, "start": f"elsewhere/{start}/model", **changes})
    folder = tmp_path / f"runs/{variant}, seed 0"
    (folder / "model").mkdir(parents=True)
    write_configuration(KeptFiles(folder, "train"), "config.yaml", {"recipe": recipe.to_dict()})

    def taken_over(*_: object, **__: object) -> None:
        raise TakenOverError

    monkeypatch.setattr(benchmark.PartSegmenter, "from_pretrained", taken_over)
    arguments = ["--output", str(tmp_path), "--only", method, "--seeds", "0", "--steps", "8", "--batch-size", "4"]
    arguments += ["--scenes", "16", "--image-size", "64"]
    if difference is None:
        with pytest.raises(TakenOverError):
            benchmark.main(arguments)
        return
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert str(stopped.value).splitlines() == [
        f"{folder} holds a model of another recipe: give the options that it was trained with, or another --output",
        f"  {difference}",
    ]


@pytest.mark.parametrize(
    ("then", "difference"),
    [({"part_weight": 0.0}, "part_weight: 0.0 then, 0.5 now"), ({"steps": 9}, "steps: 9 then, 8 now")],
)
def test_a_tower_that_was_trained_otherwise_is_not_taken_over(benchmark, tmp_path, then, difference):
    recipe = replace(BackboneRecipe(steps=8, warmup_steps=2), **then)
    folder = tmp_path / "backbone-0"
    (folder / "model").mkdir(parents=True)
    write_configuration(KeptFiles(folder, "train"), "config.yaml", {"recipe": asdict(recipe)})
    arguments = ["--output", str(tmp_path), "--only", "CLIPSeg", "--seeds", "0", "--backbone-steps", "8"]
    with pytest.raises(PartCLIPSegError, match=f"the backbone in .*backbone-0 was trained otherwise.*\n  {difference}"):
        benchmark.main(arguments)


@pytest.mark.parametrize("arguments", [[], ["--results", "nowhere"], ["--results", ".", "--output", "out"]])
def test_usage(benchmark, arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert not list(tmp_path.iterdir())
