"""Runs that are stopped and taken up again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.apps.label.helpers import (
    PHOTOS,
    WORDS,
    arguments,
    digests,
    lines_in,
    make_photos,
    records,
)
from tests.processes import Command

from partclipseg.apps.cli import main
from partclipseg.apps.label.job import ManifestRecord
from partclipseg.apps.label.manifest import Manifest
from partclipseg.apps.label.options import check_options
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import locked
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.fingerprint import model_fingerprint


def test_a_second_run_does_nothing_but_try_the_failed(labelled, photos, model, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(labelled, output, symlinks=True)
    shutil.copytree(photos, tmp_path / "photos")
    rest = [tmp_path / "photos", output, model]
    options = json.loads((output / "options.json").read_text())
    (output / "options.json").write_text(json.dumps(options | {"folder": str((tmp_path / "photos").resolve())}))
    Image.open(photos / "twin.jpg").save(tmp_path / "photos/no photo.jpg")
    (tmp_path / "photos/cut.png").unlink()
    assert main(arguments(*rest)) == 0
    # The batch of the mended photo is done again whole.
    assert "10 of 14 photos are labelled already" in " ".join(capsys.readouterr().out.split())
    assert len(records(output)) == 14
    assert main(arguments(*rest)) == 0
    assert "14 of 14 photos are labelled already" in " ".join(capsys.readouterr().out.split())


def test_missing_files_and_torn_lines_are_made_good(labelled, photos, model, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(labelled, output, symlinks=True)
    (output / "labels/scenes/1/001.png").unlink()  # all photos of its batch are done
    (output / "labels/.partclipseg-99999999-0123abcd.tmp.png").write_text("what a killed run leaves")
    lines = (output / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (output / "manifest.jsonl").write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
    for name in ("annotations.coco.json", "report.html"):
        (output / name).unlink()
    assert main(arguments(photos, output, model)) == 1
    assert digests(output) == digests(labelled)


def test_what_is_appended_after_a_torn_line_is_kept(tmp_path):
    path = tmp_path / "manifest.jsonl"
    first, second = ({"photo": name, "status": "failed", "error": "x"} for name in "ab")
    Manifest(path, 6).append([first])
    with path.open("a") as file:
        file.write('{"photo": "b", "sta')
    Manifest(path, 6).append([second])
    assert list(Manifest(path, 6)) == [first, second]


@pytest.mark.parametrize("name", ["a\u2028b", "a\u0085b", "a\nb", "a\rb", "a\x1eb"])
def test_names_with_line_ends_of_their_own(tmp_path, name):
    record = {"photo": name, "status": "done", "width": 1, "height": 1, "segments": []}
    Manifest(tmp_path / "manifest.jsonl", 6).append([record])
    again = Manifest(tmp_path / "manifest.jsonl", 6)
    assert list(again) == [record]
    assert again.is_done(LabelPhoto(name, name))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--batch-size", "3"], "batch_size was 4, now 3"),
        (["--vocabulary", WORDS.replace("wing, leg", "wing, beak")], "without bird's leg and with bird's beak"),
        (
            ["--vocabulary", f"{WORDS}; ship: bow, hull, keel, mast, sail, deck, rope"],
            "vocabulary now with ship's bow, ship's hull, ship's keel, ship's mast, ship's sail and 2 more)",
        ),
        # fewer words than the manifest has class numbers
        (["--vocabulary", WORDS.partition(",")[0]], "vocabulary now without"),
        (["--formats", "coco"], "formats now without yolo, labelme, png, jsonl, label-studio"),
        (["--objects", "dog"], "objects now with dog"),
        (["--dtype", "bfloat16"], "other options (dtype was float32, now bfloat16): go on"),
        (["--fast-reading"], "fast_reading was None, now True"),
    ],
)
def test_changed_options_are_refused_by_name(labelled, photos, model, tmp_path, capsys, change, named):
    before = digests(labelled)
    assert main(arguments(photos, labelled, model, *change)) == 2
    assert named in capsys.readouterr().err
    assert digests(labelled) == before


def test_the_number_type_stays_that_of_the_first_run(model, tmp_path):
    """Left out, it is bfloat16 on a GPU and float32 on a CPU, so that another device would not go on."""
    make_photos(tmp_path / "photos", 1)
    call = arguments(tmp_path / "photos", tmp_path / "out", model)
    assert main([*call, "--dtype", "bfloat16"]) == 0
    (tmp_path / "out/labels/scenes/0/000.png").unlink()
    assert main(call) == 0
    assert json.loads((tmp_path / "out/options.json").read_text())["dtype"] == "bfloat16"


def test_changed_weights_are_refused(labelled, photos, model, tmp_path, capsys):
    other = tmp_path / "model"
    shutil.copytree(model, other)
    options = json.loads((labelled / "options.json").read_text())
    check_options(labelled / "options.json", options)
    segmenter = PartSegmenter.from_pretrained(other, "cpu")
    assert model_fingerprint(segmenter.model) == options["weights"]
    with torch.no_grad():
        segmenter.model.background[0, 0] += 1e-3
    with pytest.raises(PartCLIPSegError, match="weights have changed"):
        check_options(labelled / "options.json", options | {"weights": model_fingerprint(segmenter.model)})


def turned(path):
    Image.open(path).rotate(90).save(path)


def older(path):
    """Replaced by a file of an earlier date, as `cp -p` and `mv` do."""
    before = path.with_name("before.png")
    Image.open(path).rotate(180).save(before)
    os.utime(before, (1, 1))
    before.replace(path)


def cropped(path):
    Image.open(path).crop((0, 0, 90, 128)).save(path)


def broken(path):
    path.write_bytes(b"no photo")


@pytest.mark.parametrize("change", [turned, older, cropped, broken, Path.touch])
def test_a_photo_that_has_changed_is_labelled_again(photos, model, tmp_path, capsys, change):
    folder, output = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos / "scenes/0", folder)
    call = arguments(folder, output, model, "--formats", "png", "jsonl")
    assert main(call) == 0
    change(folder / "000.png")
    code = 1 if change is broken else 0
    assert main(call) == code
    said = "1 of the photos changed since and labelled again:\n  000.png"
    assert (said in capsys.readouterr().out) == (change is not Path.touch)
    if change is turned:
        fresh = tmp_path / "fresh"
        assert main(arguments(folder, fresh, model, "--formats", "png", "jsonl")) == 0
        for name in ("labels.jsonl", "manifest.jsonl", "labels/000.png"):
            assert (output / name).read_bytes() == (fresh / name).read_bytes(), name
        capsys.readouterr()
    assert main(call) == code
    assert said not in capsys.readouterr().out


def test_two_runs_at_once_are_refused(labelled, photos, model, capsys):
    with locked(labelled):
        assert main(arguments(photos, labelled, model)) == 1
    assert "another run is writing" in capsys.readouterr().err


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def family(root: int) -> set[int]:
    """Numbers of a process and of all that it has started; other tests may have a Ray of their own."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, more = set(), {root}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in found} - found
    return found


def is_running(number: int) -> bool:
    """Whether a process runs; one that has ended stays in the table until its parent has taken notice."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ray_listeners(root: int) -> list[str]:
    """Local addresses, as the kernel writes them, on which the processes of Ray that `root` has started listen."""
    sockets: dict[str, str] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].split(":")[0]
    found = []
    for process in (Path("/proc") / str(number) for number in family(root)):
        with suppress(OSError):
            if any(word in (process / "cmdline").read_text() for word in ("ray::", "raylet", "gcs_server")):
                links = [str(path.readlink()) for path in (process / "fd").iterdir()]
                found += [sockets[link] for link in links if link in sockets]
    return found


KILLED_AFTER = 8
"""Photos in the manifest when the process kills itself."""


def label_and_die(arguments: list[str]) -> int:
    """The command, killed at the same photo however quick the machine is; its workers are at the next ones then."""
    append, photos = Manifest.append, 0

    def killed(self: Manifest, records: list[ManifestRecord]) -> None:
        nonlocal photos
        append(self, records)
        photos += len(records)
        if photos >= KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    Manifest.append = killed
    return main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "engine"), [("1", "local"), ("2", "local"), ("2", "ray")])
def test_killed_and_taken_up_again_equals_uninterrupted(
    many, model, uninterrupted, tmp_path, workers, engine, capsys
):
    if engine == "ray":
        pytest.importorskip("ray")
    output = tmp_path / "out"
    command = arguments(many, output, model, "--workers", workers, "--engine", engine)
    process = Command(*command, run=label_and_die)
    addresses: set[str] = set()
    started: set[int] = set()
    while process.poll() is None:
        started |= family(process.pid) - {process.pid}
        addresses.update(ray_listeners(process.pid) if engine == "ray" else ())
        time.sleep(0.2)
    assert process.wait() == -signal.SIGKILL
    for number in started if engine == "ray" else ():  # Ray's would notice it a minute later
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    while any(is_running(number) for number in started):  # workers finish their photo
        time.sleep(0.05)
    before = lines_in(output / "manifest.jsonl")
    assert KILLED_AFTER <= before < PHOTOS
    assert not (output / "annotations.coco.json").exists()
    # What is left to do is found before the workers start, so one worker in this process shows the same.
    assert main(arguments(many, output, model)) == 0
    assert f"{before} of {PHOTOS} photos are labelled already" in capsys.readouterr().out
    assert digests(output) == digests(uninterrupted)
    assert bool(addresses) == (engine == "ray")
    assert addresses <= LOOPBACK, "Ray can be reached from other machines"
