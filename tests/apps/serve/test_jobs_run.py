"""Labelling jobs of the server with real runs: the folder's labels, links, and a server that is killed."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.apps.serve.api_requests import picture

pytest.importorskip("fastapi")

from partclipseg.apps.cli import main
from partclipseg.apps.label.photos import find_all
from partclipseg.apps.serve.jobs.job import JobInfo
from partclipseg.apps.serve.jobs.process import Reports, run
from partclipseg.apps.serve.jobs.run import Run, Setup
from partclipseg.apps.serve.jobs.runner import Jobs
from partclipseg.client import Client
from partclipseg.errors import PartCLIPSegError

WORDS = "dog: ear, head; bus: wheel"


def make_photos(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(picture(48, 32, number))


def records(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def test_links_that_lead_out_are_left_out(tmp_path):
    make_photos(tmp_path / "photos/cars", 2)
    make_photos(tmp_path / "photos/more", 1)
    make_photos(tmp_path / "private", 2)
    cars = tmp_path / "photos/cars"
    (cars / "folder").symlink_to(tmp_path / "private")
    (cars / "file.png").symlink_to(tmp_path / "private/000.png")
    (cars / "twice.png").symlink_to(cars / "link.png")
    (cars / "link.png").symlink_to(tmp_path / "private/001.png")
    (cars / "inside").symlink_to(tmp_path / "photos/more")
    (cars / "inside.png").symlink_to(tmp_path / "photos/more/000.png")
    found = find_all(cars, tmp_path / "out", tmp_path / "photos")
    assert [photo.path for photo in found.photos] == ["000.png", "001.png", "inside.png", "inside/000.png"]
    left = [sentence.partition(" is a link that leads out of ")[0] for sentence in found.unreadable]
    assert sorted(left) == sorted(str(cars / name) for name in ("folder", "file.png", "link.png", "twice.png"))
    assert len(find_all(cars, tmp_path / "out").photos) == 9  # without a limit, as on the command line


def test_a_folder_that_became_a_link_is_not_read(tmp_path):
    """The server resolves the folder; the run, which may start later, looks again."""
    make_photos(tmp_path / "private", 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cars").symlink_to(tmp_path / "private")
    with pytest.raises(PartCLIPSegError, match="photos/cars is a link that leads out of"):
        find_all(tmp_path / "photos/cars", tmp_path / "out", tmp_path / "photos")


@pytest.fixture
def job(tmp_path, model_directory) -> tuple[JobInfo, Path, Path]:
    """A job, its photos and its folder, as the server makes them."""
    make_photos(tmp_path / "photos/cars", 10)
    (tmp_path / "photos/cars/cut.png").write_bytes(picture()[:60])
    folder = tmp_path / "results/mine"
    folder.mkdir(parents=True)
    (folder / "words.json").write_text('[["dog", "ear"], ["dog", "head"], ["bus", "wheel"]]')
    made = JobInfo(
        folder="cars", model="random", vocabulary=[], objects=[], zoom=False, instances=None, rest=False, min_score=0,
        min_part_probability=None, formats=["coco", "png"], name="mine", output="mine/labels", state="running",
        created="",
    )  # fmt: skip
    return made, tmp_path / "photos/cars", folder


def test_a_run_is_that_of_the_command_and_reports_its_progress(job, model_directory, tmp_path):
    info, photos, folder = job
    label = Setup({"random": str(model_directory)}, "cpu").label(info, photos, folder)
    stream = io.StringIO()
    assert run(label, photos, folder, Reports(stream)) == 1  # a photo is bad
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    progress = [event for event in events if "photos" in event]
    counts = [tuple(one[name] for name in ("photos", "labelled", "failed")) for one in progress]
    assert counts == [(11, 0, 0), (11, 8, 0), (11, 10, 1)]
    assert events[-1] == {"ended": 1}
    assert any("1 of 11 photos could not be labelled" in event.get("said", "") for event in events)
    options = ["--vocabulary", WORDS, "--model", str(model_directory), "--device", "cpu", "--workers", "1"]
    assert main(["label", str(photos), "--output", str(tmp_path / "by hand"), *options]) == 1
    for number in range(10):
        ours, theirs = (place / f"labels/{number:03}.png" for place in (folder / "labels", tmp_path / "by hand"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_that_cannot_begin_says_why(job, model_directory):
    info, photos, folder = job
    for path in photos.iterdir():
        path.unlink()
    label = Setup({"random": str(model_directory)}, "cpu").label(info, photos, folder)
    stream = io.StringIO()
    assert run(label, photos, folder, Reports(stream)) == 1
    [event] = map(json.loads, stream.getvalue().splitlines())
    assert event["error"] == f"{photos}: no photos in this folder or those inside it"


def test_a_report_that_breaks_off_is_dropped(job, model_directory, tmp_path, monkeypatch):
    """A process is killed while it writes, as for want of memory."""
    dying = tmp_path / "dying"
    dying.write_text("""#!/bin/sh\nprintf '{"said": "begun"}\\n{"said": "a ha'\nkill -9 $$\n""")
    dying.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(dying))
    info, photos, folder = job
    started = Run(Setup({"random": str(model_directory)}, "cpu").label(info, photos, folder), photos, folder)
    assert list(started.events()) == [{"said": "begun"}]
    assert started.code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("changes", "setup", "sentence"),
    [
        ({"model": "gone"}, {}, "there is no model 'gone' here any more"),
        ({"instances": "detector"}, {}, "this server has no detector any more"),
    ],
)
def test_a_server_that_starts_with_less_says_so(job, changes, setup, sentence):
    info, photos, folder = job
    with pytest.raises(PartCLIPSegError, match=sentence):
        Setup({"random": None}, **setup).label(info.model_copy(update=changes), photos, folder)


@pytest.mark.parametrize(("instances", "expected"), [("components", ("components", None)), ("detector", ("some", 0.4))])
def test_instances_come_from_the_servers_detector(job, instances, expected):
    info, photos, folder = job
    setup = Setup({"random": None}, detector="some", threshold=0.4, workers=3)
    label = setup.label(info.model_copy(update={"instances": instances, "rest": True}), photos, folder)
    assert (label.find.instances, label.find.instance_threshold) == expected
    assert (label.find.rest, label.workers, label.model) == (True, 3, None)


WAITING_JOB = """
import sys, time
from partclipseg.apps.label.manifest import Manifest
from partclipseg.apps.serve.jobs.process import serve_job
append = Manifest.append
def waiting(self, records):
    Manifest.append = lambda *_: time.sleep(250)
    append(self, records)
Manifest.append = waiting
sys.exit(serve_job())
"""
"""The process of a job that waits after its first batch until it is stopped."""


def serve_waiting_jobs(arguments: list[str]) -> int:
    """`partclipseg`, whose jobs are run by the program in the variable JOB."""
    sys.executable = os.environ["JOB"]
    return main(arguments)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_killed_server_goes_on_with_its_job(server, model_directory, tmp_path):
    count = 20
    make_photos(tmp_path / "photos/cars", count)
    options = ["--jobs", tmp_path / "photos", "--jobs-output", tmp_path / "results", "--device", "cpu"]
    output = tmp_path / "results/cars/labels"
    program = tmp_path / "job"
    program.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-c', WAITING_JOB])}\n")
    program.chmod(0o700)
    started = server("--model", model_directory, *options, run=serve_waiting_jobs, JOB=str(program))
    with started as (address, process):
        client = Client(address)
        assert client.start_job("cars", WORDS, formats=["png"])["state"] == "waiting"
        while (job := client.job("cars"))["labelled"] < 8:
            assert job["state"] in {"waiting", "running"}, job
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert json.loads((tmp_path / "results/cars/job.json").read_text())["state"] == "running"
    # The next server, which waits for the process of the killed one.
    jobs = Jobs(tmp_path / "photos", tmp_path / "results", Setup({model_directory.name: str(model_directory)}, "cpu"))
    try:
        while (found := jobs.get("cars")) and found.state in {"waiting", "running"}:
            time.sleep(0.1)
    finally:
        jobs.close()
    assert found is not None
    assert (found.state, found.photos, found.labelled, found.failed, found.error) == ("done", count, count, 0, None)
    assert f"8 of {count} photos are labelled already" in found.said
    assert [record["photo"] for record in records(output)] == [f"{number:03}.png" for number in range(count)]
    assert len(list((output / "labels").glob("*.png"))) == count
    assert np.asarray(Image.open(output / "labels/000.png")).shape == (32, 48)
