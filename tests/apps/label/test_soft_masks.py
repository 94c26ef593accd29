"""Files in folders of the photos' own: several for each photo, which no record holds the content of."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.apps.label.helpers import WORDS, digests, make_photos, records
from tests.apps.label.test_people import labelme

from partclipseg.apps.cli import main
from partclipseg.inference.segmenter import PartSegmenter

STEM = "scenes/0/000"
PNG = Path("out/soft-masks") / STEM
FORMATS = ("labelme", "png", "soft-masks")

Run = Callable[..., int]


def arguments(folder: Path, model: Path, *more: str) -> list[str]:
    options = ["--vocabulary", WORDS, "--model", str(model), "--batch-size", "4", "--formats", *FORMATS]
    return ["label", str(folder / "photos"), "--output", str(folder / "out"), *options, "--workers", "1", *more]


@pytest.fixture(scope="module")
def begun(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soft")
    make_photos(folder / "photos", 5)
    assert main(arguments(folder, model)) == 0
    return folder


@pytest.fixture
def run(begun: Path, model: Path, tmp_path: Path) -> Run:
    """Go on in `tmp_path` with a copy of the finished run."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    options = tmp_path / "out/options.json"
    folder = str((tmp_path / "photos").resolve())
    options.write_text(json.dumps(json.loads(options.read_text()) | {"folder": folder}))
    return lambda *more: main(arguments(tmp_path, model, *more))


def soft(folder: Path) -> dict[str, str]:
    return digests(folder / "out/soft-masks")


def first(folder: Path) -> Path:
    """One of the soft masks of the first photo."""
    return min((folder / PNG).iterdir())


def expected(folder: Path) -> set[str]:
    """Paths of the soft masks by the segments of the manifest."""
    return {
        f"{Path(record['photo']).with_suffix('')}/{segment['object']}_{segment['part']}.png"
        for record in records(folder / "out")
        for segment in record.get("segments", ())
    }


def by_hand(path: Path) -> bytes:
    Image.new("L", (128, 128), 7).save(path)
    return path.read_bytes()


def test_each_part_found_has_its_probability(begun: Path, model: Path) -> None:
    assert soft(begun).keys() == expected(begun)
    assert len(expected(begun)) > 5
    result = PartSegmenter.from_pretrained(model, "cpu")(begun / f"photos/{STEM}.png", WORDS)
    for path in (begun / PNG).iterdir():
        picture = Image.open(path)
        assert picture.mode == "L"
        name = path.stem.replace("_", "'s ")
        assert np.abs(np.asarray(picture) / 255 - result.probability(name)).max() <= 0.5 / 255 + 1e-5
    for record in records(begun / "out"):
        stem = record["photo"].removesuffix(".png")
        names = {key for key in record["files"] if key not in FORMATS}
        assert names == {f"soft-masks/{path.name}" for path in (begun / "out/soft-masks" / stem).iterdir()}


def file_deleted(folder: Path) -> None:
    first(folder).unlink()


def folder_deleted(folder: Path) -> None:
    shutil.rmtree(folder / PNG)


def line_removed(folder: Path) -> None:
    manifest = folder / "out/manifest.jsonl"
    manifest.write_text("".join(line for line in manifest.open() if STEM not in line))
    first(folder).unlink()


def begun_anew(folder: Path) -> None:
    shutil.rmtree(folder / "out")


@pytest.mark.parametrize(
    ("change", "said", "workers"),
    [
        (file_deleted, "1 deleted file is made again", "1"),
        (folder_deleted, "4 deleted files are made again", "1"),
        (line_removed, "1 of 5 photos is labelled already", "1"),
        (begun_anew, "5 of 5 photos ->", "2"),
    ],
)
@pytest.mark.usefixtures("quick_workers")
def test_what_is_missing_is_made_again_to_the_byte(
    run: Run, begun: Path, tmp_path: Path, change: Callable[[Path], None], said: str, workers: str, capsys
) -> None:
    change(tmp_path)
    assert run("--workers", workers) == 0
    assert said in capsys.readouterr().out
    assert soft(tmp_path) == soft(begun)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == (begun / "out/manifest.jsonl").read_bytes()


@pytest.mark.parametrize("written", [1, 9])
def test_a_run_stopped_between_files_is_finished_to_the_byte(
    begun: Path, model: Path, tmp_path: Path, written: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from partclipseg.apps.label import labeller

    shutil.copytree(begun / "photos", tmp_path / "photos")
    write, paths = labeller.write_draft, []

    def stop(path: Path, content: bytes) -> None:
        paths.append(path)
        if sum("soft-masks" in str(one) for one in paths) > written:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(labeller, "write_draft", stop)
        assert main(arguments(tmp_path, model)) == 130
    assert 0 < len(soft(tmp_path)) < len(soft(begun))
    assert main(arguments(tmp_path, model)) == 0
    assert "a person's" not in capsys.readouterr().out
    assert soft(tmp_path) == soft(begun)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == (begun / "out/manifest.jsonl").read_bytes()


def test_a_changed_one_is_kept_until_it_is_deleted_or_overwritten(
    run: Run, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, others = first(tmp_path), soft(tmp_path)
    theirs = by_hand(path)
    make_photos(tmp_path / "photos", 6)  # the batch of the sixth photo is labelled, then that of the first
    for again in ("photo added", "file missing"):
        if again == "file missing":
            (tmp_path / f"out/labels/{STEM}.png").unlink()
        assert run() == 0
        assert path.read_bytes() == theirs
        said = capsys.readouterr().out
        assert "1 file is a person's and kept; 0 photos are taken into the results" in said
        assert path.relative_to(tmp_path / "out").as_posix() in said
        assert path.relative_to(tmp_path / "out").as_posix() in (tmp_path / "out/report.html").read_text()
    path.unlink()
    assert run() == 0
    assert others.items() <= soft(tmp_path).items()
    by_hand(path)
    assert run("--overwrite") == 0
    assert others.items() <= soft(tmp_path).items()
    assert "a person's" not in capsys.readouterr().out


def test_a_corrected_photo_keeps_the_models_soft_masks(
    run: Run, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelme(tmp_path / f"out/labelme/{STEM}.json")
    first(tmp_path).unlink()
    theirs = by_hand(max((tmp_path / PNG).iterdir()))
    for _ in range(2):
        assert run() == 0
        assert "2 files are a person's and kept; 1 photo is taken" in capsys.readouterr().out
        assert records(tmp_path / "out")[0]["corrected"] == "labelme"
        kept = max((tmp_path / PNG).iterdir())
        assert kept.read_bytes() == theirs
        changed = {name for name, digest in soft(begun).items() if soft(tmp_path).get(name) != digest}
        assert changed == {kept.relative_to(tmp_path / "out/soft-masks").as_posix()}
    (tmp_path / f"out/labelme/{STEM}.json").unlink()
    kept.unlink()
    assert run() == 0
    assert soft(tmp_path) == soft(begun)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == (begun / "out/manifest.jsonl").read_bytes()


def other_scene(folder: Path) -> None:
    """Another photo of the same name, in which fewer parts are found."""
    shutil.copy(folder / "photos/scenes/0/003.png", folder / f"photos/{STEM}.png")


def no_photo(folder: Path) -> None:
    (folder / f"photos/{STEM}.png").write_bytes(b"no photo")


@pytest.mark.parametrize(
    ("change", "code", "left"), [(other_scene, 0, ["bird_leg.png", "bus_wheel.png"]), (no_photo, 1, [])]
)
def test_those_of_parts_no_longer_found_go_unless_they_are_a_persons(
    run: Run, begun: Path, tmp_path: Path, change: Callable[[Path], None], code: int, left: list[str], capsys
) -> None:
    names = ["bird_leg.png", "bird_wing.png", "bus_wheel.png", "dog_tail.png"]
    assert sorted(path.name for path in (tmp_path / PNG).iterdir()) == names
    theirs = by_hand(tmp_path / PNG / "bird_wing.png")
    (tmp_path / PNG / "notes.txt").write_text("by hand")
    change(tmp_path)
    for _ in range(2):
        assert run() == code
        assert sorted(path.name for path in (tmp_path / PNG).iterdir()) == sorted([*left, "bird_wing.png", "notes.txt"])
        assert (tmp_path / PNG / "bird_wing.png").read_bytes() == theirs
        said = capsys.readouterr().out
        assert "1 file is a person's and kept" in said
        assert f"1 file is of photos that are gone or renamed, so kept and not counted: soft-masks/{STEM}/notes" in said
    shutil.copy(begun / f"photos/{STEM}.png", tmp_path / f"photos/{STEM}.png")
    for path in (tmp_path / PNG).iterdir():
        path.unlink()
    assert run() == 0
    assert soft(tmp_path) == soft(begun)


def test_those_of_a_photo_that_is_gone_are_named(
    run: Run, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(list((tmp_path / PNG).iterdir()))
    (tmp_path / f"photos/{STEM}.png").unlink()
    assert run() == 0
    assert f"{count + 2} files are of photos that are gone or renamed" in capsys.readouterr().out
    assert soft(tmp_path) == soft(begun)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(errno.ENOSPC, 1, "No space left"), (errno.EACCES, 1, "1 of 5 photos could not be labelled")],
)
def test_a_refused_file_costs_its_photo_and_a_full_disk_the_run(
    run: Run, begun: Path, tmp_path: Path, number: int, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from partclipseg.apps.label import labeller

    path, write = first(tmp_path), labeller.write_draft

    def refuse(place: Path, content: bytes) -> None:
        if place == path:
            raise OSError(number, "No space left on device" if number == errno.ENOSPC else "Denied", str(place))
        write(place, content)

    shutil.rmtree(tmp_path / PNG)
    with monkeypatch.context() as patched:
        patched.setattr(labeller, "write_draft", refuse)
        assert run() == code
    message = capsys.readouterr().err
    assert said.casefold() in message.casefold()
    assert path.name in message
    assert "Traceback" not in message
    assert run() == 0
    assert soft(tmp_path) == soft(begun)


def a_folder_for_a_file(path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


def a_file_for_a_folder(path: Path) -> Path:
    shutil.rmtree(path.parent)
    path.parent.write_text("by hand")
    return path.parent


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        (a_folder_for_a_file, "a folder stands where a file should be"),
        (a_file_for_a_folder, "a file stands where a folder should be"),
    ],
)
def test_something_else_in_its_place_is_kept_and_costs_its_photo(
    run: Run, begun: Path, tmp_path: Path, replace: Callable[[Path], Path], said: str, capsys
) -> None:
    path = replace(first(tmp_path))
    assert run() == 1
    message = capsys.readouterr().err
    assert "1 of 5 photos could not be labelled" in message
    assert f"soft-masks/{STEM}" in message
    assert said in message
    path.rmdir() if path.is_dir() else path.unlink()
    assert run() == 0
    assert soft(tmp_path) == soft(begun)
