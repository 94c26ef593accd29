"""Few-shot splits: the rule, its seed, and lists from elsewhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partclipseg.data.datasets import open_dataset
from partclipseg.data.few_shot import FewShot, FewShotSplit, draw_photos, interchange_path
from partclipseg.errors import UsageError
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import ObjectPart

PAIRS = tuple(ObjectPart(*pair) for pair in (("dog", "ear"), ("dog", "tail"), ("cat", "ear"), ("bus", "wheel")))


def many(number: int = 60) -> dict[str, set[int]]:
    """Photos of dogs' ears, of which every fourth shows a cat, and one of a dog's tail."""
    photos = {f"p{place:03}": {0, 2} if place % 4 == 0 else {0} for place in range(number)}
    return {**photos, "p999": {0, 1}}


def test_every_object_has_its_shots_and_every_class_a_photo() -> None:
    classes = many()
    for seed in range(5):
        chosen = draw_photos(classes, PAIRS, 4, seed)
        cats, dogs = ([key for key in chosen if label in classes[key]] for label in (2, 0))
        assert len(cats) == 4  # the rarer object first: the dogs in its photos count as the dog's shots
        assert len(dogs) in (4, 5)
        assert "p999" in chosen  # the only photo of a dog's tail
        assert chosen == sorted(chosen)


def test_fewer_photos_than_shots_are_all_taken() -> None:
    assert draw_photos({"a": {0}, "b": {3}, "c": set()}, PAIRS, 16, 0) == ["a", "b"]


@pytest.mark.parametrize(
    ("shots", "said"),
    [
        (16, "shots 16: 2 of the 3 objects have fewer photos, such as bus with 0: all of theirs are taken"),
        (15, "shots 15: 1 of the 3 objects has fewer photos, such as bus with 0"),
        (100, "shots 100: 3 of the 3 objects"),
    ],
)
def test_objects_with_fewer_photos_than_shots_are_named(
    shots: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    FewShot(shots=shots).draw(many(), PAIRS)
    assert said in caplog.text


def test_enough_photos_need_no_word(caplog: pytest.LogCaptureFixture) -> None:
    FewShot(shots=15).draw(many(), PAIRS[:3])
    assert not caplog.text


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=4), st.sets(st.integers(0, 3), max_size=3), max_size=30),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_the_rule(classes: dict[str, set[int]], shots: int, seed: int) -> None:
    chosen = draw_photos(classes, PAIRS, shots, seed)
    # The order of the files does not count.
    assert chosen == draw_photos(dict(reversed(classes.items())), PAIRS, shots, seed)
    for word in {pair.object for pair in PAIRS}:
        members = {label for label, pair in enumerate(PAIRS) if pair.object == word}
        having = [key for key in classes if classes[key] & members]
        assert sum(key in having for key in chosen) >= min(shots, len(having))
    labelled = set().union(*classes.values()) if classes else set()
    assert set().union(*(classes[key] for key in chosen)) == labelled if chosen else not labelled


def test_a_seed_gives_the_same_split_everywhere() -> None:
    def digest(seed: int) -> str:
        return hashlib.sha256(" ".join(draw_photos(many(), PAIRS, 4, seed)).encode()).hexdigest()[:12]

    assert [digest(seed) for seed in range(3)] == ["7d3ca64df5a7", "8596f505e7d9", "a5433cfe619a"]


def test_a_split_is_read_back_and_exchanged(tmp_path: Path) -> None:
    split = FewShotSplit(("2008_1", "2008_2"), 16, 3)
    photos = [Path("/x/voc/images/train") / f"{key}.jpg" for key in split.files]
    paths = [interchange_path(photo, Path("/x/voc"), "pascal-part-116") for photo in photos]
    split.write(KeptFiles(tmp_path, "train"), paths)
    assert FewShotSplit.read(tmp_path / "few-shot.json") == split
    assert (tmp_path / "few-shot.json").read_text() == split.to_json()
    theirs = tmp_path / "train_16shot.json"
    assert json.loads(theirs.read_text())[0] == {"file_name": "datasets/PascalPart116/images/train/2008_1.jpg"}
    assert FewShotSplit.read(theirs) == FewShotSplit(split.files)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("[", "is not valid JSON"),
        ("{}", "it lists no photo: expected"),
        ("[]", "it lists no photo: expected"),
        ("3", "it lists no photo: expected"),
        ('{"files": []}', "it lists no photo: expected"),
        ('{"files": {"a": 1}}', "it lists no photo: expected"),
        ('[{"id": 3}]', "{'id': 3} is no photo: expected"),
        ('["a", {"file_name": 3}]', "{'file_name': 3} is no photo: expected"),
        ('{"files": ["a", 3]}', "3 is no photo: expected"),
        ('["images/", "a"]', "'images/' is no photo: expected"),
        ('["a", " .jpg"]', "' .jpg' is no photo: expected"),
    ],
)
def test_other_lists_are_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        FewShotSplit.read(path)


@pytest.mark.parametrize("name", ["/a/b/2008_1.jpg", "C:\\data\\2008_1.JPEG", "2008_1", "datasets/x/2008_1.png"])
def test_photos_are_compared_by_the_last_part_of_their_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([{"file_name": name, "category_id": 3}]))
    assert FewShotSplit.read(tmp_path / "list.json").files == ("2008_1",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shots": -1}, "shots must not be negative"),
        ({"shot_seed": -1}, "shot_seed must not be negative"),
        ({"shots": 1, "shot_list": "x"}, "not both"),
        ({"shot_seed": 5}, "shot_seed chooses photos for shots: give shots too"),
        ({"shot_seed": 5, "shot_list": "x"}, "shot_seed chooses photos for shots"),
        ({"shots": 1.5}, "few-shot: shots is 1.5"),
    ],
)
def test_wrong_choices_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FewShot(**values)


@pytest.mark.parametrize("fixture", ["pascal", "ade20k"])
def test_both_benchmarks_are_drawn_from_their_files(fixture: str, request: pytest.FixtureRequest) -> None:
    names = {"pascal": ("pascal-part-116", "2008_1"), "ade20k": ("ade20k-part-234", "t")}
    root = request.getfixturevalue(fixture).root
    dataset = open_dataset(names[fixture][0], root, "train", "all")
    split = FewShot(shots=16, shot_seed=5).choose(dataset)
    assert split == FewShotSplit((names[fixture][1],), 16, 5)
    for path in root.glob("annotations_detectron2_part/*.json"):
        path.unlink()  # Pascal's lists save reading the maps
    assert FewShot(shots=16, shot_seed=5).choose(open_dataset(names[fixture][0], root, "train", "all")) == split
    (root / "list.json").write_text('["none"]')
    with pytest.raises(UsageError, match="names none of the photos"):
        FewShot(shot_list=str(root / "list.json")).choose(dataset)


def test_photos_of_a_list_that_are_not_there_are_named(pascal, caplog: pytest.LogCaptureFixture) -> None:
    dataset = open_dataset("pascal-part-116", pascal.root, "train", "all")
    path = pascal.json("list.json", ["2008_1.jpg", "2008_7.jpg", "2008_8.jpg"])
    assert "2008_1" in FewShot(shot_list=str(path)).choose(dataset).files
    assert "2 of its 3 photos are no training photos of pascal-part-116, such as 2008_7" in caplog.text


def test_real_photos(shared: Path) -> None:
    dataset = open_dataset("pascal-part-116", shared / "data/PascalPart116", "train", "all")
    splits = [FewShot(shots=1, shot_seed=seed).choose(dataset).files for seed in (0, 0, 1)]
    assert splits[0] == splits[1]
    source = dataset.records[0].source
    labels = {record.photo.key: set(source.part_labels(record.photo)) for record in dataset.records}
    assert set().union(*(labels[key] for key in splits[0])) == set().union(*labels.values())
