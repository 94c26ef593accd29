"""Data set, scenes rendered ahead, layout on disk and contact sheet give what the renderer gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.shapes.cache import render_split
from partclipseg.shapes.contact_sheet import contact_sheet
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.shapes.layout import PartShapesFolder, write_layout
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.scene import Scene
from partclipseg.shapes.world import partshapes_world

WORLD = partshapes_world()


def same(one: Scene, other: Scene) -> bool:
    names = ("image", "parts", "objects", "instances")
    return (one.members, one.key) == (other.members, other.key) and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in names
    )


# -- data set -------------------------------------------------------------------------------------------------


def test_full_vocabulary_keeps_the_labels() -> None:
    dataset = PartShapesDataset("test", 5, 64)
    assert len(dataset) == len(list(dataset)) == 5
    for index, sample in enumerate(dataset):
        scene = render_scene("test", index, 64)
        assert sample.part_labels.dtype == sample.object_labels.dtype == np.int32
        assert np.array_equal(sample.part_labels, scene.parts)
        assert np.array_equal(sample.object_labels, scene.objects)
        assert sample.instances is not None
        assert sample.instances.dtype == np.int32
        assert np.array_equal(sample.instances, scene.instances)
        assert sample.key == f"test/{index}"


def test_seen_vocabulary_leaves_unseen_objects_outside() -> None:
    every, seen = PartShapesDataset("train", 60, 64), PartShapesDataset("train", 60, 64, "seen")
    outside = 0
    for full, sample in zip(every, seen, strict=True):
        names = np.array([*every.vocabulary.names, ""])[full.part_labels]
        objects = np.array([*every.vocabulary.objects, ""])[full.object_labels]
        unseen = np.isin(objects, WORLD.unseen_objects)
        outside += int(unseen.any())
        assert np.array_equal(sample.object_labels == OUTSIDE, unseen)
        assert (sample.part_labels[unseen] == UNLABELLED).all()
        assert np.array_equal(sample.object_labels == UNLABELLED, full.object_labels == UNLABELLED)
        kept = sample.part_labels != UNLABELLED
        assert np.array_equal(kept, (full.part_labels != UNLABELLED) & ~unseen)
        assert np.array_equal(np.array(seen.vocabulary.names)[sample.part_labels[kept]], names[kept])
        assert np.array_equal(np.array(seen.vocabulary.objects)[sample.object_labels[kept]], objects[kept])
    assert outside > 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"length": 0}, UsageError, "at least 1"),
        ({"length": 3, "vocabulary": "unseen"}, UsageError, "'all' or 'seen'"),
        ({"length": 3, "split": "half", "reach": 0}, UsageError, "no split 'half'"),
        ({"length": 3, "reach": 3}, IndexError, "scene 3 of 3"),
    ],
)
def test_wrong_data_sets_are_named(arguments: dict, error: type[Exception], message: str) -> None:
    arguments = {"split": "train", "size": 32, **arguments}
    reach = arguments.pop("reach", 0)
    with pytest.raises(error, match=message):
        PartShapesDataset(**arguments)[reach]


# -- rendered ahead -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_arrays_equal_direct_rendering(workers: int) -> None:
    arrays = render_split("base", 70, 32, workers=workers)
    assert len(arrays) == 70
    assert arrays.size == 32
    # 64 scenes make a chunk: both sides of its border are looked at.
    for index in (0, 1, 40, 63, 64, 69):
        assert same(arrays[index], render_scene("base", index, 32))
    assert len(list(arrays)) == 70


def test_a_folder_is_used_again(tmp_path: Path) -> None:
    arrays = render_split("train", 4, 32, tmp_path, workers=1)
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "scenes.json").read_text())["count"] == 4
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = render_split("train", 4, 32, tmp_path, workers=1)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert all(same(again[index], arrays[index]) for index in range(4))
    render_split("train", 5, 32, tmp_path, workers=1)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    render_split("train", 2, 32, tmp_path, workers=1)
    (folder,) = tmp_path.iterdir()
    if damage == "missing":
        (folder / "objects.npy").unlink()
    elif damage == "cut":
        content = (folder / "images.npy").read_bytes()
        (folder / "images.npy").write_bytes(content[: len(content) // 2])
    else:
        np.save(folder / "parts.npy", np.zeros((2, 16, 16), np.int16))
    with pytest.raises(PartCLIPSegError, match="delete it to render anew"):
        render_split("train", 2, 32, tmp_path, workers=1)


def test_a_data_set_takes_rendered_scenes() -> None:
    arrays = render_split("val", 3, 32, workers=1)
    ready, fresh = PartShapesDataset("val", 3, 32, "seen", arrays), PartShapesDataset("val", 3, 32, "seen")
    for one, other in zip(ready, fresh, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.part_labels, other.part_labels)
        assert np.array_equal(one.object_labels, other.object_labels)
    with pytest.raises(UsageError, match="3 of 'val' at 32 pixels, not 4 of 'val'"):
        PartShapesDataset("val", 4, 32, "seen", arrays)


def test_no_scenes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        render_split("val", 0)


# -- layout ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_layout(tmp_path, "train", 4, 48)
    write_layout(tmp_path, "test", 2, 48)
    return tmp_path


@pytest.mark.parametrize("words", ["all", "seen"])
def test_layout_round_trip(folder: Path, words: str) -> None:
    for split, count in (("train", 4), ("test", 2)):
        read = PartShapesFolder(folder, split, words)  # pyright: ignore[reportArgumentType]
        fresh = PartShapesDataset(split, count, 48, words)  # pyright: ignore[reportArgumentType]
        assert read.vocabulary == fresh.vocabulary
        assert len(read) == count
        for one, other in zip(read, fresh, strict=True):
            for name in ("image", "part_labels", "object_labels"):
                assert np.array_equal(getattr(one, name), getattr(other, name))
                assert getattr(one, name).dtype == getattr(other, name).dtype
        assert [sample.key for sample in read] == [f"{split}-{index:06d}" for index in range(count)]
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def rewrite(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "images/train-000001.png").unlink(), "images/train-000001.png is missing"),
        (
            lambda root: (root / "parts/train-000001.png").write_bytes(b"no"),
            "parts/train-000001.png cannot be read",
        ),
        (
            lambda root: rewrite(root / "objects/train-000001.png", np.zeros((48, 48, 3), np.uint8)),
            "mode RGB",
        ),
        (
            lambda root: rewrite(root / "objects/train-000001.png", np.zeros((24, 48), np.uint8)),
            "48x24 pixels",
        ),
        (
            lambda root: rewrite(root / "objects/train-000001.png", np.full((48, 48), 200, np.uint8)),
            "label 200",
        ),
    ],
)
def test_damaged_files_are_named(folder: Path, damage, message: str) -> None:
    damage(folder)
    samples = PartShapesFolder(folder, "train")
    assert samples[0].image.shape == (48, 48, 3)
    with pytest.raises(PartCLIPSegError, match=message):
        samples[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "world.json is missing"), ("{", "is not valid JSON"), ("{}", "lacks object_parts")],
)
def test_damaged_descriptions_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "world.json").write_text(content)
    with pytest.raises(PartCLIPSegError, match=message):
        PartShapesFolder(tmp_path, "train")


def test_wrong_layout_calls_are_named(folder: Path) -> None:
    with pytest.raises(UsageError, match="no split 'val': it has train, test"):
        PartShapesFolder(folder, "val")
    with pytest.raises(UsageError, match="at least 1"):
        write_layout(folder, "val", 0)
    description = json.loads((folder / "world.json").read_text())
    (folder / "world.json").write_text(json.dumps({**description, "version": 0}))
    with pytest.raises(PartCLIPSegError, match="another version"):
        write_layout(folder, "val", 1, 32)


# -- contact sheet --------------------------------------------------------------------------------------------


def test_contact_sheet_holds_every_picture() -> None:
    scenes = [render_scene("test", index, 64) for index in range(3)]
    page = np.asarray(contact_sheet(scenes, columns=2))
    cell = (page.shape[1] - 6) // 2
    for number, scene in enumerate(scenes):
        top, left = 6 + number // 2 * 70, 6 + number % 2 * cell
        assert np.array_equal(page[top : top + 64, left : left + 64], scene.image)
        overlay = page[top : top + 64, left + 64 : left + 128].astype(int)
        # Background is drawn grey, parts in colour (except for their dark borders).
        colourful = np.ptp(overlay, axis=2) > 20
        assert not colourful[scene.parts < 0].any()
        assert colourful[scene.parts >= 0].mean() > 0.5


def test_wrong_contact_sheets_are_named() -> None:
    scenes = [render_scene("test", 0, 32), render_scene("test", 0, 48)]
    for arguments in ((scenes, 2), ([], 2), (scenes[:1], 0)):
        with pytest.raises(UsageError, match="contact sheet"):
            contact_sheet(*arguments)
