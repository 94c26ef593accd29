"""`partclipseg.train` and `partclipseg.evaluate`: a call each, from a folder to a model to its scores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import REPOSITORY

import partclipseg
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.choices import PROTOCOLS
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.models.partcatseg.settings import CATSegSettings, PartCATSegSettings
from partclipseg.models.zsseg.settings import ZSSegSettings
from partclipseg.training import run
from partclipseg.training.data import TrainingData
from partclipseg.training.recipe import Recipe, Retention
from partclipseg.training.tower_runs import TRAINED_BY
from partclipseg.training.towers import BackboneRecipe


@pytest.fixture
def small(recipe: Recipe) -> Recipe:
    return replace(recipe, dataset="index-png", steps=2, held_out=1, batch_size=2)


def test_folder_to_model_to_scores(small: Recipe, own_data: Path, tmp_path: Path) -> None:
    result = partclipseg.train(small, data=own_data, output=tmp_path / "run")
    assert result.finished
    assert result.scores is not None
    assert (result.directory / "README.md").is_file()
    segmenter = partclipseg.PartSegmenter.from_pretrained(result.directory, device="cpu")
    dataset = partclipseg.open_dataset("index-png", own_data)
    assert segmenter.vocabulary == dataset.vocabulary
    calls: list[tuple[int, int]] = []
    scores = partclipseg.evaluate(
        segmenter, dataset, ["pred_all"], batch_size=4, on_progress=lambda *call: calls.append(call)
    )
    assert calls == [(4, 6), (6, 6)]
    assert set(scores) == {"pred_all"}
    evaluator = Evaluator(dataset.vocabulary, dataset.seen, "pred_all")
    for index in range(len(dataset)):
        sample = dataset[index]
        label_map = segmenter(sample.image, dataset.vocabulary).label_map
        evaluator.update(label_map, sample.part_labels, sample.object_labels, key=sample.key)
    assert scores["pred_all"].to_dict() == evaluator.compute().to_dict()


def test_every_protocol_by_default_and_one_by_name(model_directory: Path, own_data: Path) -> None:
    segmenter = partclipseg.PartSegmenter.from_pretrained(model_directory, device="cpu")
    dataset = partclipseg.open_dataset("index-png", own_data)
    scores = partclipseg.evaluate(segmenter, dataset, limit=2, boundary=None)
    assert tuple(scores) == PROTOCOLS
    assert scores["strict"].records == 2
    one = partclipseg.evaluate(segmenter, dataset, "strict", limit=2, boundary=None)["strict"]
    assert one.to_dict() == scores["strict"].to_dict()
    unseen = partclipseg.evaluate(segmenter, dataset, "strict", limit=2, seen=["cat's ear"])["strict"]
    assert [found.name for found in unseen.classes if found.seen] == ["cat's ear"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocols": []}, "no protocol is named: choose from oracle_obj, pred_all, strict"),
        ({"protocols": ["all"]}, "unknown protocol 'all'"),
        ({"limit": 0}, "the limit must be at least 1, not 0"),
        ({"batch_size": 0}, "the batch size must be at least 1, not 0"),
        ({"boundary": "none"}, "unknown boundary 'none'"),
        ({"seen": ["horse's ear"]}, 'the seen class "horse\'s ear" is not in the vocabulary'),
    ],
)
def test_wrong_calls_of_evaluate(options: dict[str, Any], message: str, model_directory: Path, own_data: Path) -> None:
    segmenter = partclipseg.PartSegmenter.from_pretrained(model_directory, device="cpu")
    with pytest.raises(UsageError, match=message):
        partclipseg.evaluate(segmenter, partclipseg.open_dataset("index-png", own_data), **options)


def test_data_that_are_open_already(recipe: Recipe, squares: TrainingData, tmp_path: Path) -> None:
    result = partclipseg.train(replace(recipe, steps=1), squares, tmp_path / "run")
    assert result.finished
    with pytest.raises(UsageError, match="leave them out for data that are open"):
        partclipseg.train(recipe, squares, tmp_path / "other", vocabulary="cat: head")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("paskal", {}, "there is no recipe 'paskal': choose from pascal, "),
        (None, {}, "there is no recipe None"),
        ("pascal", {}, "--data is missing: name the folder of pascal-part-116"),
        ("pascal", {"output": ""}, "output is missing"),
        ("own-data", {"data": "nowhere"}, "nowhere"),
        ("partshapes", {"vocabulary": "dog: ear"}, "--vocabulary does not apply to partshapes"),
        ("partshapes", {"object": "dog"}, "--object does not apply to partshapes"),
    ],
)
def test_wrong_calls_of_train(name: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        partclipseg.train(name, **{"output": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_broken_data_are_found_before_the_run(small: Recipe, own_data: Path, tmp_path: Path) -> None:
    (own_data / "images/p2.png").write_bytes(b"no picture")
    with pytest.raises(PartCLIPSegError, match=r"(?s)has problems \(unreadable: 1\).*p2\.png"):
        partclipseg.train(small, own_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_partshapes_begins_with_its_towers_and_reports_under_the_former_name(
    clipseg_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[Path] = []

    def told_to_stop(recipe: Any, output: Path, report: Any) -> None:
        begun.append(output)
        report(20, {"contrast": 0.5})

    monkeypatch.setitem(TRAINED_BY, BackboneRecipe, told_to_stop)
    tiny = replace(
        run.find_recipe("partshapes"),
        scenes=4, held_out=0, image_size=64, steps=1, batch_size=2, precision="float32", retention=Retention(),
    )  # fmt: skip
    told: list[tuple[int, dict[str, float]]] = []
    with pytest.raises(UsageError, match=r"^on_backbone is the former name of on_tower: leave it out where on_tower"):
        partclipseg.train(tiny, output=tmp_path / "run", on_backbone=print, on_tower=print)
    stopped = partclipseg.train(
        tiny, output=tmp_path / "run", on_backbone=lambda step, losses: told.append((step, dict(losses)))
    )
    assert told == [(20, {"contrast": 0.5})]
    assert "on_backbone is now called on_tower" in caplog.text
    assert not stopped.finished
    assert begun == [tmp_path / "run/backbone"]
    (tmp_path / "run/backbone").mkdir(parents=True)
    (tmp_path / "run/backbone/model").symlink_to(clipseg_directory)
    assert partclipseg.train(tiny, output=tmp_path / "run").finished
    assert len(begun) == 1, "a finished backbone is taken as it is"


def test_a_run_continues_however_its_folder_is_spelled_and_wherever_it_lies(
    small: Recipe, clipseg_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its towers lie in the folder, so that the start is spelled as the folder is."""
    recipe = replace(small, dataset="partshapes", start="", scenes=4, held_out=0, steps=4, checkpoint_every=2)
    shutil.copytree(clipseg_directory, tmp_path / "runs/x/backbone/model")
    monkeypatch.chdir(tmp_path)
    assert partclipseg.train(recipe, output="runs/x").finished

    def continues(folder: Path, output: str | Path) -> None:
        shutil.rmtree(folder / "checkpoints/step-00000004")
        shutil.rmtree(folder / "model")
        assert partclipseg.train(recipe, output=output).finished
        assert (folder / "model/model.safetensors").is_file()

    x = tmp_path / "runs/x"
    (tmp_path / "link").symlink_to(x)
    for output in (x, "./runs/../runs/x/", "link"):
        continues(x, output)
    monkeypatch.chdir(tmp_path / "runs")
    continues(x, "x")
    y = shutil.move(x, tmp_path / "y")
    continues(Path(y), y)
    shutil.rmtree(tmp_path / "y/checkpoints")
    assert partclipseg.train(recipe, output="../y").finished, "from the beginning, with the results still there"

    tokenizer = tmp_path / "y/backbone/model/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(PartCLIPSegError, match=r"run on other data \(the start model changed since"):
        partclipseg.train(recipe, output="../y")
    with pytest.raises(PartCLIPSegError, match=r"recipe: .*\n  start: '\.\./y/backbone/model' then, '/.*' now"):
        partclipseg.train(recipe, output=tmp_path / "y")
    assert partclipseg.train(recipe, output=tmp_path / "y", accept_changed_data=True).finished
    shutil.rmtree(tmp_path / "y/checkpoints")
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(PartCLIPSegError, match="holds model, the results of another recipe"):
        partclipseg.train(recipe, output="../y")
    assert partclipseg.train(recipe, output="../y", accept_changed_data=True).finished
    with pytest.raises(PartCLIPSegError, match=r"recipe: .*\n  steps: 4 then, 5 now"):
        partclipseg.train(replace(recipe, steps=5), output=tmp_path / "y", accept_changed_data=True)


def test_the_folder_of_another_run_is_refused_before_towers_are_trained(
    small: Recipe, own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "train_start", lambda *_: pytest.fail("a tower was trained"))
    partclipseg.train(replace(small, steps=1), own_data, tmp_path / "run")
    message = r"(?s)holds a run with another recipe.*dataset: 'index-png' then, 'partshapes' now"
    with pytest.raises(PartCLIPSegError, match=message):
        partclipseg.train("partshapes", output=tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(PartCLIPSegError, match="holds best and model, the results of another recipe"):
        partclipseg.train("partshapes", output=tmp_path / "run")


def impossible(**settings: Any) -> dict[str, Any]:
    """Changes to a recipe: PartCATSeg with these settings, from towers that are trained first."""
    return {"settings": PartCATSegSettings(**settings), "start": ""}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"start": "nosuch"}, {}, "there is no directory 'nosuch'"),
        ({"start": "partshaps"}, {}, "did you mean partshapes"),
        ({}, {"workers": -1}, "workers must not be negative: -1"),
        (impossible(repairs=("nothing",)), {}, "partcatseg has no repair 'nothing': choose from background"),
        (impossible(reference=True, repairs=("padding",)), {}, "leave out one of reference and repairs"),
        (impossible(reference=True, attention_filter=True), {}, "leave out one or the other"),
        (impossible(reference=True, patch_attention=True), {}, "leave out one or the other"),
        (impossible(reference=True, pair_affinity=True), {}, "leave out one or the other"),
        (impossible(guidance="nowhere"), {}, "there is no directory 'nowhere'.*give facebookresearch/dinov2's own"),
        (impossible(guidance=str(REPOSITORY)), {}, "config.json"),
        ({"settings": CATSegSettings(repairs=("copies",)), "start": ""}, {}, "catseg has no repair 'copies'"),
        ({"settings": ZSSegSettings(repairs=("nothing",)), "start": ""}, {}, "zsseg has no repair 'nothing'"),
        ({"settings": ZSSegSettings(maskformer="nowhere.pth"), "start": ""}, {}, "no file nowhere.pth: name a .pth"),
        *(
            ({"settings": method(sizes=sizes), "start": "", "image_size": size}, {}, message)
            for method in (PartCATSegSettings, CATSegSettings, ZSSegSettings)
            for sizes, size, message in (
                ("released", 128, r"do not fit a model of the released sizes: take --sizes tiny, or name CLIP's"),
                ("tiny", 64, f"{method.family} takes scenes of 128x128 pixels only, not 64x64: leave --image-size"),
            )
        ),
        ({**impossible(sizes="tiny"), "image_size": 128, "retention": Retention(weight=1.0, words=("dog",))}, {},
         "partcatseg starts from an aggregation, which has no maps of words to keep: set --retention.weight 0"),
        ({"start": "", "image_size": None}, {}, "partshapes has to be told how large to render: give --image-size"),
    ],
)
def test_what_is_wrong_is_told_before_towers_are_trained_and_scenes_rendered(
    change: dict[str, Any],
    options: dict[str, Any],
    message: str,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "render_training_data", lambda *_: pytest.fail("scenes were rendered"))
    monkeypatch.setattr(run, "train_start", lambda *_: pytest.fail("a tower was trained"))
    with pytest.raises(PartCLIPSegError, match=message):
        partclipseg.train(replace(recipe, dataset="partshapes", **change), output=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_file_is_refused_as_a_start_before_data_are_read(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file has no tokenizer, which training needs."""
    monkeypatch.setattr(run, "render_training_data", lambda *_: pytest.fail("scenes were rendered"))
    (tmp_path / "model_final_base.pth").touch()
    started = replace(recipe, dataset="partshapes", image_size=128, start=str(tmp_path / "model_final_base.pth"))
    with pytest.raises(PartCLIPSegError, match="make a directory of it by `partclipseg convert`"):
        partclipseg.train(started, output=tmp_path / "run")
