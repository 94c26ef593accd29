"""The log of a run: rewound, and cleaned of what is no log line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from partclipseg.errors import PartCLIPSegError
from partclipseg.kept_files import KeptFiles
from partclipseg.training.log import RunLog, write_configuration


@pytest.mark.parametrize(
    "odd", ["[1]", "7", "null", "{}", '{"step": "3"}', '{"step": true}', "no JSON", "\udcff", '{"step": null}']
)
def test_odd_lines_are_left_out_with_a_notice(odd: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.jsonl"
    content = f'{{"step": 1, "x": 0.1}}\n{odd}\n{{"step": 2}}\n{{"step": 3}}\n{{"step": 4, "to'
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    RunLog(path).rewind(2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1, "x": 0.1}, {"step": 2}]
    assert caplog.messages == [f"{path}: 1 line is damaged and left out; the run goes on"]


def test_lines_of_the_last_step_that_are_written_again_are_left_out(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        log.write(step, losses={})
        log.write(step, held_out={})
    log.rewind(2, without="held_out")
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [tuple(line.items())[:2] for line in lines] == [
        (("step", 1), ("losses", {})),
        (("step", 1), ("held_out", {})),
        (("step", 2), ("losses", {})),
    ]


def test_what_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PartCLIPSegError, match=r"log\.jsonl cannot be .*: a file stands where a folder should be"):
        RunLog(tmp_path / "file" / "log.jsonl")
    with pytest.raises(PartCLIPSegError, match=r"train\.jsonl cannot be .*: a file stands where a folder should be"):
        write_configuration(KeptFiles(tmp_path / "file", "train"), "config.yaml", {})
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(PartCLIPSegError, match=r"log\.jsonl cannot be .*: a folder stands where a file should be"):
        RunLog(tmp_path / "log.jsonl").write(1, loss=0.5)
