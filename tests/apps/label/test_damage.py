"""State that is damaged, and what the system refuses: one sentence, and the run goes on after the remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tests.apps.label.helpers import arguments, digests, lines_in, make_photos, records
from tests.processes import Command, quick_context

from partclipseg.apps.cli import main
from partclipseg.apps.label import workers
from partclipseg.apps.label.job import ManifestRecord
from partclipseg.apps.label.manifest import Manifest


@pytest.fixture(scope="module")
def begun(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    make_photos(folder / "photos", 3)
    assert main(arguments(folder / "photos", folder / "out", model)) == 0
    return folder


@pytest.fixture
def photos(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun / "photos", tmp_path / "photos"))


@pytest.fixture
def output(begun: Path, photos: Path, tmp_path: Path) -> Path:
    output = Path(shutil.copytree(begun / "out", tmp_path / "out", symlinks=True))
    options = output / "options.json"
    options.write_text(json.dumps(json.loads(options.read_text()) | {"folder": str(photos.resolve())}))
    return output


def labels(output: Path) -> dict[str, str]:
    """Digests of all files but those that name the folder of the photos."""
    others = ("options.json", "report", ".written/collections")
    return {name: value for name, value in digests(output).items() if not name.startswith(others)}


def edited(**changes: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content.split(b"\n")[0]) | changes).encode() + b"\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"\0" * len(content) + b"\n",
        lambda content: content.split(b"\n")[0] + b"\n[1]\n",
        lambda content: b"\n" + content,
        lambda content: content[:50] + b"\n" + content[50:],
        edited(photo=3),
        edited(status="odd"),
        edited(status="failed"),
        edited(width="wide"),
        edited(height=0),
        edited(segments=None),
        edited(segments=[{}]),
        edited(segments=[{"rle": 1}]),
        edited(files=[]),
        edited(files={"png": 1}),
    ],
)
def test_a_damaged_manifest_is_named_and_nothing_is_lost(
    begun: Path,
    photos: Path,
    model: Path,
    output: Path,
    damage: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = output / "manifest.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    call = arguments(photos, output, model)
    assert main(call) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{path} is damaged at line " in said
    assert said.endswith("delete that line, or the whole file; its photos are labelled again, and files that a person "
                         "changed are kept")  # fmt: skip
    path.unlink()
    assert main(call) == 0
    assert labels(output) == labels(begun / "out")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"dtype": 3}', "\0\0\0", '{"dtype": "float32"}'])
def test_damaged_options_are_named(
    begun: Path, photos: Path, model: Path, output: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = output / "options.json"
    path.write_text(content)
    call = arguments(photos, output, model)
    assert main(call) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{path} is damaged: delete it and give the same options as before; all other files are kept" in said
    path.unlink()
    assert main(call) == 0
    assert labels(output) == labels(begun / "out")


def test_damaged_masks_and_digests_are_named(
    begun: Path, photos: Path, model: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, written = output / "manifest.jsonl", output / ".written/collections.jsonl"
    record = json.loads(manifest.read_text().splitlines()[0])
    for segment in record["segments"]:
        segment["rle"]["counts"] = "zz"
    manifest.write_text(json.dumps(record) + "\n" + "".join(manifest.read_text().splitlines(keepends=True)[1:]))
    call = arguments(photos, output, model)
    assert main(call) == 1
    assert "the masks of scenes/0/000.png in the manifest are damaged: delete its line" in capsys.readouterr().err
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[1:]))
    assert main(call) == 0
    assert labels(output) == labels(begun / "out")
    written.write_text("\0\n")
    assert main(call) == 1
    assert "collections.jsonl is damaged at line 1: delete it" in capsys.readouterr().err
    written.unlink()
    assert main(call) == 0
    assert labels(output) == labels(begun / "out")


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("labels/scenes/0/000.png", "1 of 3 photos could not be labelled"),
        ("annotations.coco.json", "files that could not be written"),
        ("report.html", "files that could not be written"),
        ("label_studio.json", "files that could not be written"),
        ("yolo/train.txt", "files that could not be written"),
    ],
)
def test_a_folder_where_a_file_should_be_does_not_end_the_run(
    begun: Path, photos: Path, model: Path, tmp_path: Path, place: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    (output / place).mkdir(parents=True)
    call = arguments(photos, output, model)
    assert main(call) == 1
    said = capsys.readouterr().err
    assert named in said
    assert "a folder stands where a file should be: move it away" in said
    assert (output / "labels/scenes/1/001.png").is_file()
    (output / place).rmdir()
    assert main(call) == 0
    assert labels(output) == labels(begun / "out")


@pytest.mark.parametrize("place", ["labels", "yolo"])
def test_a_file_where_a_folder_should_be_does_not_end_the_run(
    begun: Path, photos: Path, model: Path, output: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(output / place)
    (output / place).write_text("a file")
    call = arguments(photos, output, model)
    assert main(call) == 1
    assert "a file stands where a folder should be: move it away" in capsys.readouterr().err
    assert len((output / "labels.jsonl").read_text().splitlines()) == 0
    (output / place).unlink()
    assert main(call) == 0
    assert labels(output) == labels(begun / "out")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize(
    "step",
    [
        "apps.label.labeller.write_draft", "kept_files.flush", "apps.label.options.write_text",
        "apps.label.manifest.Journal.append",
    ],
)  # fmt: skip
def test_a_full_disk_ends_every_step_with_a_sentence(
    begun: Path, photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    call = arguments(photos, tmp_path / "out", model)
    with monkeypatch.context() as patch:
        patch.setattr(f"partclipseg.{step}", full)
        assert main(call) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{tmp_path / 'out'} cannot be read or written ({os.strerror(number)})" in said
    assert main(call) == 0
    assert labels(tmp_path / "out") == labels(begun / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write everything")
def test_folders_without_permission_are_told(
    photos: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "scenes/0").chmod(0)
    assert main(arguments(photos, tmp_path / "out", model)) == 1
    assert "folders that cannot be read are left out" in capsys.readouterr().err


def test_an_unreadable_folder_is_left_out_and_told(
    photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from partclipseg.apps.label import photos as finding

    found = finding.find_photos

    def find(paths: list[Path]) -> list[Path]:
        if paths[0].name == "0":
            raise PermissionError(errno.EACCES, "Permission denied", str(paths[0]))
        return found(paths)

    monkeypatch.setattr(finding, "find_photos", find)
    assert main(arguments(photos, tmp_path / "out", model)) == 1
    said = capsys.readouterr().err
    assert "folders that cannot be read are left out:" in said
    assert "scenes/0 cannot be read or written (Permission denied)" in said
    assert [record["photo"] for record in records(tmp_path / "out")] == ["scenes/1/001.png", "scenes/2/002.png"]


def test_photos_that_vanish_or_become_folders_fail_alone(
    photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from partclipseg.inference.segmenter import PartSegmenter

    whole = PartSegmenter.segment_many

    def segment_many(self: PartSegmenter, *rest: object, **options: object):
        (photos / "scenes/0/000.png").unlink(missing_ok=True)
        (photos / "scenes/1/001.png").unlink(missing_ok=True)
        (photos / "scenes/1/001.png").mkdir(exist_ok=True)
        return whole(self, *rest, **options)  # pyright: ignore

    monkeypatch.setattr(PartSegmenter, "segment_many", segment_many)
    assert main(arguments(photos, tmp_path / "out", model)) == 1
    errors = [record.get("error", "") for record in records(tmp_path / "out")]
    assert ["no such file" in errors[0], "a folder" in errors[1], errors[2]] == [True, True, ""]


def test_names_too_long_for_a_suffix_are_cut_and_told_once(
    begun: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{'a' * 251}.png", f"{'a' * 250}b.png", f"{'长' * 83}.png", "short.png"]
    photos = tmp_path / "long"
    photos.mkdir()
    try:
        for name in names:
            Image.open(begun / "photos/scenes/0/000.png").save(photos / name)
    except OSError:
        pytest.skip("this file system takes no such names")
    call = arguments(photos, tmp_path / "out", model)
    assert main(call) == 0
    assert capsys.readouterr().out.count("2 names are too long for the files of results") == 1
    stems = sorted(path.stem for path in (tmp_path / "out/labelme").iterdir())
    assert len(stems) == 4
    assert "short" in stems
    assert "长" * 83 in stems, "a name that fits stays"
    assert all(len(os.fsencode(stem)) <= 250 for stem in stems)
    assert main(call) == 0
    assert "4 of 4 photos are labelled already" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("quick_workers")
def test_a_run_that_is_stopped_says_so_and_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str, sent: signal.Signals, code: int,
    capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    make_photos(tmp_path / "photos", 18)
    call = arguments(tmp_path / "photos", tmp_path / "out", model, "--workers", workers)
    append = Manifest.append
    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(partial(signal.signal, signal.SIGINT, before))

    def stopped(self: Manifest, records: list[ManifestRecord]) -> None:
        append(self, records)
        if lines_in(tmp_path / "out/manifest.jsonl") >= 8:
            signal.raise_signal(sent)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "append", stopped)
        assert main(call) == code
    assert_stopped(capfd.readouterr().err)
    assert lines_in(tmp_path / "out/manifest.jsonl") == 8
    assert main(call) == 0
    assert len(records(tmp_path / "out")) == 18
    assert not list((tmp_path / "out").rglob(".partclipseg-*"))


def label_and_stop(arguments: list[str]) -> int:
    """The command, stopped as it waits for its workers, which start within a moment."""
    append, stop = Manifest.append, threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM))

    def stopped(self: Manifest, records: list[ManifestRecord]) -> None:
        append(self, records)
        if stop.ident is None:
            stop.start()
        else:
            stop.join()  # however slow this thread is, the run does not end before

    Manifest.append = stopped
    workers.get_context = lambda _: quick_context()
    return main(arguments)


@pytest.mark.slow
def test_a_process_that_is_stopped_says_so(model: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 24)
    call = arguments(tmp_path / "photos", tmp_path / "out", model, "--workers", "2")
    process = Command(*call, run=label_and_stop)
    assert_stopped(process.output.read())
    assert process.wait() == 143
    assert 4 <= lines_in(tmp_path / "out/manifest.jsonl") < 24


def assert_stopped(said: str) -> None:
    assert "stopped; what is labelled is kept: give the same command again to go on" in said
    assert "Traceback" not in said
