"""PartImageNet_OOD and PartImageNet++ into their layouts, from sources in the form of the released ones."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.data.check import check_dataset
from partclipseg.data.prepare.part_imagenet_ood import PartImageNetOODRecipe
from partclipseg.data.prepare.part_imagenet_pp import PartImageNetPPRecipe
from partclipseg.data.prepare.runner import prepare
from partclipseg.data.prepare.source import open_sources
from partclipseg.errors import PartCLIPSegError

CATEGORIES = [{"id": 0, "name": "Quadruped Head"}, {"id": 1, "name": "Quadruped Body"}]
HEAD = [[1, 1, 5, 1, 5, 4, 1, 4]]


def photo() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (10, 8), (90, 0, 0)).save(content, "JPEG")
    return content.getvalue()


def annotations(name: str, categories: list[dict] = CATEGORIES) -> str:
    images = [{"id": 3, "file_name": name, "height": 8, "width": 10}]
    masks = [{"id": 5, "image_id": 3, "category_id": categories[0]["id"], "segmentation": HEAD}]
    return json.dumps({"images": images, "annotations": masks, "categories": categories})


@pytest.fixture
def ood_archive(tmp_path: Path) -> Path:
    """An archive of archives, as released."""
    path = tmp_path / "PartImageNet_OOD.zip"
    with zipfile.ZipFile(path, "w") as outer:
        for split, name in (("train", "n02129604_1.JPEG"), ("val", "n02422699_2.JPEG"), ("test", "n02100735_3.JPEG")):
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w") as archive:
                archive.writestr(f"{split}/{name.split('_')[0]}/{name}", photo())
                archive.writestr(f"{split}.json", annotations(name))
            outer.writestr(f"PartImageNet_OOD/{split}.zip", inner.getvalue())
    return path


def test_ood_from_an_archive_of_archives(ood_archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = prepare(PartImageNetOODRecipe(open_sources([ood_archive], output)), output)
    assert (dict(summary.photos), summary.failures) == ({"train": 1, "val": 1, "test": 1}, ())
    assert (output / "test/n02100735/n02100735_3.JPEG").is_file()
    report = check_dataset("part-imagenet-ood", output)
    assert report.ok
    assert [split.with_parts for split in report.splits] == [1, 1]
    again = prepare(PartImageNetOODRecipe(open_sources([ood_archive], output)), output)
    assert again.taken_over == 3


def test_what_a_recipe_does_not_count_has_no_row(ood_archive: Path, tmp_path: Path, capsys) -> None:
    command = ["prepare", "part-imagenet-ood", "--source", str(ood_archive), "--output", str(tmp_path / "out")]
    assert main([*command, "--workers", "1"]) == 0
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [(name.strip(), count.strip()) for name, count in rows] == [
        ("object-parts", "1"), ("photos in test", "1"), ("photos in train", "1"), ("photos in val", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize("photos", ["images/{split}", "{split}", "all"])
def test_ood_from_other_arrangements(photos: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for split, name in (("train", "n02129604_1.JPEG"), ("test", "n02100735_3.JPEG")):
        path = source / photos.format(split=split) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo())
        (source / "annotations").mkdir(exist_ok=True)
        (source / "annotations" / f"{split}.json").write_text(annotations(f"some/{name}"))
    prepare(PartImageNetOODRecipe([source]), tmp_path / "out")
    assert check_dataset("part-imagenet-ood", tmp_path / "out").ok


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("test.json", None, r"test\.json is not in the source: add the folder of PartImageNet_OOD"),
        ("test.json", "{}", "is not a COCO annotation file"),
        ("test.json", '{"images": [{}], "annotations": [], "categories": []}', "fetch it again"),
        ("test/b.JPEG", None, r"the photo b\.JPEG of test\.json is not in the source"),
    ],
)
def test_wrong_ood_sources_are_named(file: str, text: str | None, message: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for split, name in (("train", "a.JPEG"), ("test", "b.JPEG")):
        (source / split).mkdir(parents=True)
        (source / split / name).write_bytes(photo())
        (source / f"{split}.json").write_text(annotations(name))
    (source / file).unlink()
    if text is not None:
        (source / file).write_text(text)
    with pytest.raises(PartCLIPSegError, match=message):
        prepare(PartImageNetOODRecipe([source]), tmp_path / "out")


def test_pp_takes_its_photos_from_imagenet(tmp_path: Path) -> None:
    imagenet, release = tmp_path / "ILSVRC2012" / "train", tmp_path / "PartImageNetPP"
    (imagenet / "n01955084").mkdir(parents=True)
    for number in range(12):
        (imagenet / f"n01955084/n01955084_{number}.JPEG").write_bytes(photo())
    (release / "json").mkdir(parents=True)
    (release / "including").mkdir()
    categories = [{"id": 1, "name": "body"}, {"id": 2, "name": "shell"}]
    contents = [json.loads(annotations(f"n01955084_{n}.JPEG", categories)) for n in range(11)]
    merged = {"images": [], "annotations": [], "categories": categories}
    for number, content in enumerate(contents):
        merged["images"].append({**content["images"][0], "id": number})
        merged["annotations"].append({**content["annotations"][0], "id": number, "image_id": number})
    (release / "json/n01955084.json").write_text(json.dumps(merged))
    (release / "including/n01955084.txt").write_text("shell:body")
    (release / "discarded_data.json").write_text('[{"file_name": "n01955084_4.JPEG"}]')
    (tmp_path / "ILSVRC2012/LOC_synset_mapping.txt").write_text("n01955084 chiton\n")
    output = tmp_path / "out"
    summary = prepare(PartImageNetPPRecipe([release, tmp_path / "ILSVRC2012"]), output)
    assert (sum(summary.photos.values()), len(list(output.glob("images/*/*")))) == (11, 11)
    report = check_dataset("part-imagenet-pp", output)
    assert report.ok
    assert [(split.photos, sum(split.classes)) for split in report.splits] == [(9, 9), (1, 1)]
    assert "1 photo of low quality" in str(report.notes[0])


@pytest.mark.parametrize(
    ("folder", "message"),
    [("empty", r"there is no json/SYNSET\.json"), ("release", "the photo a.JPEG of n01.json is not in the source")],
)
def test_wrong_pp_sources_are_named(folder: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "release/json").mkdir(parents=True)
    (tmp_path / "release/json/n01.json").write_text(annotations("a.JPEG"))
    with pytest.raises(PartCLIPSegError, match=message):
        prepare(PartImageNetPPRecipe([tmp_path / folder]), tmp_path / "out")
