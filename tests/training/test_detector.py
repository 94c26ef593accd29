"""The detector of PartShapes: trained, stopped, continued, and opened as any OWLv2."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.tester import TowerTester
from transformers import Owlv2ForObjectDetection

import partclipseg
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.instances.detectors import Detector, Owlv2
from partclipseg.instances.found import box_ious
from partclipseg.shapes.cache import SceneArrays, render_split
from partclipseg.shapes.captions import words
from partclipseg.shapes.tokenizer import build_tokenizer
from partclipseg.shapes.world import partshapes_world
from partclipseg.training.detector import DetectorTraining, detector_config, patch_owners, train_detector
from partclipseg.training.towers import DetectorRecipe

RECIPE = DetectorRecipe(
    steps=4, batch_size=4, scenes=8, image_size=32, warmup_steps=2, checkpoint_every=2, log_every=1, threshold=0.25
)
OBJECTS = partshapes_world().vocabulary.objects


@pytest.fixture(scope="module")
def scenes() -> SceneArrays:
    return render_split("detection", RECIPE.scenes, RECIPE.image_size, workers=1)


@pytest.fixture(scope="module")
def trained(scenes: SceneArrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = train_detector(RECIPE, tmp_path_factory.mktemp("detector"), scenes)
    assert model is not None
    return model


class TestDetector(TowerTester):
    recipe, other, train = RECIPE, replace(RECIPE, overlap_weight=1.0), staticmethod(train_detector)
    difference = r"the detector in \S+ is of another recipe(?s:.*)overlap_weight: 2.0 then, 1.0 n"


def test_it_opens_as_any_detector_with_a_threshold_of_its_own(scenes: SceneArrays, trained: Path) -> None:
    detector = Detector.from_pretrained(trained, device="cpu")
    assert isinstance(detector, Owlv2)
    assert detector.threshold == 0.25
    assert Detector.from_pretrained(trained, device="cpu", threshold=0.75).threshold == 0.75
    detector.threshold = 0
    [found] = detector.find([scenes.images[0]], ["dog", "bus"])
    assert len(found) == (32 // 8) ** 2
    result = partclipseg.PartSegmenter.from_pretrained(device="cpu")(
        scenes.images[0], "dog: head, ear", instances=detector
    )
    assert result.instances
    assert {instance.source for instance in result.instances} == {"detector"}


@pytest.mark.parametrize("value", [2, -0.5, "high", True, None])
def test_a_configuration_with_a_wrong_threshold(value: Any, trained: Path, tmp_path: Path) -> None:
    for file in trained.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"detection_threshold": value}))
    with pytest.raises(PartCLIPSegError, match=r"detection_threshold of .*must be a number from 0 to 1: correct it"):
        Detector.from_pretrained(tmp_path, device="cpu")
    assert Detector.from_pretrained(tmp_path, device="cpu", threshold=0.3).threshold == 0.3


def test_in_half_precision_it_fits_into_four_megabytes() -> None:
    recipe = DetectorRecipe()
    tokens = len(build_tokenizer(words(), 16, end_last=True))
    with torch.device("meta"):
        model = Owlv2ForObjectDetection(detector_config(recipe.image_size, tokens, recipe.threshold))
    assert sum(2 * parameter.numel() for parameter in model.parameters()) < 3.9e6


def test_every_word_is_known_and_the_end_is_the_greatest_token() -> None:
    tokenizer = build_tokenizer(words(), 16, end_last=True)
    for word in OBJECTS:
        ids = tokenizer(f"a photo of a {word}")["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert ids[-1] == max(ids) == len(tokenizer) - 1


def test_the_detector_learns_boxes_and_words(tmp_path: Path) -> None:
    """After a few steps on three scenes of one object each, the surest box is that object's."""
    scenes = render_split("detection", 3, 32, workers=1)
    assert [len(scene.members) for scene in scenes] == [1, 1, 1]
    recipe = replace(RECIPE, steps=80, batch_size=6, scenes=3, warmup_steps=10, log_every=80, checkpoint_every=80)
    directory = train_detector(recipe, tmp_path, scenes)
    assert directory is not None
    detector = Detector.from_pretrained(directory, device="cpu", threshold=0)
    for scene, (surest, *_) in zip(scenes, detector.find(list(scenes.images), OBJECTS), strict=True):
        [member] = scene.members
        assert surest.object == member.object
        assert box_ious(np.array(surest.corners), np.array([member.box], float)) > 0.4


def test_losses_are_those_of_the_whole_model(scenes: SceneArrays) -> None:
    """The heads are trained on what `Owlv2ForObjectDetection` computes of the same inputs."""
    torch.manual_seed(0)
    training = DetectorTraining(RECIPE, scenes, torch.device("cpu"))
    module: Any = training.module
    torch.nn.init.normal_(module.class_head.logit_scale.weight, std=0.1)
    seen: dict[str, torch.Tensor] = {}
    for name in ("class_predictor", "box_predictor"):
        whole = getattr(module, name)

        def watch(*args: Any, whole: Any = whole, name: str = name) -> Any:
            result = whole(*args)
            seen[name] = result[0] if isinstance(result, tuple) else result
            return result

        setattr(module, name, watch)
    pixels: list[torch.Tensor] = []
    embed = module.image_embedder
    module.image_embedder = lambda values: pixels.append(values) or embed(values)
    training.losses(torch.arange(2))
    trained_on = dict(seen)
    prompts = training.prompts.repeat(2, 1)
    mask = (prompts != 0).long()
    with torch.no_grad():
        output = module(input_ids=prompts, attention_mask=mask, pixel_values=pixels[0])
    torch.testing.assert_close(trained_on["class_predictor"], output.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trained_on["box_predictor"], output.pred_boxes, rtol=1e-4, atol=1e-5)


def test_boxes_and_words_follow_the_mirrored_scenes(scenes: SceneArrays) -> None:
    batches = DetectorTraining(RECIPE, scenes, torch.device("cpu")).batches
    torch.manual_seed(0)
    mirrored = 0
    for row, scene in enumerate(scenes):
        batch = batches(torch.full((6,), row))
        for boxes, owners, names in zip(batch.boxes, batch.owners, batch.words, strict=True):
            assert [OBJECTS[name] for name in names if name >= 0] == [member.object for member in scene.members]
            for number in range(len(scene.members)):
                x, _, width, _ = (boxes[number] * RECIPE.image_size).tolist()
                columns = torch.nonzero(owners == number)[:, 0] % 4 * 8
                assert columns.min() >= x - width / 2 - 8
                assert columns.max() <= x + width / 2
            mirrored += bool(boxes[0, 0] != batch.boxes[0, 0, 0])
    assert mirrored


@pytest.mark.parametrize(
    ("pixels", "owners"),
    [
        ({}, [-1, -1, -1, -1]),
        ({0: (slice(0, 8), slice(0, 16))}, [0, 0, -1, -1]),
        # 24 of 64 pixels are enough, 12 are not; the upper right patch is the second one's best.
        ({0: (slice(0, 8), slice(0, 8)), 1: (slice(0, 3), slice(8, 16))}, [0, 1, -1, -1]),
        ({0: (slice(0, 10), slice(0, 6))}, [0, -1, -1, -1]),
        # A small object gets the patch that it covers most, though another covers more of it.
        ({0: (slice(0, 16), slice(0, 16)), 1: (slice(9, 11), slice(9, 12))}, [0, 0, 0, 1]),
        ({1: (slice(15, 16), slice(15, 16))}, [-1, -1, -1, 1]),
    ],
)
def test_the_owner_of_each_patch(pixels: dict[int, tuple[slice, slice]], owners: list[int]) -> None:
    instances = torch.full((1, 16, 16), -1, dtype=torch.int8)
    for number, place in pixels.items():
        instances[0][place] = number
    assert patch_owners(instances, 4).tolist() == [owners]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 36}, "multiple of 8"),
        ({"distance_weight": -1.0}, "distance_weight must not be negative: -1.0"),
        ({"overlap_weight": -0.5}, "overlap_weight must not be negative: -0.5"),
        ({"threshold": 1.5}, "threshold 1.5 must lie from 0 to 1"),
        ({"threshold": -0.1}, "threshold -0.1 must lie from 0 to 1"),
    ],
)
def test_impossible_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(RECIPE, **changes)
