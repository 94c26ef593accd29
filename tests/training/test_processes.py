"""Runs as processes: killed and continued, and shared by two."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.models.partcatseg.small import build, small_config
from tests.processes import Command
from tests.training.conftest import recipe_from, training_data

from partclipseg.models.registry import load_tokenizer
from partclipseg.training.loop import run_training
from partclipseg.training.observer import Observer, Progress

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("run_squares.py")


def lines(output: Path) -> list[dict]:
    path = output / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]  # one may be half there


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Call torchrun in this process, which saves it the import of PyTorch."""
    from torch.distributed.run import main

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT  # which it handles from then on
    before = [signal.getsignal(number) for number in numbers]
    yield lambda *arguments: main([str(argument) for argument in arguments])
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def run_here(start: Path, output: Path, steps: int, observer: Observer | None = None) -> None:
    """Train in this process as `run_squares.py` does, which takes some 5 seconds to import PyTorch and the model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run_training(recipe_from(start, steps=steps), training_data(), output, observer=observer).finished
    finally:
        torch.set_num_threads(threads)


def train_and_die(arguments: list[str]) -> int:
    """Train, or continue; the process kills itself as soon as the log has the step."""
    start, output, last = arguments

    class Killer(Observer):
        def progressed(self, progress: Progress) -> None:
            if progress.step == int(last):
                os.kill(os.getpid(), signal.SIGKILL)

    run_here(Path(start), Path(output), steps=20, observer=Killer())
    return 0


def test_killed_at_any_step_and_continued_gives_the_same_bits(clipseg_directory: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for step in (2, 9, 10, 18):  # before the first checkpoint of 5 steps, between two, at one, and in the second half
        run = Command(clipseg_directory, killed, step, run=train_and_die)
        assert run.wait() == -signal.SIGKILL, run.output.read()
        assert lines(killed)[-1]["step"] == step
    for output in (whole, killed):
        run_here(clipseg_directory, output, steps=20)
    ours, theirs = ((folder / "model" / "model.safetensors").read_bytes() for folder in (killed, whole))
    assert ours == theirs
    assert [line["losses"] for line in lines(killed) if "losses" in line] == [
        line["losses"] for line in lines(whole) if "losses" in line
    ]


@pytest.fixture(params=["partclipseg", "partcatseg"])
def start(request: pytest.FixtureRequest, clipseg_directory: Path, tokenizer_directory: Path, tmp_path: Path) -> Path:
    """A model of each kind of pass to start from."""
    if request.param == "partclipseg":
        return clipseg_directory
    build(small_config(num_layers=1)).save_pretrained(tmp_path / "start")
    load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "start")
    return tmp_path / "start"


def test_two_processes_do_what_one_does(start: Path, tmp_path: Path, torchrun, capfd) -> None:
    torchrun("--standalone", "--nproc-per-node", 2, SCRIPT, start, tmp_path / "two", "steps=8")
    output = capfd.readouterr().out
    run_here(start, tmp_path / "one", steps=8)
    # PyTorch aborts some processes that end with their connection open.
    assert output.count("parted") == 2
    assert "left connected" not in output
    assert yaml.safe_load((tmp_path / "two" / "config.yaml").read_text())["run"]["processes"] == 2
    ours, theirs = lines(tmp_path / "two"), lines(tmp_path / "one")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for our, their in zip(ours, theirs, strict=True):
        if "losses" in our:
            for name, value in their["losses"].items():
                # The same sums in another order, float32; over 8 steps of lr 1e-3 the weights follow.
                np.testing.assert_allclose(our["losses"][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
