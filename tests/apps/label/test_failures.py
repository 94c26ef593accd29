"""Photos, workers, disks and calls that are bad."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import struct
import threading
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest
from PIL import Image
from tests.apps.label.helpers import (
    arguments,
    small_job,
)

from partclipseg.apps.cli import main
from partclipseg.apps.instance_options import LoadedInstances
from partclipseg.apps.label.labeller import Labeller
from partclipseg.apps.label.manifest import Manifest, open_batches
from partclipseg.apps.label.photos import LabelPhoto, find_all
from partclipseg.apps.label.workers import run_processes
from partclipseg.inference.segmenter import PartSegmenter


def test_the_photo_that_breaks_the_model_fails_alone(photos, model, tmp_path, monkeypatch):
    segmenter = PartSegmenter.from_pretrained(model, "cpu")
    whole = segmenter.prepare

    def prepare(images):
        if any((image == [255, 0, 0]).all() for image in images):
            raise RuntimeError("out of memory")
        return whole(images)

    monkeypatch.setattr(segmenter, "prepare", prepare)
    shutil.copytree(photos, tmp_path / "photos")
    Image.new("RGB", (70, 50), (255, 0, 0)).save(tmp_path / "photos/red.png")
    batch = [LabelPhoto("scenes/0/000.png", "a"), LabelPhoto("red.png", "b"), LabelPhoto("twin.png", "c")]
    found = Labeller(small_job(tmp_path / "photos", tmp_path, model), segmenter, LoadedInstances())(batch)
    assert [record["status"] for record in found] == ["done", "failed", "done"]
    assert found[1]["error"] == "RuntimeError: out of memory"
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["a.png", "c.png"]


def test_a_full_disk_stops_the_run(photos, model, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("partclipseg.apps.label.labeller.write_draft", full)
    assert main(arguments(photos, tmp_path / "out", model)) == 1
    assert "No space left on device): make room" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--workers", "0"], 2, "--workers must be at least 1, not 0"),
        (["--min-score", "-1"], 2, "--min-score must be from 0 to 1, not -1"),
        (["--objects", "cat"], 2, "'cat' is not an object"),
        (["--formats"], 2, "no format is asked for"),
        (["--engine", "ray", "--device", "cuda:1"], 2, "--device cuda:1 cannot be had with --engine ray"),
    ],
)
def test_wrong_calls_are_named(photos, model, tmp_path, capsys, change, code, message):
    assert main(arguments(photos, tmp_path / "out", model, *change)) == code
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("quick_workers")
def test_a_worker_that_dies_takes_one_photo_with_it(photos, model, tmp_path):
    job = small_job(photos, tmp_path, model)
    found = find_all(photos, tmp_path / "elsewhere").photos
    batches = open_batches(job, found, Manifest(tmp_path / "none", 6))
    others = set(multiprocessing.active_children())  # such as a server that other tests share
    stream = run_processes(job, batches, ["cpu"], 2, 1)
    done = next(stream)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    workers.pop().kill()
    done += [record for part in stream for record in part]
    assert sorted(record["photo"] for record in done) == sorted(photo.path for photo in found)
    assert sum(record["status"] == "done" for record in done) == 13


def test_a_worker_may_die_in_the_middle_of_its_answer(tmp_path, monkeypatch):
    """A long answer stays half in the pipe while the main process writes to the disk."""

    class Worker:
        """The first one dies, the others answer."""

        made = 0

        def __init__(self, target, args, daemon):
            self.connection, self.number = args[0], Worker.made
            Worker.made += 1

        def start(self):
            self.connection = os.fdopen(os.dup(self.connection.fileno()), "r+b", 0)
            self.thread = threading.Thread(target=self.serve)
            self.thread.start()

        def serve(self):
            with Connection(os.dup(self.connection.fileno())) as connection, self.connection:
                connection.send([])
                while True:
                    try:
                        batch = connection.recv()
                    except EOFError:
                        return
                    if self.number == 0:
                        self.connection.write(struct.pack("!i", 1000) + b"the beginning")
                        return
                    connection.send([{"photo": photo.path, "status": "done"} for photo in batch])

        def terminate(self):
            pass

        def join(self):
            self.thread.join()

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Worker)
    monkeypatch.setattr("partclipseg.apps.label.workers.get_context", lambda _: context)
    batch = [LabelPhoto(f"{name}.jpg", name) for name in "abc"]
    found = run_processes(small_job(tmp_path, tmp_path, tmp_path), [batch], ["cpu"], 1, 1)
    assert [record["photo"] for records in found for record in records] == ["a.jpg", "b.jpg", "c.jpg"]
    assert Worker.made == 2
