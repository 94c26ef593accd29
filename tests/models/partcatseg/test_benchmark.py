"""The benchmarks of PartCATSeg on a tiny model: every row runs and agrees with the plain implementation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))
import partcatseg
from partcatseg_training import CASES

TINY = ["--small", "--rounds", "1", "--threads", "1"]
EVERYTHING = [*TINY, "--training", "--batches", "2", "--dtypes", "float32", "bfloat16"]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_row_runs(tmp_path, capsys):
    file = tmp_path / "figures.json"
    report = partcatseg.main([*EVERYTHING, "--output", str(file)])
    assert json.loads(file.read_text()) == json.loads(capsys.readouterr().out) == json.loads(json.dumps(report))
    tables = {name: rows for name, rows in report.items() if isinstance(rows, dict) and "batch" in name}
    assert list(tables) == ["few words, batch 2"]
    for rows in tables.values():
        assert len(rows) == 2 * (2 + 3)
        for name, row in rows.items():
            assert row["ms_per_photo"] > 0, name
            if not name.startswith(("plain", "prepare")):
                assert "times_faster" in row, name
                # Random weights tie often: bfloat16 rounds to 8 bits.
                assert row["equal labels"] >= (0.999 if name.startswith("float32") else 0.8), name
    steps = report["step of 2, pascal-part-116"]
    assert list(steps) == [case.name for case in CASES if not case.compiled]
    plain = steps["plain float32"]["loss"]
    for name, row in steps.items():
        assert row["ms_per_step"] > 0
        # The plain step sums in another order; bfloat16 keeps 8 bits.
        assert row["loss"] == pytest.approx(plain, rel=1e-2 if "bfloat16" in name else 1e-6), name


def test_a_failing_row_says_why_and_a_late_one_is_left_out(monkeypatch, capsys):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(partcatseg, "plain_outputs", fail)
    report = partcatseg.main(TINY)
    table = report["few words, batch 1"]
    assert table["plain float32"] == {"error": "MemoryError: no room"}
    assert table["prepare float32"]["ms_per_photo"] > 0
    assert "no room" in capsys.readouterr().err
    late = partcatseg.main([*TINY, "--seconds", "0"])["few words, batch 1"]
    assert {row["error"] for row in late.values()} == {"left out: the time was over"}
