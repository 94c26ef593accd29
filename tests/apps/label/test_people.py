"""Files that people made or changed: kept, read back, and taken into the results of all formats."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.apps.label.helpers import WORDS, arguments, digests, index_map, make_photos, records

from partclipseg.apps.cli import main
from partclipseg.apps.label.corrections import CorrectionError, read_correction
from partclipseg.vocabulary import Vocabulary

STEM = "scenes/0/000"
SQUARE = [[10, 20], [60, 20], [60, 90], [10, 90]]
OWN = {
    "labelme": f"labelme/{STEM}.json",
    "label-studio": f"label_studio/{STEM}.json",
    "yolo": f"yolo/labels/{STEM}.txt",
    "png": f"labels/{STEM}.png",
}


def labelme(path: Path, label: str = "bus's wheel") -> None:
    document = json.loads(path.read_text())
    shape = {"label": label, "points": SQUARE, "shape_type": "polygon", "flags": {}, "group_id": None}
    path.write_text(json.dumps(document | {"shapes": [shape]}, indent=2))


def label_studio(path: Path) -> None:
    task = json.loads(path.read_text())
    points = [[x / 1.28, y / 1.28] for x, y in SQUARE]
    region = {
        "type": "polygonlabels",
        "original_width": 128,
        "original_height": 128,
        "value": {"points": points, "polygonlabels": ["bus's wheel"]},
    }
    path.write_text(json.dumps([task | {"annotations": [{"result": [region]}]}]))


def yolo(path: Path) -> None:
    path.write_text("3 " + " ".join(str(value / 128) for point in SQUARE for value in point) + "\n")


def png(path: Path) -> None:
    labels = np.full((128, 128), 255, np.uint8)
    labels[20:90, 10:60] = 3
    Image.fromarray(labels).save(path)


CORRECT: dict[str, Callable[[Path], None]] = {
    "labelme": labelme,
    "label-studio": label_studio,
    "yolo": yolo,
    "png": png,
}


@pytest.fixture(scope="module")
def begun(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos in `photos`, their labels in `out`."""
    folder = tmp_path_factory.mktemp("begun")
    make_photos(folder / "photos", 5)
    assert main(arguments(folder / "photos", folder / "out", model)) == 0
    return folder


@pytest.fixture
def run(begun: Path, model: Path, tmp_path: Path) -> Callable[..., int]:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True, symlinks=True)
    options = tmp_path / "out/options.json"
    folder = str((tmp_path / "photos").resolve())
    options.write_text(json.dumps(json.loads(options.read_text()) | {"folder": folder}))
    return lambda *more: main(arguments(tmp_path / "photos", tmp_path / "out", model, *more))


def segments(output: Path) -> dict[str, dict[str, int]]:
    """What each collection says of the corrected photo: names and areas, by file."""
    photo = f"{STEM}.png"
    coco = json.loads((output / "annotations.coco.json").read_text())
    (number,) = (image["id"] for image in coco["images"] if image["file_name"] == photo)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    found = {"coco": {names[a["category_id"]]: a["area"] for a in coco["annotations"] if a["image_id"] == number}}
    for line in map(json.loads, (output / "labels.jsonl").read_text().splitlines()):
        if line["photo"] == photo:
            found["jsonl"] = {segment["name"]: segment["area"] for segment in line["segments"]}
    return found


@pytest.mark.parametrize("name", CORRECT)
def test_a_correction_is_kept_and_counts_in_all_formats(
    run: Callable[..., int], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    before = digests(output)
    CORRECT[name](output / OWN[name])
    by_hand = (output / OWN[name]).read_bytes()
    make_photos(tmp_path / "photos", 6)  # the batch is done again
    assert run() == 0
    assert (output / OWN[name]).read_bytes() == by_hand
    said = capsys.readouterr().out
    assert "1 file is a person's and kept; 1 photo is taken into the results" in said
    assert OWN[name] in said
    for found in segments(output).values():
        assert list(found) == ["bus's wheel"]
        assert found["bus's wheel"] == pytest.approx(50 * 70, rel=0.05)
    # The photo's other drafts follow.
    drawn = index_map(output, STEM) == 3
    assert drawn[21:89, 11:59].all()
    assert (output / OWN["yolo"]).read_text().split()[0] == "3"
    assert {shape["label"] for shape in json.loads((output / OWN["labelme"]).read_text())["shapes"]} == {"bus's wheel"}
    tasks = json.loads((output / "label_studio.json").read_text())
    (task,) = (task for task in tasks if task["data"]["image"].endswith(f"{STEM}.png"))
    (answer,) = task.get("annotations") or task["predictions"]
    assert [region["value"]["polygonlabels"] for region in answer["result"]] == [["bus's wheel"]]
    assert OWN[name] in (output / "report.html").read_text()
    # Other photos are as they were, and so is all of this one when the correction is taken back.
    assert index_map(output, "scenes/1/001").shape == (128, 128)
    again = digests(output)
    assert run() == 0
    assert digests(output) == again
    (output / OWN[name]).unlink()
    (tmp_path / "photos/scenes/2/005.png").unlink()
    assert run() == 0
    after = digests(output)
    assert {path: after[path] for path in OWN.values()} == {path: before[path] for path in OWN.values()}
    assert after["annotations.coco.json"] == before["annotations.coco.json"]
    assert after["manifest.jsonl"] == before["manifest.jsonl"]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("what", ["added", "broken", "deleted", "line removed", "no manifest", "nothing"])
@pytest.mark.usefixtures("quick_workers")
def test_whatever_opens_a_batch_corrections_stay(
    run: Callable[..., int], tmp_path: Path, what: str, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output, photo = tmp_path / "out", tmp_path / f"photos/{STEM}.png"
    for name, correct in CORRECT.items():
        correct(output / OWN[name])
    theirs = {path: (output / path).read_bytes() for path in OWN.values()}
    manifest = output / "manifest.jsonl"
    if what == "added":
        make_photos(tmp_path / "photos", 6)
    elif what == "broken":
        photo.write_bytes(b"no photo")
        manifest.write_text("".join(line for line in manifest.open() if STEM not in line))
    elif what == "deleted":
        (output / "labels/scenes/1/001.png").unlink()
    elif what == "line removed":
        manifest.write_text("".join(line for line in manifest.open() if STEM not in line))
    elif what == "no manifest":
        manifest.unlink()
    assert run("--workers", workers) == (1 if what == "broken" else 0)
    assert {path: (output / path).read_bytes() for path in OWN.values()} == theirs
    said = capsys.readouterr().out
    assert "4 files are a person's and kept" in said
    if what == "deleted":
        assert "1 deleted file is made again" in said
        assert (output / "labels/scenes/1/001.png").is_file()
    if what != "broken":
        assert [r["photo"] for r in records(output) if "corrected" in r] == [f"{STEM}.png"]
        assert records(output)[0]["corrected"] == "labelme", "of several the first of a fixed order counts"
        assert run("--overwrite") == 0
        assert not any(theirs[path] == (output / path).read_bytes() for path in OWN.values())
        assert "corrected" not in records(output)[0]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labelme", b"", "it is damaged"),
        ("labelme", b"{}", "it is damaged"),
        ("labelme", b"[" * 100_000, "it is damaged"),
        ("labelme", b'{"shapes": [{"label": "cat", "points": [[1, 1], [2, 2], [3, 3]]}]}', "the label 'cat'"),
        ("labelme", b'{"shapes": [], "imageWidth": 7, "imageHeight": 9}', "it is for a photo of 7x9 pixels"),
        ("labelme", b'{"shapes": [], "imageWidth": 1' + b"0" * 400 + b"}", "x? pixels, the photo has 128x128"),
        ("labelme", b'{"shapes": [{"label": "bus\'s wheel", "points": [[1' + b"0" * 400 + b", 1]]}]}", "too large"),
        ("labelme", b'{"shapes": [{"label": "bus\'s wheel", "points": [[1, 2, 3]]}]}', "not those of the format"),
        ("labelme", "{é}".encode("latin-1"), "it is not UTF-8 text"),
        ("labelme", b'{"shapes": [{"label": "bus\'s wheel", "points": [[1, 1]], "shape_type": "point"}]}', "'point'"),
        ("labelme", b'{"shapes": [{"label": "bus\'s wheel", "points": [[1, NaN], [1, 2], [3, 3]]}]}', "far outside"),
        ("label-studio", b"[]", "not one task"),
        ("label-studio", b'{"predictions": [{"result": [{"type": "brushlabels", "value": {}}]}]}', "'brushlabels'"),
        ("yolo", b"9 0 0 1 0 1 1\n", "line 1 has the class 9; the classes are 0 to 5"),
        ("yolo", b"0 0 0 1\n", "line 1 is no outline"),
        ("yolo", b"\n0 0 0 nan 0 1 1\n", "line 2 has points outside the photo"),
        ("yolo", b"0 x\n", "it is damaged"),
        ("yolo", b"\xff\xfe", "it is damaged"),
        ("png", b"no picture", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_back_is_kept_and_the_draft_counts(
    run: Callable[..., int], tmp_path: Path, name: str, content: bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    before = segments(output)
    path = output / OWN[name]
    path.write_bytes(content)
    assert run() == 0
    said = capsys.readouterr()
    assert "the model's own result counts" in said.err
    assert OWN[name] in said.err
    assert reason in said.err
    assert path.read_bytes() == content
    assert segments(output) == before


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere/x.json")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened, contextlib.chdir(path.parent):  # such names are short
        opened.bind(path.name)


NO_FILES = {
    dangling: "it is a link that leads nowhere",
    circle: "it is a link that leads nowhere",
    os.mkfifo: "it is no regular file",
    socket_file: "it is no regular file",
    Path.mkdir: "a folder stands where a file should be",
}


@pytest.mark.parametrize("replace", NO_FILES)
def test_what_is_no_file_is_kept_and_named(
    run: Callable[..., int], tmp_path: Path, replace: Callable[[Path], None], capsys: Any
) -> None:
    places = {place: tmp_path / "out" / place for place in (OWN["labelme"], "annotations.coco.json", "report.html")}
    for path in places.values():
        path.unlink()
        replace(path)
    kinds = [path.lstat().st_mode for path in places.values()]
    assert run() == 1
    assert [path.lstat().st_mode for path in places.values()] == kinds
    said = capsys.readouterr().err
    assert all(f"{place}: " in said for place in places)
    assert NO_FILES[replace] in said


def test_links_to_files_stay_and_links_elsewhere_are_told(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    moved = ("annotations.coco.json", OWN["png"], "yolo/data.yaml")
    for place in moved:
        elsewhere = tmp_path / Path(place).name
        (output / place).rename(elsewhere)
        (output / place).symlink_to(elsewhere)
    (output / "yolo/images").unlink()
    (output / "yolo/images").symlink_to("/nowhere")
    assert run() == 0
    assert all((output / place).is_symlink() for place in moved)
    assert "yolo/images was changed by a person and is kept" in capsys.readouterr().out


def test_the_next_of_several_corrections_counts_where_the_first_is_damaged(
    run: Callable[..., int], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    (output / OWN["labelme"]).write_text("{")
    yolo(output / OWN["yolo"])
    assert run() == 0
    assert records(output)[0]["corrected"] == "yolo"
    assert all(list(found) == ["bus's wheel"] for found in segments(output).values())


def test_a_box_and_other_forms_are_read(tmp_path: Path) -> None:
    words, path = Vocabulary.load(WORDS), tmp_path / "a"
    expected = np.full((40, 60), -1)
    expected[10:30, 6:36] = 3
    forms = {
        "yolo": "3 0.35 0.5 0.5 0.5\n",
        "labelme": '{"shapes": [{"label": " Bus\'s wheel", "points": [[6, 10], [36, 30]], "shape_type": "rectangle"}]}',
        "label-studio": json.dumps(
            {
                "annotations": [
                    {"was_cancelled": True, "result": None},
                    {
                        "result": [
                            {
                                "type": "rectanglelabels",
                                "value": {
                                    **{"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0},
                                    "rectanglelabels": ["bus's wheel"],
                                },
                            }
                        ]
                    },
                ]
            }
        ),
    }
    for name, text in forms.items():
        path.write_text(text)
        assert (read_correction(name, path, words, (40, 60)) == expected).all(), name  # pyright: ignore
    words_of = {"shapes": [{"label": "BUS’s  wheel", "points": [[6, 10], [36, 30]], "shape_type": "rectangle"}]}
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text(json.dumps({**words_of, "imageWidth": "60"}), encoding)
        assert (read_correction("labelme", path, words, (40, 60)) == expected).all(), encoding
    path.write_text(forms["yolo"], "utf-8-sig")
    assert (read_correction("yolo", path, words, (40, 60)) == expected).all()
    path.write_text("")
    assert (read_correction("yolo", path, words, (40, 60)) == -1).all(), "nothing is a correction too"
    with pytest.raises(CorrectionError):
        read_correction("labelme", path, words, (40, 60))


@pytest.mark.parametrize(
    "name", ["annotations.coco.json", "labels.jsonl", "yolo/data.yaml", "label_studio.xml", "report.html"]
)
def test_changed_collections_are_kept_and_new_ones_lie_beside(
    run: Callable[..., int], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / name
    if name == "report.html":
        assert run() == 0  # it names the folder of the photos, which was copied
        capsys.readouterr()
    ours = path.read_bytes()
    path.write_text("a person's")
    assert run() == 0
    assert f"{name} was changed by a person and is kept\n" in capsys.readouterr().out
    beside = path.with_name(f"{path.stem}.new{path.suffix}")
    assert not beside.exists(), "there is nothing new"
    make_photos(tmp_path / "photos", 6)
    for _ in range(2):
        assert run() == 0
        assert path.read_text() == "a person's"
    constant = name in {"yolo/data.yaml", "label_studio.xml"}
    assert beside.exists() == (not constant)
    if not constant:
        assert f"{name} was changed by a person and is kept; the new one is {beside.relative_to(tmp_path / 'out')}" in (
            capsys.readouterr().out
        )
        assert beside.read_bytes() != ours
        beside.write_text("a person's too")
        assert run() == 0
        assert beside.read_text() == "a person's too"
    assert run("--overwrite") == 0
    assert path.read_text() != "a person's"


def test_a_file_of_a_photo_that_is_new_to_the_manifest_is_a_persons(run: Callable[..., int], tmp_path: Path) -> None:
    theirs = tmp_path / "out/labelme/scenes/2/005.json"
    theirs.write_text("by hand")
    make_photos(tmp_path / "photos", 6)
    assert run() == 0
    assert theirs.read_text() == "by hand"


def test_files_of_a_photo_that_is_broken_now_go_unless_they_are_a_persons(
    run: Callable[..., int], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    labelme(output / OWN["labelme"])
    (output / OWN["png"]).unlink()  # so that the photo is looked at again
    (tmp_path / f"photos/{STEM}.png").write_bytes(b"no photo")
    assert run() == 1
    assert [name for name, path in OWN.items() if (output / path).exists()] == ["labelme"]


def test_results_without_digests_are_taken_for_the_runs_own(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    before = digests(output)
    manifest = output / "manifest.jsonl"
    manifest.write_text(re.sub(r', "files": \{[^}]*\}', "", manifest.read_text()))
    shutil.rmtree(output / ".written")
    labelme(output / OWN["labelme"])
    assert run() == 0
    assert "1 file is a person's" in capsys.readouterr().out
    assert digests(output)["labels/scenes/1/001.png"] == before["labels/scenes/1/001.png"]


@pytest.mark.parametrize("place", ["labelme/scenes/0/000.json", "notes.txt", "annotations.coco.json", "manifest.jsonl"])
def test_a_folder_of_something_else_is_refused(
    begun: Path, model: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "out" / place
    theirs.parent.mkdir(parents=True)
    theirs.write_text("by hand")
    call = arguments(begun / "photos", tmp_path / "out", model)
    assert main(call) == 2
    said = capsys.readouterr().err
    assert f"such as {place}: name another folder with --output, or have files of the same names replaced" in said
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [theirs]
    assert main([*call, "--overwrite"]) == 0
    assert (theirs.read_text() == "by hand") == (place == "notes.txt")


def test_options_of_another_program_are_refused(
    begun: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "options.json").write_text('{"theme": "dark"}')
    assert main(arguments(begun / "photos", tmp_path, model)) == 2
    assert "holds files that are not of a run of partclipseg label, such as options.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["options.json"]


def test_an_empty_folder_is_begun(begun: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out/inner").mkdir(parents=True)
    (tmp_path / "out/.DS_Store").write_bytes(b"")
    assert main(arguments(begun / "photos", tmp_path / "out", model)) == 0


LEFT = "of photos that are gone or renamed"


def removed(photo: Path) -> None:
    photo.unlink()


def renamed(photo: Path) -> None:
    photo.rename(photo.with_name("new name.png"))


def joined_by_a_twin(photo: Path) -> None:
    """Both photos keep their suffix in the names of results then."""
    Image.open(photo).save(photo.with_suffix(".jpg"))


@pytest.mark.parametrize("change", [removed, renamed, joined_by_a_twin])
def test_files_of_a_photo_that_is_gone_are_kept_and_named(
    run: Callable[..., int], tmp_path: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    labelme(output / OWN["labelme"])
    theirs = {path: (output / path).read_bytes() for path in OWN.values()}
    capsys.readouterr()
    change(tmp_path / f"photos/{STEM}.png")
    for _ in range(2):  # later runs say it too
        assert run() == 0
        (said,) = (line for line in capsys.readouterr().out.splitlines() if LEFT in line)
        assert said.startswith(f"4 files are {LEFT}")
        assert f": {', '.join(sorted(theirs))}: delete what" in said
        assert {path: (output / path).read_bytes() for path in OWN.values()} == theirs
    for path in theirs:
        (output / path).unlink()
    assert run() == 0
    assert LEFT not in capsys.readouterr().out


def test_at_most_five_files_of_photos_that_are_gone_are_named(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((tmp_path / "photos").rglob("*.png"))[:2]:
        path.unlink()
    assert run() == 0
    (said,) = (line for line in capsys.readouterr().out.splitlines() if LEFT in line)
    assert said.startswith("8 files are")
    assert " and 3 more: delete" in said
