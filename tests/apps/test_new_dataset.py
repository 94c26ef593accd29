"""A data set is one `DatasetSpec` and one line in `DATASETS`: every command then knows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.data.check import check_dataset
from partclipseg.data.datasets.registry import DATASETS, dataset_spec, open_dataset
from partclipseg.data.datasets.spec import DatasetSpec, OwnOptions, Preparation, Split
from partclipseg.data.label_map import label_table, read_label_map
from partclipseg.data.paths import files_by_stem
from partclipseg.data.prepare.recipe import Layout, Outcome, source_state
from partclipseg.data.sample import UNLABELLED
from partclipseg.data.source import FileDataset, SampleRecord, Source, SourceLabels, SourcePhoto
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.kept_files import KeptFiles
from partclipseg.training.data import open_training_data
from partclipseg.training.recipe import Recipe
from partclipseg.vocabulary import ObjectPart, Vocabulary

# -- the data set ---------------------------------------------------------------------------------------------------


class Toys(Source):
    """Photos in ``pictures``, label maps in ``masks``."""

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """See `Source.read_labels`."""
        table = label_table({0: 0, 1: 1, 255: UNLABELLED})
        parts = read_label_map(self.folders[1] / f"{photo.key}.png", table, 8, size)
        return SourceLabels(parts, np.full_like(parts, UNLABELLED))


def open_toys(root: Path, split: Split, own: OwnOptions) -> Toys:
    folders = root / "pictures" / split, root / "masks" / split
    photos = tuple(SourcePhoto(key, path) for key, path in files_by_stem(folders[0], frozenset({".png"})).items())
    word = own.get("object") or "robot"
    pairs = (ObjectPart(word, "arm"), ObjectPart(word, "wheel"))
    return Toys(root=root, split=split, object_parts=pairs, objects=(word,), photos=photos, folders=folders)


def toy_records(sources: Sequence[Source], vocabulary: Vocabulary, split: Split) -> list[SampleRecord]:
    return [SampleRecord(f"toy-{photo.key}", source, photo) for source in sources for photo in source.photos]


def toy_remark(dataset: FileDataset) -> str:
    return f"{len(dataset)} toys are few"


@dataclass(frozen=True)
class ToyJob:
    key: str
    split: str
    folder: Path

    def source(self) -> str:
        return source_state(*(self.folder / f"{self.key}.{kind}" for kind in ("pictures", "masks")))

    def run(self, layout: Layout) -> Outcome:
        for kind in ("pictures", "masks"):
            layout.place_photo(self.folder / f"{self.key}.{kind}", f"{kind}/{self.split}/{self.key}.png", "copy")
        return Outcome(self.key, self.split, parts=[0, 1], objects=[0])


@dataclass(frozen=True)
class ToyRecipe:
    folders: Sequence[Path]
    mode: str = "copy"
    name: str = "toys"

    def options(self) -> dict[str, Any]:
        return {}

    def jobs(self) -> list[ToyJob]:
        paths = sorted(path for folder in self.folders for path in folder.glob("*.pictures"))
        return [ToyJob(path.stem, "train" if place else "test", path.parent) for place, path in enumerate(paths)]

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        lists.text("list.txt", "\n".join(outcome.key for outcome in outcomes))


TOYS = DatasetSpec(
    name="toys",
    summary="robots and their parts",
    open_split=open_toys,
    layout={split: (f"pictures/{split}", f"masks/{split}") for split in ("train", "test")},
    raw=("*.pictures",),
    records=toy_records,
    options=frozenset({"object"}),
    preparation=Preparation(f"{__name__}:ToyRecipe", source="a folder of robots"),
    remark=toy_remark,
)
EXAM = replace(TOYS, trains=False)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "toys", f"{__name__}:TOYS")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three robots, as their maker delivers them."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for key in "abc":
        masks = np.full((48, 64), 255, np.uint8)
        masks[8:24, 8:40], masks[24:40, 8:40] = 0, 1
        Image.fromarray(np.random.default_rng(ord(key)).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(
            folder / f"{key}.pictures", "PNG"
        )
        Image.fromarray(masks).save(folder / f"{key}.masks", "PNG")
    return folder


@pytest.fixture
def root(raw: Path, tmp_path: Path) -> Path:
    command = ["prepare", "toys", "--source", str(raw), "--output", str(tmp_path / "toys"), "--workers", "1"]
    assert main(command) == 0
    return tmp_path / "toys"


# -- what knows it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["check-data"], ("index-png,toys}", "toys: robots and their parts.")),
        (["evaluate"], ("toys: robots and their parts.",)),
        (["prepare"], ("part-imagenet-pp,toys}", "toys: robots and their parts.", "toys: a folder of robots.")),
        (["train", "own-data"], ("index-png,toys}", "toys: robots and their parts.")),
    ],
)
def test_help_lists_it(command: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    assert main([*command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split()).replace(", ", ",")
    for word in words:
        assert word.replace(", ", ",") in said


def test_prepare_makes_it(root: Path, raw: Path, capsys: pytest.CaptureFixture) -> None:
    assert (root / "list.txt").read_text().split() == ["a", "b", "c"]
    assert sorted(path.name for path in (root / "pictures/train").iterdir()) == ["b.png", "c.png"]
    capsys.readouterr()
    assert main(["prepare", "toys", "--source", str(raw), "--output", str(root)]) == 0
    assert "3 photos were there from an earlier run" in capsys.readouterr().out
    assert main(["prepare", "toys", "--source", str(raw), "--output", str(root), "--val-list", "v.txt"]) == 2


def test_check_data_checks_it(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check-data", "toys", "--data", str(root), "--object", "droid"]) == 0
    assert "toys in" in capsys.readouterr().out
    (root / "masks/test/a.png").unlink()
    assert main(["check-data", "toys", "--data", str(root)]) == 1
    assert "a.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda root: root.parent, UsageError, r"probably .*/toys: use --data"),
        (lambda root: root.parent / "raw", UsageError, "raw source of toys: .* partclipseg prepare toys"),
        (lambda root: (root / "masks/test").rename(root / "away"), PartCLIPSegError, "masks/test"),
    ],
)
def test_a_wrong_root_has_its_hints(root: Path, change: Any, error: type, message: str) -> None:
    given = change(root)
    if given == root.parent / "raw":
        (root / "pictures").rename(root.parent / "gone")
    if given.name == "away":
        given = root
    with pytest.raises(error, match=message):
        open_dataset("toys", given)


def test_its_options_are_checked(root: Path) -> None:
    assert open_dataset("toys", root, object="droid").vocabulary.names == ("droid's arm", "droid's wheel")
    with pytest.raises(UsageError, match="--classes does not apply to toys"):
        open_dataset("toys", root, classes="c.txt")
    with pytest.raises(UsageError, match=r"choose one of .*index-png, toys"):
        check_dataset("toy", root)


def test_evaluate_scores_it_in_its_own_words(root: Path, model_directory: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(model_directory), "--dataset", "toys", "--data", str(root), "--device", "cpu"]
    assert main([*command, "--output", str(tmp_path / "report"), "--workers", "0", "--protocol", "pred_all"]) == 0
    report = json.loads((tmp_path / "report/scores.json").read_text())
    assert report["dataset"] == "toys"
    assert report["scores"]["pred_all"]["records"] == 1
    assert {entry["name"] for entry in report["scores"]["pred_all"]["classes"]} == {"robot's arm", "robot's wheel"}
    assert "1 toys are few" in (tmp_path / "report/report.md").read_text()


def test_train_opens_it(root: Path) -> None:
    data = open_training_data(Recipe(dataset="toys", held_out=1), root)
    assert data.vocabulary.names == ("robot's arm", "robot's wheel")
    assert {data.train[0].key, data.held_out[0].key} == {"toy-b", "toy-c"}


def test_what_is_not_for_training_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "toys", f"{__name__}:EXAM")
    with pytest.raises(UsageError, match=r"toys is not for training: choose one of pascal-part-116, .*index-png"):
        Recipe(dataset="toys")
    assert main(["train", "own-data", "--dataset", "toys", "--output", "x"]) == 2
    with pytest.raises(UsageError, match=r"unknown data set 'toyz': choose one of .*toys"):
        Recipe(dataset="toyz")


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_known_by_its_name(name: str) -> None:
    spec = dataset_spec(name)
    assert spec.name == name
    assert (spec.open_split is None) == (spec.rendering is not None)
    for made in filter(None, (spec.preparation, spec.rendering)):
        assert isinstance(made.load(), type)


def test_a_rendered_data_set_has_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"partshapes is rendered and has no files: choose one of .*toys"):
        open_dataset("partshapes", tmp_path)
    assert main(["check-data", "partshapes", "--data", str(tmp_path)]) == 2
