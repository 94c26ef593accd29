"""The page of benchmarks/three_tasks.py, made of results that are there, all or some."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

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


@pytest.mark.parametrize("arguments", [[], ["--results", "nowhere"], ["--results", ".", "--output", "out"]])
def test_usage(benchmark, arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert not list(tmp_path.iterdir())
