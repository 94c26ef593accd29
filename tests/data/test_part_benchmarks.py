"""Part data of today: PartImageNet's OOD split, PartImageNet++, InstructPart and PARTONOMY-Core, made up in small."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg.data.check import check_dataset
from partclipseg.data.datasets import open_dataset
from partclipseg.data.datasets.instructpart import InstructPart
from partclipseg.data.datasets.part_imagenet_pp import PartImageNetPP
from partclipseg.errors import PartCLIPSegError, UsageError

FIXTURES = {
    "part-imagenet-ood": "part_imagenet_ood",
    "part-imagenet-pp": "part_imagenet_pp",
    "instructpart": "instructpart",
    "partonomy-core": "partonomy_core",
}


def root_of(name: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(FIXTURES[name]).root


def part_names(sample: Any, names: tuple[str, ...]) -> list[list[str]]:
    return [[names[label].split("'s ")[1] if label >= 0 else "" for label in row] for row in sample.part_labels]


@pytest.mark.parametrize("name", FIXTURES)
def test_sound_data_are_well(name: str, request: pytest.FixtureRequest) -> None:
    report = check_dataset(name, root_of(name, request))
    assert report.ok, report.summary()
    assert all(split.sound == split.with_parts == split.photos > 0 for split in report.splits)
    assert not any(note.kind == "missing split" for note in report.notes), "PARTONOMY-Core is for testing only"
    assert len(set(report.notes)) == len(report.notes), "what is said of a file for both splits is said once"


def test_ood_objects_are_the_kinds_of_the_file(part_imagenet_ood) -> None:
    test = open_dataset("part-imagenet-ood", part_imagenet_ood.root)
    assert (len(test.vocabulary), len(test.vocabulary.objects), len(test.seen)) == (40, 11, 40)
    assert test.keys() == ("n02422699_7",)
    head, body = ["head"] * 2 + ["body"] * 4, ["body"] * 6
    assert part_names(test[0], test.vocabulary.names) == [head, body, [""] * 6, [""] * 6]
    assert (test[0].object_labels[:2] == test.vocabulary.object_index("quadruped")).all()
    assert open_dataset("part-imagenet-ood", part_imagenet_ood.root, "train").keys() == ("n02423022_1",)


def test_pp_takes_names_splits_and_hierarchy_from_its_lists(part_imagenet_pp) -> None:
    train, test = (open_dataset("part-imagenet-pp", part_imagenet_pp.root, split) for split in ("train", "test"))
    assert train.vocabulary.names == ("chiton's body", "chiton's shell", "crane's wing")
    assert (len(train), test.keys()) == (9 + 9, ("n01955084_9",))  # one of the cranes is discarded
    row = ["shell"] * 3 + ["body"] * 3
    assert part_names(test[0], test.vocabulary.names) == [row, row, [""] * 6, [""] * 6]
    source = test.records[0].source
    assert isinstance(source, PartImageNetPP)
    assert [(inner.part, outer.part) for inner, outer in source.inside] == [("shell", "body")]
    part_imagenet_pp.text("test.txt", "n02012849_0.JPEG\nn02012849_1\n")
    listed = open_dataset("part-imagenet-pp", part_imagenet_pp.root)
    assert listed.keys() == ("n02012849_0", "n02012849_1")


def test_pp_objects_of_one_name_take_their_next(part_imagenet_pp) -> None:
    content = "n01955084 crane, chiton\nn02012849 crane, wading bird\n"
    part_imagenet_pp.text("LOC_synset_mapping.txt", content)
    words = open_dataset("part-imagenet-pp", part_imagenet_pp.root).vocabulary.objects
    assert words == ("crane", "wading bird")


@pytest.mark.parametrize(
    "content", [{"n01955084": "chiton", "n02012849": "crane"}, {"n01955084": {"name": "chiton"}, "n02012849": "crane"}]
)
def test_pp_names_may_stand_in_category_name(part_imagenet_pp, content: Any) -> None:
    (part_imagenet_pp.root / "LOC_synset_mapping.txt").unlink()
    part_imagenet_pp.json("category_name.json", content)
    assert open_dataset("part-imagenet-pp", part_imagenet_pp.root).vocabulary.objects == ("chiton", "crane")


def test_instructpart_has_a_part_and_questions_for_each_photo(instructpart) -> None:
    train, test = (open_dataset("instructpart", instructpart.root, split) for split in ("train", "test"))
    assert (train.keys(), train.vocabulary.names) == (("p0-kettle-handle",), ("kettle's handle",))
    assert test.keys() == ("p0-kettle-spout", "p1-pair_of_scissors-blade")
    assert test.vocabulary.names == ("kettle's spout", "pair of scissors's blade")
    assert (test[1].part_labels[0].tolist(), (test[1].part_labels >= 0).sum()) == ([1, 1, -1, -1, -1, -1], 2)
    source = test.records[0].source
    assert isinstance(source, InstructPart)
    assert source.instructions["p0-kettle-spout"][1] == "Lift the kettle."


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_instructpart_masks_may_be_of_any_mode(instructpart, mode: str) -> None:
    path = instructpart.root / "test/masks/p0-kettle-spout.png"
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2:5] = 255
    image = Image.fromarray(mask // 255, "P") if mode == "P" else Image.fromarray(mask).convert(mode)
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 0])
    image.save(path)
    sample = open_dataset("instructpart", instructpart.root)[0]
    assert np.argwhere(sample.part_labels == 0).tolist() == [[1, 2], [1, 3], [1, 4]]


def test_instructpart_masks_may_be_jpeg_files(instructpart) -> None:
    """JPEG blurs the edge of a mask, so that pixels beside the part are not 0."""
    (instructpart.root / "test/masks/p0-kettle-spout.png").unlink()
    mask = np.zeros((40, 60), np.uint8)
    mask[11:29, 13:47] = 255
    Image.fromarray(mask).save(instructpart.root / "test/masks/p0-kettle-spout.jpg", quality=60)
    Image.new("RGB", (60, 40)).save(instructpart.root / "test/images/p0-kettle-spout.jpg")
    assert (np.asarray(Image.open(instructpart.root / "test/masks/p0-kettle-spout.jpg"))[mask == 0] > 0).any()
    sample = open_dataset("instructpart", instructpart.root)[0]
    assert np.array_equal(sample.part_labels == 0, mask > 0)
    assert check_dataset("instructpart", instructpart.root).ok


def test_instructpart_has_one_mask_for_each_photo(instructpart) -> None:
    path = instructpart.root / "test/masks/p0-kettle-spout.png"
    Image.new("L", (6, 4)).save(path.with_suffix(".jpg"))
    with pytest.raises(PartCLIPSegError, match=r"spout\.jpg: p0-kettle-spout\.png beside it has the same name but for"):
        open_dataset("instructpart", instructpart.root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_root_of_instructpart_is_proposed_for_a_folder_in_it(instructpart, split: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{instructpart.root} has: use --data {instructpart.root}") + "$"):
        check_dataset("instructpart", instructpart.root / split)


@pytest.mark.parametrize("other", ["part-imagenet-ood", "part-imagenet-pp"])
@pytest.mark.parametrize("name", ["instructpart", "partonomy-core"])
def test_a_folder_of_another_benchmark_is_told(name: str, other: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(UsageError, match=f"is not the root of {name}|holds {other}, not {name}"):
        check_dataset(name, root_of(other, request))


def test_instructpart_may_lie_in_the_folders_of_its_archive(instructpart) -> None:
    inner = instructpart.root.with_name("archive") / "instructpart_part" / "InstructPart"
    inner.parent.mkdir(parents=True)
    instructpart.root.rename(inner)
    assert len(open_dataset("instructpart", inner.parents[1])) == 2


def test_partonomy_reads_questions_and_names(partonomy_core) -> None:
    dataset = open_dataset("partonomy-core", partonomy_core.root)
    assert dataset.vocabulary.names == ("agricultural airplane's wing", "agricultural airplane's tail", "mug's handle")
    row = ["wing", "", "", "", "tail", "tail"]
    assert part_names(dataset[0], dataset.vocabulary.names) == [row] * 4


def test_partonomy_without_names_uses_the_concept(partonomy_core) -> None:
    (partonomy_core.root / "object_names_to_nl.json").unlink()
    content = json.loads((partonomy_core.root / "questions.json").read_text())
    words = open_dataset("partonomy-core", partonomy_core.root).vocabulary.objects
    assert words == ("agricultural", "mug")
    drone = {**content[2], "image_label": "drones--agricultural"}  # two categories with one concept
    partonomy_core.json("questions.json", [*content[:2], drone])
    words = open_dataset("partonomy-core", partonomy_core.root).vocabulary.objects
    assert words == ("agricultural airplanes", "agricultural drones")


@pytest.mark.parametrize("form", ["descriptor", "masks"])
def test_partonomy_reads_its_other_forms(partonomy_core, form: str) -> None:
    expected = open_dataset("partonomy-core", partonomy_core.root)[0].part_labels
    questions = partonomy_core.root / "questions.json"
    content = json.loads(questions.read_text())
    questions.unlink()
    if form == "descriptor":
        partonomy_core.json("core.json", {"dataset_name": "core", "instances": content, "part_graph": {}})
    else:
        for entry in content:
            for place, (part, masks) in enumerate(entry["segmentations"].items()):
                concept = f"{entry['image_label']}--part:{part.split(':')[-1]}"
                for mask in masks:
                    file = f"masks/{concept}/{place}.json"
                    partonomy_core.json(file, {**mask, "image_path": entry["image_path"]})
        whole = {"image_path": "images/kitchen--mug/m.jpg", "size": [4, 6], "counts": [24]}
        partonomy_core.json("masks/kitchen--mug/0.json", whole)
    dataset = open_dataset("partonomy-core", partonomy_core.root)
    names = dataset.vocabulary.names
    found = {name: (dataset[0].part_labels == names.index(name)).sum() for name in names}
    assert found == {"agricultural airplane's wing": 4, "agricultural airplane's tail": 8, "mug's handle": 0}
    assert ((dataset[0].part_labels >= 0) == (expected >= 0)).all()


def test_partonomy_is_for_testing(partonomy_core) -> None:
    with pytest.raises(PartCLIPSegError, match="has test photos only"):
        open_dataset("partonomy-core", partonomy_core.root, "train")


# -- what is broken ------------------------------------------------------------------------------------------------


def edit(file: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content))

    return apply


def write(file: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / file).write_text(text)


def remove(file: str) -> Callable[[Path], object]:
    return lambda root: (root / file).unlink()


def nowhere(file: str) -> Callable[[Path], object]:
    return lambda root: ((root / file).unlink(missing_ok=True), (root / file).symlink_to("/nowhere/file"))


def folder(file: str) -> Callable[[Path], object]:
    return lambda root: ((root / file).unlink(missing_ok=True), (root / file).mkdir())


SHARES = [0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9]


def paint_mask(size: tuple[int, int]) -> Callable[[Path], object]:
    return lambda root: Image.new("L", size, 0).save(root / "test/masks/p0-kettle-spout.png")


CHITON, LIST, QUESTIONS = "json/n01955084.json", "test/data_test.json", "questions.json"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("part-imagenet-ood", edit("test.json", lambda c: c["categories"][0].update(name="Dragon Head")),
         "test.json: the category 'Dragon Head' is none of PartImageNet's 40"),
        ("part-imagenet-ood", edit("test.json", lambda c: c["images"][0].update(width=7)), "test.json says 7x4"),
        ("part-imagenet-ood", edit("test.json", lambda c: c["images"][0].update(file_name="../a.JPEG")),
         "it leads out of"),
        ("part-imagenet-ood", edit("test.json", lambda c: c["images"].append({**c["images"][0], "id": 5})),
         "are the same photo n02422699_7"),
        ("part-imagenet-ood", edit("test.json", lambda c: c["annotations"][0].update(segmentation=[[0, 0, 2]])),
         "annotation 8 of n02422699_7: a polygon is not a list"),
        ("part-imagenet-ood", edit("test.json", lambda c: c["annotations"][0].update(segmentation=[])),
         "annotation 8 of n02422699_7 covers no pixel"),
        ("part-imagenet-ood", edit("test.json", lambda c: c.update(annotations=[])), "nothing is labelled"),
        ("part-imagenet-ood", remove("test/n02422699/n02422699_7.JPEG"), "the photo is missing"),
        ("part-imagenet-ood", remove("test.json"), "test.json is missing"),
        ("part-imagenet-pp", remove("LOC_synset_mapping.txt"), "the object n01955084 has no name: put ImageNet's list"),
        ("part-imagenet-pp", write("LOC_synset_mapping.txt", "n01955084\n"), "line 1 is not a synset and its names"),
        ("part-imagenet-pp", write("including/n01955084.txt", "shell"), "line 1, 'shell', is not a part and the part"),
        ("part-imagenet-pp", write("including/n01955084.txt", "shell:horn"), "'horn', which is no category of chiton"),
        ("part-imagenet-pp", write("including/n01955084.txt", "shell:body\nbody:shell"), "parts lie in each other"),
        ("part-imagenet-pp", write("including/n01955084.txt", "body:body"), "parts lie in each other (body in body)"),
        ("part-imagenet-pp", write("discarded_data.json", "{}"), "discarded_data.json: lists None, which is no photo"),
        ("part-imagenet-pp", write("discarded_data.json", "["), "is not a list of photos, since it is not valid JSON"),
        ("part-imagenet-pp", write("category_name.json", "x"), "is not a list of names, since it is not valid JSON"),
        ("part-imagenet-pp", write(CHITON, "{}"), "is not a COCO annotation file"),
        ("part-imagenet-pp", edit(CHITON, lambda c: c["images"].append({**c["images"][0], "id": 77})),
         "are the same photo n01955084_0"),
        ("part-imagenet-pp", edit(CHITON, lambda c: c["images"][0].update(file_name="n02012849_0.JPEG")),
         "the photo n02012849_0 is also listed in n01955084.json"),
        ("part-imagenet-pp", edit(CHITON, lambda c: c["images"][0].update(file_name="")), "it names no file"),
        ("part-imagenet-pp", remove("images/n01955084/n01955084_9.JPEG"), "the photo is missing"),
        ("part-imagenet-ood", edit("test.json", lambda c: c["annotations"][0].update(segmentation=[SHARES])),
         "its outline lies between 0 and 1: write pixels"),
        ("part-imagenet-pp", edit(CHITON, lambda c: c["annotations"][-1].update(segmentation=[SHARES, SHARES])),
         "its outline lies between 0 and 1: write pixels"),
        ("partonomy-core", edit(QUESTIONS, lambda c: c[2]["segmentations"]["handle"][0].update(polygon=SHARES)),
         "its outline lies between 0 and 1: write pixels"),
        ("part-imagenet-pp", write("LOC_synset_mapping.txt", "n01955084 chiton\nn02012849 crane\nn01955084 slug\n"),
         "line 3 names n01955084 a second time: keep one line"),
        ("part-imagenet-pp", write("test.txt", "n02012849_0\nn02012849_99.JPEG\n"),
         "test.txt: names 'n02012849_99', which no file of json lists"),
        *((name, damage(file), message)
          for name, file in (("part-imagenet-pp", "test.txt"), ("part-imagenet-pp", "discarded_data.json"),
                             ("part-imagenet-pp", "category_name.json"), ("part-imagenet-pp", "LOC_synset_mapping.txt"),
                             ("part-imagenet-pp", "including/n01955084.txt"),
                             ("partonomy-core", "object_names_to_nl.json"))
          for damage, message in ((nowhere, "a link that leads nowhere"), (folder, "is a folder"))),
        ("instructpart", remove(LIST), "data_test.json: the list of parts is missing"),
        ("instructpart", write(LIST, "{}"), "is not InstructPart's list of photos"),
        ("instructpart", write(LIST, ""), "is empty"),
        ("instructpart", edit(LIST, lambda c: c[0].pop("part_list")), "entry 0 has no image_path with a part_list"),
        ("instructpart", edit(LIST, lambda c: c.__setitem__(0, 3)), "entry 0 has no image_path with a part_list"),
        ("instructpart", edit(LIST, lambda c: c[0]["part_list"][0].update(part="")), "without an object and a part"),
        ("instructpart", edit(LIST, lambda c: c[0]["part_list"][0].update(instruction={})), "is no list of sentences"),
        ("instructpart", edit(LIST, lambda c: c[0]["part_list"].append(c[0]["part_list"][0])),
         "entry 0 names kettle's spout of p0 twice"),
        ("instructpart", edit(LIST, lambda c: c[0].update(image_path="a/../..")), "the photo is missing"),
        ("instructpart", edit(LIST, lambda c: c.pop(0)), "p0-kettle-spout.png: is not named in data_test.json"),
        ("instructpart", remove("test/masks/p0-kettle-spout.png"), "the mask is missing"),
        ("instructpart", write("test/masks/p0-kettle-spout.png", "x"), "cannot be read"),
        ("instructpart", paint_mask((7, 4)), "is 7x4, but its photo is 6x4"),
        ("instructpart", paint_mask((6, 4)), "nothing is labelled in this photo"),
        ("instructpart", remove("test/images/p0-kettle-spout.jpg"), "the photo is missing"),
        ("partonomy-core", write(QUESTIONS, "3"), "is neither a list of questions nor a descriptor"),
        ("partonomy-core", write(QUESTIONS, "null"), "holds nothing"),
        ("partonomy-core", write(QUESTIONS, "[]"), "no photo with part masks is listed"),
        ("partonomy-core", edit(QUESTIONS, lambda c: c[0].pop("image_label")), "entry 0 has no image_path, "),
        ("partonomy-core", edit(QUESTIONS, lambda c: c[1].update(image_label="drones--combat")),
         "entry 1 calls the object of"),
        ("partonomy-core", edit(QUESTIONS, lambda c: c[2]["segmentations"].update(handle=[{"bbox": [0, 0, 1, 1]}])),
         "the part 'handle' of entry 2 has a mask without run lengths"),
        ("partonomy-core", edit(QUESTIONS, lambda c: c[2]["segmentations"].update(handle=[])), "has a mask without"),
        ("partonomy-core", edit(QUESTIONS, lambda c: c[2]["segmentations"]["handle"][0].update(size=[9, 9])),
         "questions.json says 9x9"),
        ("partonomy-core", edit(QUESTIONS, lambda c: c[2].update(image_path="images/../../m.jpg")), "it leads out of"),
        ("partonomy-core", write("object_names_to_nl.json", "[1]"), "is no mapping from concept to words"),
        ("partonomy-core", remove("images/kitchen--mug/m.jpg"), "the photo is missing"),
    ],
)  # fmt: skip
def test_what_is_broken_is_said(name: str, damage: Callable, message: str, request: pytest.FixtureRequest) -> None:
    damage(root_of(name, request))
    assert message in said_of(name, root_of(name, request))


def said_of(name: str, root: Path) -> str:
    """What a check says, or the error that keeps it from beginning."""
    try:
        return check_dataset(name, root).summary(100)
    except PartCLIPSegError as error:
        return str(error)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("part-imagenet-ood", "is not the root of part-imagenet-ood: test.json is missing"),
        ("part-imagenet-pp", "is not the root of part-imagenet-pp: json is missing"),
        ("instructpart", "has no folder .* of InstructPart"),
        ("partonomy-core", "is not the root of partonomy-core"),
    ],
)
def test_a_wrong_root_is_told(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    with pytest.raises(PartCLIPSegError, match=message):
        check_dataset(name, tmp_path / "a" / "b" / "c")
    with pytest.raises(PartCLIPSegError, match="no such folder"):
        check_dataset(name, tmp_path / "nowhere")
