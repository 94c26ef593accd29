"""`partclipseg predict`, through the command line's own entry."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from partclipseg.apps.cli import main
from partclipseg.apps.prediction_files import output_stems
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import locked
from partclipseg.formats import drawing
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.renderer import render_scene

WORDS = "dog: ear, head; bus: wheel"


@pytest.fixture(autouse=True)
def small_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the photos of the overlays as small as they are, which are sooner drawn and written than enlarged."""
    monkeypatch.setattr(drawing, "SIDE_RANGE", (1, 1600))


@pytest.fixture
def album(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for name, size in {"a.png": (40, 30), "b.jpg": (30, 40), "trip/c.png": (50, 50)}.items():
        path = tmp_path / "album" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        coarse = Image.fromarray(generator.integers(0, 255, (4, 4, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
    return tmp_path / "album"


@pytest.fixture
def predict(model_directory, tmp_path):
    def run(*arguments: str | Path, words: str | None = WORDS) -> int:
        options = {"--model": model_directory, "--output": tmp_path / "out", "--vocabulary": words}
        missing = [(name, value) for name, value in options.items() if value and name not in arguments]
        return main(["predict", *(str(word) for word in (*arguments, *sum(missing, ())))])

    return run


def files(folder: Path) -> list[str]:
    """All but the record of what was written."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(".partclipseg/"))


@pytest.mark.parametrize("zoom", [False, True])
def test_a_second_look_when_asked(predict, album, monkeypatch, zoom):
    looks: list[list[tuple[int, ...]]] = []

    def counted(self, photos, maps, vocabulary, present_objects=None):
        looks.append([photo.shape[:2] for photo in photos])
        return maps

    monkeypatch.setattr(PartSegmenter, "look_again", counted)
    assert predict(album, "--format", "json", *["--zoom"] * zoom) == 0
    assert looks == ([[(30, 40), (40, 30)]] if zoom else []), "at the photos' own sizes"


def test_a_folder(predict, album, tmp_path, capsys):
    assert predict(album) == 0
    names = [f"{stem}.{end}" for stem in "ab" for end in ("labels.png", "overlay.png", "parts.json")]
    assert files(tmp_path / "out") == sorted([*names, "annotations.coco.json"])
    output = capsys.readouterr().out
    assert "PartCLIPSegModel" in output
    assert "cpu, float32" in output or "cuda" in output
    assert "2 of 2 photos" in output

    coco = COCO(tmp_path / "out" / "annotations.coco.json")
    for image in coco.loadImgs(coco.getImgIds()):
        stem = Path(image["file_name"]).stem
        labels = np.asarray(Image.open(tmp_path / "out" / f"{stem}.labels.png"))
        assert labels.shape == (image["height"], image["width"])
        again = np.full(labels.shape, 255)
        for annotation in coco.loadAnns(coco.getAnnIds([image["id"]])):
            if annotation["category_id"] <= 3:  # what follows are objects without a part
                again[coco.annToMask(annotation) > 0] = annotation["category_id"] - 1
        assert np.array_equal(again, labels)
        segments = json.loads((tmp_path / "out" / f"{stem}.parts.json").read_text())["segments"]
        assert {s["index"]: s["area"] for s in segments} == {
            int(k): int(n) for k, n in zip(*np.unique(labels[labels < 255], return_counts=True), strict=True)
        }


def test_files_and_patterns_and_chosen_formats(predict, album, tmp_path):
    assert predict(album / "a.png", album / "**" / "c.*", "--format", "json", "labelme", "--batch-size", "1") == 0
    assert files(tmp_path / "out") == ["a.labelme.json", "a.parts.json", "c.labelme.json", "c.parts.json"]


def test_bad_photos_are_passed_and_listed(predict, album, tmp_path, capsys):
    (album / "bad.jpg").write_bytes(b"not a photo")
    (album / "empty.png").touch()
    assert predict(album, "--format", "json") == 1
    assert files(tmp_path / "out") == ["a.parts.json", "b.parts.json"]
    errors = capsys.readouterr().err
    assert "2 of 4 photos could not be segmented" in errors
    assert f"{album / 'bad.jpg'}: not a photo in a known format" in errors
    assert f"{album / 'empty.png'}: the file is empty" in errors


def test_nothing_but_bad_photos(predict, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    assert predict(tmp_path / "bad.jpg") == 1
    assert files(tmp_path / "out") == []
    assert "1 of 1 photo " in capsys.readouterr().err


def test_photos_of_one_name_do_not_overwrite_each_other(predict, album, tmp_path):
    Image.open(album / "a.png").resize((9, 7)).save(album / "trip" / "a.png")
    assert predict(album, album / "trip", "--format", "json") == 0
    assert files(tmp_path / "out") == ["a.parts.json", "b.parts.json", "trip/a.parts.json", "trip/c.parts.json"]
    assert json.loads((tmp_path / "out" / "trip" / "a.parts.json").read_text())["width"] == 9


@pytest.mark.parametrize(
    ("photos", "stems"),
    [
        (["x/a.jpg", "y/b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["x/a.jpg", "x/A.jpg"], ["a.jpg", "A.jpg"]),  # alike on file systems that ignore capitals
        (["x/a.jpg", "x/a.png"], ["a.jpg", "a.png"]),
        (["x/a.jpg", "a.jpg"], ["x/a", "a"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
    ],
)
def test_output_stems(photos, stems):
    assert output_stems([Path(photo) for photo in photos]) == stems


# -- nothing is lost ------------------------------------------------------------------------------------------

ALL = ("overlay", "png", "json", "coco", "labelme")
PLACES = {
    "overlay": "a.overlay.png",
    "png": "a.labels.png",
    "json": "a.parts.json",
    "coco": "annotations.coco.json",
    "labelme": "a.labelme.json",
}


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("when", ["before", "after"])
def test_files_that_others_made_or_changed_are_kept(predict, album, tmp_path, capsys, form, when):
    out = tmp_path / "out"
    arguments = (album / "a.png", "--format", *ALL)
    if when == "after":
        assert predict(*arguments) == 0
    out.mkdir(exist_ok=True)
    mine = out / PLACES[form]
    mine.write_bytes(b"by hand")
    (out / "a.json").write_bytes(b"labelme's own file")
    assert predict(*arguments) == 1
    error = capsys.readouterr().err
    assert str(mine) in error
    assert "give --overwrite to replace them" in error
    assert error.count("a.") + error.count("annotations.") == 1, "the others are its own"
    assert mine.read_bytes() == b"by hand"
    assert files(out) == sorted([*PLACES.values(), "a.json"])
    assert predict(*arguments, "--overwrite") == 0
    assert mine.read_bytes() != b"by hand"
    assert (out / "a.json").read_bytes() == b"labelme's own file"


def test_the_same_command_again_replaces_its_own_files(predict, album, tmp_path, capsys):
    assert predict(album, "--format", *ALL) == 0
    assert predict(album, "--format", *ALL) == 0
    assert predict(album, "--format", *ALL, "--min-score", "0.9") == 0
    assert predict(album, "--format", *ALL, words="cat: paw") == 0
    assert "kept as they are" not in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "a.parts.json").read_text())
    assert document["vocabulary"] == ["cat's paw"]


def test_results_beside_the_photos_are_no_photos_of_the_next_run(predict, album, capsys):
    for _ in range(2):
        assert predict(album, "--output", album, "--format", "overlay", "png", "json") == 0
        assert "2 of 2 photos" in capsys.readouterr().out
    ends = ("labels.png", "overlay.png", "parts.json")
    assert files(album) == sorted(["a.png", "b.jpg", "trip/c.png", *(f"{stem}.{end}" for stem in "ab" for end in ends)])


def test_names_too_long_for_results_get_short_ones(predict, album, tmp_path, capsys):
    names = ["长" * 80, "x" * 249, "y" * 251]
    for name in names:
        shutil.copy(album / "a.png", album / f"{name}.png")
    for _ in range(2):  # the same names each time
        assert predict(album, "--format", *ALL) == 0
    output = capsys.readouterr().out
    assert output.count("2 of the photos' names are too long for their results") == 2
    found = files(tmp_path / "out")
    assert len(found) == 5 * 4 + 1
    assert f"{'长' * 80}.labelme.json" in found
    images = json.loads((tmp_path / "out" / "annotations.coco.json").read_text())["images"]
    assert {str(album / f"{name}.png") for name in names} < {image["file_name"] for image in images}


@pytest.mark.parametrize(
    "replace", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/nowhere/x"), lambda path: path.symlink_to(path)]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_no_file_stays_and_costs_one_file_alone(predict, album, tmp_path, capsys, replace, when):
    out, formats = tmp_path / "out", ("json", "labelme", "coco", "csv")
    arguments = (album / "a.png", "--format", *formats)
    places = [out / "a.parts.json", out / "annotations.coco.json"]
    others = [out / "a.labelme.json", out / "areas.csv"]
    if when == "after":
        assert predict(*arguments) == 0
    for path in places:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
    replace(places[0])
    assert predict(*arguments) == 1
    assert f"{places[0]} cannot be read or written" in capsys.readouterr().err
    assert others[0].is_file()
    places[0].rmdir() if places[0].is_dir() else places[0].unlink()
    places[1].unlink(missing_ok=True)
    replace(places[1])
    kind = places[1].lstat().st_mode
    assert predict(*arguments) == 1
    said = capsys.readouterr().err
    assert "files about all photos that could not be written:\n" in said
    assert f"  {places[1]} cannot be read or written" in said
    assert places[1].lstat().st_mode == kind
    assert others[1].is_file()


def test_names_that_are_no_unicode_or_dots_alone(predict, album, tmp_path):
    (album / "..png").write_bytes((album / "a.png").read_bytes())
    odd = album / os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(album / "a.png", odd)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    assert predict(album / "..png", odd, "--format", "json", "csv", "coco", "jsonl", "labelme") == 0
    out = tmp_path / "out"
    assert {"..png.parts.json", "areas.csv", f"{odd.stem}.labelme.json"} < {path.name for path in out.iterdir()}
    assert rf"{album}/caf\udce9.png," in (out / "areas.csv").read_text()


def test_a_folder_in_a_results_place_fails_its_photo_alone(predict, album, tmp_path, capsys):
    (tmp_path / "out" / "a.parts.json").mkdir(parents=True)
    assert predict(album, "--format", "json", "coco") == 1
    error = capsys.readouterr().err
    assert "1 of 2 photos could not be segmented" in error
    assert f"{tmp_path / 'out' / 'a.parts.json'} cannot be read or written" in error
    images = json.loads((tmp_path / "out" / "annotations.coco.json").read_text())["images"]
    assert [Path(image["file_name"]).name for image in images] == ["b.jpg"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (PartCLIPSegError("odd"), 1)])
def test_annotations_of_an_interrupted_run_are_kept(predict, album, tmp_path, monkeypatch, error, code):
    segment_many = PartSegmenter.segment_many

    def interrupted(self, paths, *arguments, **options):
        yield from segment_many(self, paths[:1], *arguments, **options)
        raise error

    monkeypatch.setattr(PartSegmenter, "segment_many", interrupted)
    assert predict(album) == code
    coco = COCO(tmp_path / "out" / "annotations.coco.json")
    assert [Path(image["file_name"]).name for image in coco.loadImgs(coco.getImgIds())] == ["a.png"]
    assert coco.getAnnIds()


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("bad", [{0}, {3}, {1, 4}, set(range(7))])
@pytest.mark.parametrize("error", [RuntimeError("out of memory\nand pages more"), MemoryError("out of memory")])
def test_photos_that_break_the_model_fail_alone(predict, tmp_path, monkeypatch, capsys, batch_size, bad, error):
    (tmp_path / "album").mkdir()
    for index in range(7):
        Image.new("RGB", (20, 20), (255, 0, 0) if index in bad else (0, 10 * index, 99)).save(
            tmp_path / f"album/{index}.png"
        )
    prepare = PartSegmenter.prepare

    def failing(self, photos):
        if any((photo == [255, 0, 0]).all() for photo in photos):
            raise error
        return prepare(self, photos)

    monkeypatch.setattr(PartSegmenter, "prepare", failing)
    assert predict(tmp_path / "album", "--format", "json", "--batch-size", str(batch_size)) == 1
    assert files(tmp_path / "out") == [f"{index}.parts.json" for index in range(7) if index not in bad]
    said = capsys.readouterr().err
    for index in bad:
        assert f"{index}.png: the model failed on it ({type(error).__name__}: out of memory)" in said


@pytest.mark.parametrize(("words", "said"), [("ear, wheel", True), (WORDS, False), (f"{WORDS}; any: ear", False)])
def test_words_without_an_object_are_said_where_there_are_no_others(predict, album, capsys, words, said):
    assert predict(album, "--format", "json", words=words) == 0
    line = 'parts of any object: ear, wheel; for those of one, write "dog: head, leg"'
    assert (line in capsys.readouterr().out) == said


def test_words_that_no_model_takes_are_said_once(predict, album, capsys):
    assert predict(album, words="dog: " + " ".join(["very"] * 39)) == 2
    assert "use a shorter word" in capsys.readouterr().err


def test_a_full_disk_is_said_in_a_sentence(predict, album, tmp_path, monkeypatch, capsys):
    write_bytes = Path.write_bytes

    def full(self, content):
        if self.suffix == ".png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert predict(album) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("partclipseg:"))
    assert str(tmp_path / "out") in line
    assert "No space left on device" in line
    assert "make room" in line


def test_another_run_is_not_disturbed(predict, album, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        assert predict(album) == 1
    assert "another run is writing" in capsys.readouterr().err


class Terminal(io.TextIOWrapper):
    """A terminal or pipe of an old encoding, which fails after some writes."""

    def __init__(self, reads: int | None, error: OSError) -> None:
        self.file = Path(os.devnull).open("wb")  # noqa: SIM115
        super().__init__(io.BytesIO(), encoding="cp1252")
        self.left, self.error = reads, error

    def write(self, text: str) -> int:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise self.error
        return super().write(text)

    def fileno(self) -> int:
        return self.file.fileno()


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("reads", "error", "code"),
    [(None, BrokenPipeError(), 0), (1, BrokenPipeError(), 0), (0, FULL, 1), (1, FULL, 1), (2, OSError("odd"), 1)],
)
def test_output_never_ends_a_run(predict, album, tmp_path, monkeypatch, capsys, reads, error, code):
    shutil.move(album / "b.jpg", album / "狗.jpg")
    terminal = Terminal(reads, error)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert predict(album, "--batch-size", "1") == code
    assert (f"what was printed is not complete ({error.strerror or error})" in capsys.readouterr().err) == bool(code)
    assert len(json.loads((tmp_path / "out" / "annotations.coco.json").read_text())["images"]) == 2
    said = terminal.buffer.getvalue().decode("cp1252")
    assert ("\\u72d7.jpg" in said) == (reads is None)


def test_unread_kinds_are_named_at_the_end(predict, album, capsys):
    (album / "c.cr2").write_bytes(b"x")
    assert predict(album, "--format", "json") == 0
    sentence = "1 picture of a kind that is not read here (1 .cr2): c.cr2: convert .cr2 to JPEG or PNG"
    assert sentence in capsys.readouterr().err


def test_known_objects_with_a_comma(predict, album, tmp_path):
    assert predict(album / "a.png", "--format", "png", "--objects", "bus, dog") == 0
    assert np.unique(np.asarray(Image.open(tmp_path / "out" / "a.labels.png"))).max() < 255


def test_known_objects(predict, album, tmp_path):
    assert predict(album / "a.png", "--format", "png", "json", "--objects", "bus") == 0
    assert np.unique(np.asarray(Image.open(tmp_path / "out" / "a.labels.png"))).tolist() == [2]


def test_parts_below_a_score_are_left_out(predict, album, tmp_path):
    def scores() -> list[float]:
        document = json.loads((tmp_path / "out" / "annotations.coco.json").read_text())
        return [annotation["score"] for annotation in document["annotations"]]

    assert predict(album, "--formats", "coco") == 0
    everything = scores()
    limit = sorted(everything)[len(everything) // 2]
    assert predict(album, "--format", "coco", "--min-score", str(limit)) == 0
    assert 0 < len(scores()) < len(everything)
    assert min(scores()) >= limit - 1e-3  # written with four digits


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no photo is named"),
        (["nowhere.jpg"], 2, "nowhere.jpg: no such file or folder"),
        (["*.jpg"], 2, "no photo matches this pattern"),
        (["{album}", "--vocabulary", "dog:"], 2, "'dog' has no part"),
        (["{album}", "--objects", "cat"], 2, "'cat' is not an object of the vocabulary"),
        (["{album}", "--device", "toaster"], 2, "no device 'toaster'"),
        (["{album}", "--batch-size", "0"], 2, "batch size"),
        (["{album}", "--min-score", "50"], 2, "--min-score must be from 0 to 1, not 50"),
        (["{album}", "--format", "tiff"], 2, "tiff"),
        (["{album}", "--output", "{album}/a.png"], 2, "is a file, and --output names a folder"),
        (["{album}", "--model", "{album}"], 1, "config.json"),
        (["{album}", "--max-pixels", "10"], 1, "more than the limit of 10"),
    ],
)
def test_errors(predict, album, capsys, arguments, code, words):
    assert predict(*[argument.format(album=album) for argument in arguments]) == code
    assert words in "".join(capsys.readouterr())


def test_without_words_the_model_must_bring_them(predict, album, capsys):
    assert predict(album, words=None) == 2
    assert "give a vocabulary" in capsys.readouterr().err


def test_without_words_those_of_the_model_are_asked_for(predict, album, model_directory, tmp_path):
    from partclipseg.vocabulary import Vocabulary

    own = tmp_path / "model"
    shutil.copytree(model_directory, own)
    Vocabulary.load("bird: beak, wing").save(own / "vocabulary.json")
    assert predict(album / "a.png", "--model", own, "--format", "coco", words=None) == 0
    coco = json.loads((tmp_path / "out" / "annotations.coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["bird's beak", "bird's wing"]


def test_help_is_for_newcomers(capsys):
    assert main(["predict", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--vocabulary", "--model", "rendered scenes only", "labelme", "partclipseg predict photo.jpg"):
        assert word in text


def test_without_a_model_the_built_in_one_finds_its_objects(tmp_path, capsys):
    scene = render_scene("test", 3, 256)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "scene.png"), "--output", str(out), "--format", "json", "png"]) == 0
    assert "knows rendered scenes only, not photos" in capsys.readouterr().out
    found = {segment["object"] for segment in json.loads((out / "scene.parts.json").read_text())["segments"]}
    assert found == {"girl", "car"}  # among the 56 objects that it knows: no words were given
    labels = np.asarray(Image.open(out / "scene.labels.png")).astype(int)
    assert (labels == np.where(scene.parts < 0, 65535, scene.parts.astype(int))).mean() > 0.9
    assert main(["predict", str(tmp_path / "scene.png"), "--vocabulary", "car: wheel", "--output", str(out)]) == 0
    assert "car's wheel" in capsys.readouterr().out


def test_an_installation_without_its_model_says_so(album, tmp_path, capsys, monkeypatch):
    from partclipseg.models import registry

    monkeypatch.setattr(registry, "BUILT_IN", "lost")
    assert main(["predict", str(album / "a.png"), "--vocabulary", WORDS, "--output", str(tmp_path / "out")]) == 1
    assert "no built-in model: name a model's directory with --model" in capsys.readouterr().err


def test_a_detector_and_outlines_by_their_directories(predict, album, tmp_path):
    """Tiny ones with random weights; what is found is theirs, and every photo has its own."""
    from tests.instances.tiny import build

    detector, outliner = build("owlv2", tmp_path / "owlv2"), build("sam2", tmp_path / "sam2")
    options = ["--instances", detector, "--instance-threshold", "0", "--outlines", outliner, "--format", "json"]
    assert predict(album, *options) == 0
    sources = set()
    for stem in "ab":
        document = json.loads((tmp_path / f"out/{stem}.parts.json").read_text())
        assert 1 <= len(document["instances"]) <= 32
        sources |= {some["source"] for some in document["instances"]}
    assert sources
    assert sources <= {"detector", "detector and outline"}


def test_instances_of_a_coco_file_are_written_and_given_again(predict, album, tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a.png": [["dog", 0, 0, 20, 30], ["dog", 15, 0, 40, 30]], "b.jpg": []}))
    assert predict(album, "--instances", path, "--format", "coco", "instance-png") == 0
    written = tmp_path / "out/annotations.coco.json"
    numbers = np.asarray(Image.open(tmp_path / "out/a.instance.png"))
    assert set(np.unique(numbers).tolist()) > {0}
    again = tmp_path / "again"
    assert predict(album, "--instances", written, "--format", "instance-png", "--output", again) == 0
    found = np.asarray(Image.open(again / "a.instance.png"))
    assert np.array_equal(found > 0, numbers > 0), "masks are all their objects'"


@pytest.mark.parametrize("order", [("partpq", "instance-png"), ("instance-png", "partpq")])
def test_a_format_that_cannot_show_a_photo_is_no_reason_to_leave_others_out(predict, album, tmp_path, capsys, order):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a.png": [["dog", 0, 0, 20, 30]] * 255}))
    assert predict(album / "a.png", "--instances", path, "--format", *order) == 1
    said = "a.png: PartPQ's picture can number 254 instances in a photo, and there are 255: ask for fewer"
    assert said in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out/a.instance.png").is_file()
    assert not (tmp_path / "out/a.partpq.png").exists()


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("; ".join(f"object{number}: part" for number in range(100)), "99 objects, and there are 100"),
        (f"dog: {', '.join(f'part{number}' for number in range(100))}", "99 parts of one object, and there are 100"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "label"])
def test_a_format_that_cannot_hold_the_words_is_refused_before_the_first_photo(
    command, words, count, model_directory, album, tmp_path, capsys
):
    output = tmp_path / "out"
    arguments = [command, str(album), "--model", str(model_directory), "--output", str(output), "--device", "cpu"]
    arguments += ["--vocabulary", words, "--instances", "components", "--format", "instance-png", "partpq"]
    assert main(arguments) == 2
    message = f"the format partpq can number {count}: leave it out, or ask for fewer words"
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(output.rglob("*.png"))
