"""The detector that comes with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.detectors import Detector, Owlv2
from partclipseg.instances.found import box_ious, select
from partclipseg.instances.outlines import Outliner
from partclipseg.models import registry
from partclipseg.models.registry import BUILT_IN_DETECTOR, built_in_detector
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(BUILT_IN_DETECTOR, device="cpu")


def test_it_finds_the_objects_of_rendered_scenes(detector: Detector) -> None:
    assert isinstance(detector, Owlv2)
    words = partshapes_world().vocabulary.objects
    right = missed = false = 0
    for index in range(16):
        scene = render_scene("instances", index, 192)
        [found] = detector.find([scene.image], words)
        kept = select(found, words, (192, 192))
        truth = np.array([member.box for member in scene.members], float)
        names = np.array([member.object for member in scene.members])
        hits = [((box_ious(np.array(one.corners), truth) >= 0.5) & (names == one.object)).any() for one in kept]
        right += sum(hits)
        false += len(hits) - sum(hits)
        missed += max(len(truth) - sum(hits), 0)
    assert right > 4 * (false + missed)


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in Path(built_in_detector()).iterdir()) <= 4e6


def test_words_that_it_does_not_know_are_named_once(detector: Detector, caplog: pytest.LogCaptureFixture) -> None:
    words, photo = ["owl", "zebra", "a sheep of the moon"], np.zeros((40, 60, 3), np.uint8)
    for _ in range(2):
        detector.find([photo], words)
    assert caplog.messages == [
        "the detector has never seen these words and can only guess: zebra, a sheep of the moon"
    ]
    detector.find([photo], ["owl", "sheep"])
    assert len(caplog.messages) == 1


def test_a_directory_of_its_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / BUILT_IN_DETECTOR).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PartCLIPSegError, match=r"partshapes-detector has no config\.json"):
        Detector.from_pretrained(BUILT_IN_DETECTOR)


def test_an_installation_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "files", lambda _: tmp_path)
    with pytest.raises(PartCLIPSegError, match="no built-in detector: name a detector's directory with --instances"):
        Detector.from_pretrained(BUILT_IN_DETECTOR)


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (
            Detector.from_pretrained,
            "partshapes",
            "partshapes is a model that segments parts, not a detector: give the directory of a detector",
        ),
        (
            Outliner.from_pretrained,
            "partclipseg-pascal",
            "partclipseg-pascal is a model that segments parts, not a model that outlines objects: give the directory",
        ),
        (
            Outliner.from_pretrained,
            BUILT_IN_DETECTOR,
            "partshapes-detector is the built-in detector, which finds objects by their boxes: give the directory of a "
            "model that outlines objects",
        ),
        (
            PartSegmenter.from_pretrained,
            BUILT_IN_DETECTOR,
            "partshapes-detector is the built-in detector, which finds objects by their boxes: give a model",
        ),
        (
            Detector.from_pretrained,
            "partshapes-detektor",
            "there is no directory 'partshapes-detektor'; did you mean partshapes-detector?",
        ),
    ],
)
def test_names_of_something_else(load: Callable[[str], Any], name: str, message: str) -> None:
    with pytest.raises(PartCLIPSegError) as caught:
        load(name)
    assert message in str(caught.value)


def test_a_run_says_that_it_knows_no_photos(
    model_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (60, 40), (250, 250, 250)).save(tmp_path / "white.png")
    arguments = [str(tmp_path / "white.png"), "--vocabulary", "dog: head", "--model", str(model_directory)]
    output = ["--format", "json", "--output", str(tmp_path / "parts")]
    assert main(["predict", *arguments, *output, "--instances", BUILT_IN_DETECTOR]) == 0
    said = capsys.readouterr().out
    assert "detector: the built-in one, which knows rendered scenes only, not photos" in said
    assert "no part was found: for photos name a detector, such as --instances IDEA-Research/" in said
    assert main(["predict", *arguments, *output, "--instances", "components"]) == 0
    assert "detector" not in capsys.readouterr().out
