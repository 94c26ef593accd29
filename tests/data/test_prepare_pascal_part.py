"""PASCAL-Part's files into Pascal-Part-116: names, drawing, and the 22 real photos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.hashes import hashes

from partclipseg.data.check import check_dataset
from partclipseg.data.datasets.registry import open_dataset
from partclipseg.data.prepare.pascal_part import (
    NAME,
    PascalPartRecipe,
    RawObject,
    draw_objects,
    read_annotation,
    unified_part,
)
from partclipseg.data.prepare.runner import prepare
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.vocabulary import Catalog

pytest.importorskip("scipy")

SHARED = Path(__file__).resolve().parents[3] / "shared"
RAW, MADE = SHARED / "data/pascal_part_raw", SHARED / "data/PascalPart116"
real = pytest.mark.skipif(not (RAW.is_dir() and MADE.is_dir()), reason="the real photos are not here")

CATALOG = Catalog.load(NAME)


# -- names --------------------------------------------------------------------------------------------------------

RAW_NAMES = {
    # Object: every raw name that PASCAL-Part's list of parts has for it.
    "aeroplane": "body stern lwing rwing tail engine_1 wheel_12",
    "bicycle": "fwheel bwheel saddle handlebar chainwheel headlight_1",
    "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
    "bottle": "cap body",
    "bus": "frontside leftside rightside backside roofside leftmirror rightmirror fliplate bliplate door_1 wheel_2 "
    "headlight_1 window_20",
    "car": "frontside leftside rightside backside roofside leftmirror rightmirror fliplate bliplate door_1 wheel_2 "
    "headlight_1 window_20",
    "cat": "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail",
    "cow": "head leye reye lear rear muzzle lhorn rhorn torso neck lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg "
    "rblleg tail",
    "dog": "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail muzzle",
    "horse": "head leye reye lear rear muzzle lfho rfho lbho rbho torso neck lfuleg lflleg rfuleg rflleg lbuleg lblleg "
    "rbuleg rblleg tail",
    "motorbike": "fwheel bwheel handlebar saddle headlight_1",
    "person": "head leye reye lear rear lebrow rebrow nose mouth hair torso neck llarm luarm lhand rlarm ruarm rhand "
    "llleg luleg lfoot rlleg ruleg rfoot",
    "pottedplant": "pot plant",
    "sheep": "head leye reye lear rear muzzle lhorn rhorn torso neck lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg "
    "rblleg tail",
    "train": "head hfrontside hleftside hrightside hbackside hroofside headlight_1 coach_1 cfrontside_1 cleftside_2 "
    "crightside_3 cbackside_4 croofside_5",
    "tvmonitor": "screen",
}


@pytest.mark.parametrize("word", RAW_NAMES)
def test_the_raw_names_of_an_object_are_its_parts(word):
    expected = {pair.part for pair in CATALOG.object_parts if pair.object == word}
    assert {unified_part(word, raw) for raw in RAW_NAMES[word].split()} == expected


@pytest.mark.parametrize(
    ("word", "raw", "part"),
    [
        ("person", "llarm", "lower arm"),
        ("person", "ruarm", "upper arm"),
        ("person", "luleg", "leg"),
        ("person", "rebrow", "eyebrow"),
        ("cat", "rear", "ear"),
        ("cat", "lbpa", "paw"),
        ("horse", "rfho", "hoof"),
        ("bus", "bliplate", "license plate"),
        ("train", "cleftside_12", "side"),
        ("train", "headlight_3", "headlight"),
        ("train", "head", "head"),
    ],
)
def test_part_words(word, raw, part):
    assert unified_part(word, raw) == part


# -- drawing ------------------------------------------------------------------------------------------------------


def boxes(*edges: tuple[int, int]) -> list[np.ndarray]:
    masks = [np.zeros((4, 6), bool) for _ in edges]
    for mask, (start, stop) in zip(masks, edges, strict=True):
        mask[:, start:stop] = True
    return masks


def test_small_parts_lie_on_top_and_later_objects_cover_earlier_ones():
    dog, head, eye, table = boxes((0, 5), (1, 4), (2, 3), (4, 6))
    objects = [
        RawObject("dog", dog, (("leye", eye), ("head", head), ("feather", head))),
        RawObject("table", table, ()),
        RawObject("dragon", dog, ()),
    ]
    part_map, object_map, instance_map = np.full((3, 4, 6), 255, np.uint8)
    assert draw_objects(objects, part_map, object_map, instance_map, Path("x.mat")) == ["dog: feather", "dragon"]
    head_label, eye_label = (CATALOG.object_parts.index(("dog", part)) for part in ("head", "eye"))
    assert part_map[0].tolist() == [255, head_label, eye_label, head_label, 255, 255]
    dog_label, table_label = CATALOG.objects.index("dog"), CATALOG.objects.index("diningtable")
    assert object_map[0].tolist() == [dog_label] * 4 + [table_label] * 2
    assert instance_map[0].tolist() == [0] * 4 + [1] * 2


def test_a_pixel_belongs_to_the_owner_of_its_part():
    """A later object covers the earlier one's outline, but not its parts; its own parts cover them."""
    first, second, head, paw = boxes((0, 4), (2, 6), (1, 4), (3, 5))
    objects = [RawObject("dog", first, (("head", head),)), RawObject("dog", second, (("lfpa", paw),))]
    part_map, object_map, instance_map = np.full((3, 4, 6), 255, np.uint8)
    draw_objects(objects, part_map, object_map, instance_map, Path("x.mat"))
    head_label, paw_label = (CATALOG.object_parts.index(("dog", part)) for part in ("head", "paw"))
    assert part_map[0].tolist() == [255, head_label, head_label, paw_label, paw_label, 255]
    assert instance_map[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_more_objects_than_a_map_holds_are_refused():
    dog = RawObject("dog", boxes((0, 5))[0], ())
    with pytest.raises(PartCLIPSegError, match=r"x\.mat: has 256 objects, an instance map holds 255"):
        draw_objects([dog] * 256, *np.zeros((3, 4, 6), np.uint8), Path("x.mat"))


def test_a_mask_of_another_size_is_named():
    with pytest.raises(PartCLIPSegError, match=r"x\.mat: a mask is 6x4, but the photo is 7x5"):
        draw_objects([RawObject("dog", boxes((0, 1))[0], ())], *np.zeros((3, 5, 7), np.uint8), Path("x.mat"))


@pytest.mark.parametrize("content", [b"", b"not a mat file", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_a_damaged_annotation_is_named(tmp_path, content):
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(PartCLIPSegError, match=r"x\.mat: not a PASCAL-Part annotation"):
        read_annotation(tmp_path / "x.mat")


def write_mat(path: Path, objects: list[tuple[str, np.ndarray, list[tuple[str, np.ndarray]]]]) -> None:
    """A file as PASCAL-Part has them."""
    from scipy.io import savemat

    items = np.zeros((1, len(objects)), [("class", "O"), ("class_ind", "O"), ("mask", "O"), ("parts", "O")])
    for item, (name, mask, parts) in zip(items[0], objects, strict=True):
        members = np.zeros((1, len(parts)), [("part_name", "O"), ("mask", "O")])
        for member, (part, part_mask) in zip(members[0], parts, strict=True):
            member["part_name"], member["mask"] = part, part_mask.astype(np.uint8)
        item["class"], item["class_ind"], item["mask"] = name, 1, mask.astype(np.uint8)
        item["parts"] = members if parts else np.zeros((0, 0))
    anno = np.zeros((1, 1), [("imname", "O"), ("objects", "O")])
    anno[0, 0]["imname"], anno[0, 0]["objects"] = path.stem, items
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": anno})


def make_source(root: Path, *keys: str) -> Path:
    dog, head = boxes((0, 5), (1, 4))
    for key in keys:
        write_mat(root / f"Annotations_Part/{key}.mat", [("dog", dog, [("head", head)]), ("boat", head, [])])
        photo = root / f"VOC2010/JPEGImages/{key}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), "red").save(photo)
    return root


def test_a_source_without_annotations_is_asked_for_no_list(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(PartCLIPSegError, match="no photo with annotations of pascal-part-116 was found: check"):
        prepare(PascalPartRecipe([tmp_path], None), tmp_path / "out")


def test_the_split_is_vocs_list_or_the_users(tmp_path):
    source = make_source(tmp_path / "raw", "2008_000001", "2008_000002")
    (tmp_path / "mine.txt").write_text("2008_000002\n")
    with pytest.raises(UsageError, match="--val-list"):
        PascalPartRecipe([source], None).jobs()
    voc = source / "VOC2010/ImageSets/Segmentation/val.txt"
    voc.parent.mkdir(parents=True)
    voc.write_text("2008_000001  1\n2010_000009 -1\n")
    for val_list, expected in ((None, ["val", "train"]), (tmp_path / "mine.txt", ["train", "val"])):
        assert [job.split for job in PascalPartRecipe([source], val_list).jobs()] == expected
    assert PascalPartRecipe([source], None).options() != PascalPartRecipe([source], tmp_path / "mine.txt").options()
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "latin.txt").write_bytes("höhe\n".encode("latin-1"))
    for name, words in (
        ("gone.txt", "it is missing: check the path"),
        ("folder.txt", "it is a folder: name the file in it"),
        ("latin.txt", "it is not UTF-8 text: save it as UTF-8"),
    ):
        with pytest.raises(UsageError, match=f"{name}: {words}"):
            PascalPartRecipe([source], tmp_path / name).jobs()
    (tmp_path / "mine.txt").write_text("\ufeff2008_000002\n", "utf-8")  # as some editors save it
    assert [job.split for job in PascalPartRecipe([source], tmp_path / "mine.txt").jobs()] == ["train", "val"]


def test_a_missing_photo_is_named(tmp_path):
    source = make_source(tmp_path / "raw", "a")
    (source / "VOC2010/JPEGImages/a.jpg").unlink()
    (tmp_path / "val.txt").touch()
    with pytest.raises(PartCLIPSegError, match=r"a\.jpg is not in the source"):
        PascalPartRecipe([source], tmp_path / "val.txt").jobs()


def test_one_broken_annotation_does_not_stop_the_others(tmp_path):
    source = make_source(tmp_path / "raw", "a", "b")
    (source / "Annotations_Part/a.mat").write_bytes(b"broken")
    (tmp_path / "val.txt").touch()
    summary = prepare(PascalPartRecipe([source], tmp_path / "val.txt"), tmp_path / "out")
    assert len(summary.failures) == 1
    assert "a.mat" in summary.failures[0]
    lists = tmp_path / "out/annotations_detectron2_part"
    assert json.loads((lists / "train_obj_label_count.json").read_text()) == {"b.png": [3, 11]}
    assert json.loads((lists / "val_obj_label_count.json").read_text()) == {}


# -- the real files -----------------------------------------------------------------------------------------------


@real
def test_the_22_real_photos_give_the_benchmarks_maps(tmp_path):
    (tmp_path / "val.txt").write_text("\n".join(p.stem for p in (MADE / "images/val").glob("*.jpg")))
    before = hashes(RAW)
    output = tmp_path / "out"
    summary = prepare(PascalPartRecipe([RAW], tmp_path / "val.txt"), output)
    assert hashes(RAW) == before
    assert (dict(summary.photos), summary.failures, dict(summary.unknown)) == ({"train": 9, "val": 13}, (), {})
    assert len(summary.parts) == 80

    expected = [path.relative_to(MADE) for path in sorted(MADE.rglob("*")) if path.is_file()]
    assert sum(path.suffix == ".png" for path in expected) == 44
    for path in expected:
        if path.suffix == ".png":
            here, there = (np.asarray(Image.open(root / path)) for root in (output, MADE))
            assert here.dtype == there.dtype == np.uint8
            # No pixel differs, overlaps included: objects in the file's order, small parts on top.
            np.testing.assert_array_equal(here, there, err_msg=str(path))
        elif path.suffix == ".json":
            assert json.loads((output / path).read_bytes()) == json.loads((MADE / path).read_bytes())
        else:
            assert (output / path).read_bytes() == (MADE / path).read_bytes()


@real
def test_the_reader_reads_what_was_prepared(tmp_path):
    from partclipseg.data.datasets.pascal_part_116 import PascalPart

    (tmp_path / "val.txt").write_text("2008_000008\n2008_000019\n")
    prepare(PascalPartRecipe([RAW], tmp_path / "val.txt"), tmp_path / "out")
    source = PascalPart.open(tmp_path / "out", "val")
    assert [photo.key for photo in source.photos] == ["2008_000008", "2008_000019"]
    labels = source.read_labels(source.photos[0], (442, 500))
    assert not list(source.folder_problems())
    assert not list(source.label_problems(source.photos[0], labels))
    # The second photo shows three dogs that touch; test records are objects, instances need photos.
    dataset = open_dataset(NAME, tmp_path / "out")
    sample = dataset.with_instances()[1]
    assert (sample.key, dataset[0].instances) == ("2008_000019", None)
    raw = read_annotation(RAW / "annotations/2008_000019.mat")
    assert sample.instances is not None
    for number, item in enumerate(raw):
        mine = sample.instances == number
        assert (mine & item.mask).sum() / (mine | item.mask).sum() > 0.95
        assert {dataset.vocabulary.objects[label] for label in np.unique(sample.object_labels[mine])} == {item.name}
    assert (sample.instances >= 0).sum() == (sample.object_labels >= 0).sum()
    # A folder from the published archive has no instance maps, and a damaged one is named.
    picture = tmp_path / "out/annotations_instances/val/2008_000019.png"
    picture.write_bytes(b"broken")
    problems = check_dataset(NAME, tmp_path / "out", "test").problems
    assert [(problem.kind, problem.file) for problem in problems] == [("unreadable", picture)]
    shutil.rmtree(tmp_path / "out/annotations_instances")
    with pytest.raises(UsageError, match="prepare the data set into a new folder"):
        open_dataset(NAME, tmp_path / "out").with_instances()
