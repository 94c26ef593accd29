"""Actors of a Ray cluster."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.apps.label.helpers import WORDS

from partclipseg.apps.label.job import BulkJob
from partclipseg.apps.label.photos import find_all
from partclipseg.apps.label.ray import RayCluster, ray_cluster, run_ray
from partclipseg.errors import PartCLIPSegError
from partclipseg.vocabulary import Vocabulary


@pytest.mark.slow
def test_a_photo_that_kills_its_actor_fails_alone_and_what_people_made_is_kept(photos, model, tmp_path, monkeypatch):
    pytest.importorskip("ray")

    class Deadly(BulkJob):
        """Local, so that it goes to the actors by value."""

        def own_files(self, photo):
            if photo.path == "scenes/0/003.png":
                os._exit(9)
            return super().own_files(photo)

    monkeypatch.chdir(tmp_path)  # actors do not share the working folder
    shutil.copytree(photos, "photos")
    # Every actor takes seconds to start: one for the batches, which takes both with it, and two for their photos alone.
    found = find_all(Path("photos"), Path("out")).photos[:8]
    by_hand = Path("out/labels/scenes/0/006.png")
    by_hand.parent.mkdir(parents=True)
    Image.new("L", (128, 128), 3).save(by_hand)
    made = by_hand.read_bytes()
    job = Deadly(Path("photos"), Path("out"), Vocabulary.load(WORDS), ("png",), str(model), batch_size=4)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with ray_cluster(1, 1, use_gpus=False) as cluster:
        assert cluster == RayCluster(workers=1, gpus=0, threads=2)
        done = [record for part in run_ray(job, [found[:4], found[4:]], cluster) for record in part]
    assert signal.getsignal(signal.SIGTERM) is on_sigterm
    assert sorted(record["photo"] for record in done) == [photo.path for photo in found]
    errors = {record["photo"]: record["error"] for record in done if record["status"] == "failed"}
    assert errors.keys() == {"cut.png", "no photo.jpg", "scenes/0/003.png"}
    assert "the process died on this photo" in errors["scenes/0/003.png"]
    assert len(list(Path("out/labels").rglob("*.png"))) == 5
    assert by_hand.read_bytes() == made


@pytest.mark.parametrize(
    ("workers", "gpus", "share"),
    [(1, 0, 0), (1, 1, 1), (4, 1, 0.25), (3, 2, 0.5), (3, 8, 1), (8, 8, 1)],
)
def test_every_worker_of_ray_finds_room_on_a_gpu(workers, gpus, share):
    assert RayCluster(workers, gpus, threads=1).share == share
    assert gpus == 0 or workers <= gpus * (1 // share)


@pytest.mark.parametrize(
    ("resources", "workers", "use_gpus", "expected"),
    [
        ({"CPU": 64.0, "GPU": 4.0}, None, True, RayCluster(4, 4, 16)),
        ({"CPU": 64.0, "GPU": 4.0}, 8, True, RayCluster(8, 4, 8)),
        ({"CPU": 64.0, "GPU": 4.0}, None, False, RayCluster(32, 0, 2)),
        ({"CPU": 64.0}, None, True, RayCluster(32, 0, 2)),
    ],
)
def test_workers_and_gpus_are_those_of_the_cluster(monkeypatch, resources, workers, use_gpus, expected):
    """The machine that the command is given on need not have any."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    with ray_cluster(workers, 2, use_gpus) as cluster:
        assert cluster == expected


def test_missing_ray_and_absent_clusters_are_named(monkeypatch):
    ray = pytest.importorskip("ray")

    def nobody(**_):
        raise ConnectionError("no answer")

    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(PartCLIPSegError, match="no Ray cluster answers at elsewhere:6379"), ray_cluster(1, 1, True):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PartCLIPSegError, match=r'pip install "\.\[ray\]" in the folder'), ray_cluster(1, 1, True):
        pass
