"""Detectors: the same objects alone and beside others, every word read, and one sentence for what cannot be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.instances.tiny import build
from tests.turns import Turns

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.instances.detectors import Detector
from partclipseg.instances.found import FoundObject, ObjectSource, select
from partclipseg.instances.pretrained import resized_shape
from partclipseg.models.directory import load_tokenizer

KINDS = ("owlv2", "grounding-dino", "mm-grounding-dino", "sam3")
WORDS = ["dog", "police car", "horse"]
SIZES = ((90, 140), (150, 70), (64, 64), (1, 80), (1, 1))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directory of a small model of each kind; each is built once."""
    root = tmp_path_factory.mktemp("detectors")
    return lambda kind: root / kind if (root / kind).is_dir() else build(kind, root / kind)


@pytest.fixture(scope="module")
def load(directory: Callable[[str], Path]) -> Callable[..., Detector]:
    """Load a detector of a kind once, and set its threshold."""
    loaded: dict[str, Detector] = {}

    def load(kind: str, threshold: float) -> Detector:
        if kind not in loaded:
            loaded[kind] = Detector.from_pretrained(directory(kind))
        loaded[kind].threshold = threshold
        return loaded[kind]

    return load


@pytest.fixture(params=KINDS)
def detector(request: pytest.FixtureRequest, load: Callable[..., Detector]) -> Detector:
    return load(request.param, 0.02)


def noise(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def table(found: list[FoundObject]) -> tuple[list[str], np.ndarray]:
    """Words, and boxes with scores `[n, 5]`."""
    return [some.object for some in found], np.array([(*some.box, some.score) for some in found]).reshape(-1, 5)


def assert_same(found: list[FoundObject], expected: list[FoundObject], tolerance: float = 0.0) -> None:
    (words, numbers), (expected_words, expected_numbers) = table(found), table(expected)
    assert words == expected_words
    np.testing.assert_allclose(numbers, expected_numbers, atol=tolerance, rtol=tolerance)


def test_what_is_found_does_not_depend_on_the_other_photos(detector: Detector):
    photos = noise(*SIZES)
    together = detector.find(photos, WORDS)
    assert len(together[0]) > 1
    for photo, found in zip(photos, together, strict=True):
        assert_same(detector.find([photo], WORDS)[0], found)
        for some in found:
            assert some.object in WORDS
            assert detector.threshold <= some.score <= 1
            assert some.mask is None or some.mask.shape == photo.shape[:2]
    for found in together:
        assert [some.score for some in found] == sorted((some.score for some in found), reverse=True)


def test_a_detector_is_a_source_whose_boxes_are_cut_by_the_selection(detector: Detector):
    assert isinstance(detector, ObjectSource)
    (photo,) = noise((90, 140))
    (found,) = detector.find([photo], WORDS)
    for some in select(found, WORDS, (90, 140)):
        x0, y0, x1, y1 = some.corners
        assert 0 <= x0 < x1 <= 140
        assert 0 <= y0 < y1 <= 90


def test_boxes_may_leave_the_photo(load: Callable[..., Detector]):
    (found,) = load("owlv2", 0).find(noise((60, 140)), WORDS)
    corners = np.array([some.corners for some in found])
    assert len(found) == 36
    assert corners[:, 0].min() < 0 or corners[:, 2].max() > 140
    assert corners[:, 3].max() > 60


def test_only_what_reaches_the_threshold_is_found(detector: Detector):
    photos = noise((90, 140))
    detector.threshold = 0
    (everything,) = detector.find(photos, WORDS)
    detector.threshold = everything[len(everything) // 2].score
    (some,) = detector.find(photos, WORDS)
    assert_same(some, [one for one in everything if one.score >= detector.threshold])
    detector.threshold = 1
    assert [one for one in detector.find(photos, WORDS)[0] if one.score < 1] == []


def test_no_words_no_photos(detector: Detector):
    assert detector.find(noise((20, 30), (30, 20)), []) == [[], []]
    assert detector.find([], WORDS) == []


def test_threads_may_share_a_detector(detector: Detector, monkeypatch: pytest.MonkeyPatch):
    """Each call reads its own words, and one call at a time uses the tokenizer."""
    tokenizer, turns = type(load_tokenizer(detector.pretrained.folder)), Turns()
    monkeypatch.setattr(tokenizer, "__call__", turns.watched(tokenizer.__call__))

    def ask(number: int) -> None:
        for turn in range(5):
            detector.passes([*WORDS[:number], "x" * (turn + 1)])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, range(3)))
    assert set(turns.counts) == {1}


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
def test_long_lists_are_read_in_several_passes(kind: str, load: Callable[..., Detector]):
    detector = load(kind, 0)
    photos = noise((90, 140))
    # 61 tokens a pass: letters and the full stops after the words.
    lists = [["a" * 30, "b" * 29], ["c" * 40], ["d" * 30, "dog", "cat"]]
    (found,) = detector.find(photos, [word for words in lists for word in words])
    expected = [one for words in lists for one in detector.find(photos, words)[0]]
    assert len(found) == 20 * len(lists)
    assert_same(found, sorted(expected, key=lambda one: -one.score), 1e-5)
    assert len(detector.passes(["a" * 30, "b" * 30])) == 1
    assert len(detector.passes(["a" * 30, "b" * 31])) == 2


def test_prompts_of_owlv2_in_several_passes(load: Callable[..., Detector], monkeypatch: pytest.MonkeyPatch):
    detector = load("owlv2", 0)
    photos, words = noise((90, 140)), [*WORDS, "bus", "cat"]
    (expected,) = detector.find(photos, words)
    assert len({one.object for one in expected}) > 1
    monkeypatch.setattr("partclipseg.instances.detectors.PROMPTS_AT_ONCE", 2)
    assert len(detector.passes(words)) == 3
    assert_same(detector.find(photos, words)[0], expected, 1e-5)


@pytest.mark.parametrize(
    ("word", "read_as"),
    [
        ("St. Bernard", "st bernard"),
        ("what? dog", "what dog"),
        ("dog.", "dog"),
        ("...dog???", "dog"),
        ("Dog", "dog"),
    ],
)
def test_signs_that_cut_the_text_of_grounding_dino_are_left_out(
    word: str, read_as: str, load: Callable[..., Detector]
):
    detector = load("grounding-dino", 0)
    photos = noise((90, 140))
    (found,), (expected,) = detector.find(photos, [word, "bus"]), detector.find(photos, [read_as, "bus"])
    np.testing.assert_array_equal(table(found)[1], table(expected)[1])
    assert {one.object for one in found} <= {word, "bus"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("?", r"the word '\?' has nothing that the detector can read: name the object by other words"),
        ("...", "has nothing that the detector can read"),
        ("\N{SNOWMAN} \N{DOG}", "has nothing that the detector can read"),
        ("a" * 65, "is too long for the detector: name the object by other words"),
    ],
)
def test_words_that_grounding_dino_cannot_read(word: str, message: str, load: Callable[..., Detector]):
    detector = load("grounding-dino", 0)
    with pytest.raises(UsageError, match=message):
        detector.find(noise((20, 30)), ["dog", word])


def test_a_prompt_that_owlv2_cuts_is_named(load: Callable[..., Detector], caplog: pytest.LogCaptureFixture):
    detector = load("owlv2", 0)
    detector.find(noise((20, 30)), ["dog", "sheep of the north"])
    assert caplog.messages == []
    detector.find(noise((20, 30)), ["dog", "a large and very old sheep of the far north"])
    assert caplog.messages == [
        "the detector reads the first 40 tokens only of: a large and very old sheep of the far north"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind: str, directory: Callable[[str], Path]):
    detector = Detector.from_pretrained(directory(kind), dtype="bfloat16", threshold=0.02)
    assert detector.model.dtype == torch.bfloat16
    photos = noise((90, 140), (150, 70))
    together = detector.find(photos, WORDS)
    assert together[0]
    for photo, found in zip(photos, together, strict=True):
        assert_same(detector.find([photo], WORDS)[0], found)


def test_float32_unless_asked(detector: Detector):
    assert detector.model.dtype == torch.float32
    assert not detector.model.training


def test_sam3_gives_masks_and_names_its_licence(directory: Callable[[str], Path], caplog: pytest.LogCaptureFixture):
    detector = Detector.from_pretrained(directory("sam3"), threshold=0)
    (message,) = caplog.messages
    assert message == (
        f"the weights of {directory('sam3')} are under the SAM License of Meta, which has conditions of its own: read "
        "it before you use them"
    )
    (found,) = detector.find(noise((45, 70)), ["dog", "cat"])
    assert len(found) == 16
    assert all(one.mask is not None and one.mask.shape == (45, 70) for one in found)
    assert len(caplog.messages) == 1


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_photos_are_resized_as_by_the_authors(height: int, width: int):
    from transformers.image_transforms import get_size_with_aspect_ratio

    expected = get_size_with_aspect_ratio((height, width), 800, 1333)
    assert resized_shape(height, width, 800, 1333) == tuple(max(side, 1) for side in expected)


def test_masks_of_sam3_are_those_of_its_authors(directory: Callable[[str], Path]):
    """Probabilities are enlarged and cut at one half; enlarged logits have other outlines where they are large."""
    detector = Detector.from_pretrained(directory("sam3"), threshold=0)
    noisy = torch.randn(8, 9, 7, generator=torch.Generator().manual_seed(0)) * 8

    def replace_masks(model: Any, inputs: Any, output: Any) -> None:
        output.pred_masks = noisy[None]
        plain.append(output)

    plain: list[Any] = []
    with detector.model.register_forward_hook(replace_masks):
        (found,) = detector.find(noise((45, 70)), ["dog"])
    masks = torch.nn.functional.interpolate(noisy[None].sigmoid(), (45, 70), mode="bilinear", align_corners=False)[0]
    scores = (plain[0].pred_logits.sigmoid() * plain[0].presence_logits.sigmoid())[0]
    order = torch.argsort(scores, descending=True, stable=True)
    for some, expected in zip(found, masks[order], strict=True):
        np.testing.assert_array_equal(some.mask, expected > 0.5)


# -- against the independent use of the same models -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:3])
def test_equal_to_the_plain_use_of_transformers(
    kind: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The shared script prepares text and photos by transformers' own processors where they run without torchvision."""
    monkeypatch.syspath_prepend(str(shared / "reference"))
    import tiny_detectors

    if kind == "owlv2":
        tiny_detectors.owlv2(tmp_path)
    else:
        tiny_detectors.grounding_dino(tmp_path, mm=kind.startswith("mm"))
    from transformers import AutoProcessor

    detector, processor = Detector.from_pretrained(tmp_path, threshold=0), AutoProcessor.from_pretrained(tmp_path)
    detect = tiny_detectors.detect_owlv2 if kind == "owlv2" else tiny_detectors.detect_grounding_dino
    for photo in noise((90, 140), (150, 70)):
        ((boxes, scores, labels),) = detect(detector.model, processor, [Image.fromarray(photo)], WORDS, 0)
        with torch.inference_mode():
            found = detector.look(photo, detector.passes(WORDS))
        np.testing.assert_array_equal(found.words, labels)
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)
        np.testing.assert_allclose(found.corners, boxes, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_normalised_as_the_authors_state(kind: str, directory: Callable[[str], Path], tmp_path: Path):
    folder = tmp_path / kind
    shutil.copytree(directory(kind), folder)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    preparation = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 0.5, 0.25]}
    size = {"size": {"shortest_edge": 96, "longest_edge": 160}} if "dino" in kind else {}
    (folder / "preprocessor_config.json").write_text(json.dumps({**preparation, **size}))
    detector, seen = Detector.from_pretrained(folder, threshold=0), []
    grey = np.full((32, 48, 3), 51, np.uint8)
    hook = detector.model.register_forward_pre_hook(
        lambda model, args, inputs: seen.append(inputs.get("pixel_values")), with_kwargs=True
    )
    if kind == "sam3":
        hook.remove()
        features = detector.model.get_vision_features
        detector.model.get_vision_features = lambda pixel_values: (seen.append(pixel_values), features(pixel_values))[1]
    detector.find([grey], ["dog"])
    colours = (torch.tensor([0.2] * 3) - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([1.0, 0.5, 0.25])
    torch.testing.assert_close(seen[0][0, :, 0, 0], colours)


# -- what cannot be loaded ------------------------------------------------------------------------------------------


def with_config(folder: Path, **values: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("kind", ["omdet-turbo", "owlvit", "detr", "partclipseg", None, 7, "x" * 500])
def test_other_models_are_refused_by_name(kind: Any, tmp_path: Path):
    folder = with_config(tmp_path / "model", model_type=kind)
    with pytest.raises(
        PartCLIPSegError, match=r"a detector must be one of owlv2, grounding-dino, mm-grounding-dino, sam3"
    ) as caught:
        Detector.from_pretrained(folder)
    assert str(kind)[:20] in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights: put model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 50), "model.safetensors is cut or damaged"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer: give a directory"),
        (lambda folder: (folder / "tokenizer.json").write_text("["), "tokenizer.json is not valid JSON"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("?"), "preprocessor_config.json is not valid"),
    ],
)
def test_a_damaged_directory(
    damage: Callable[[Path], Any], message: str, tmp_path: Path, directory: Callable[[str], Path]
):
    shutil.copytree(directory("grounding-dino"), tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(PartCLIPSegError, match=message):
        Detector.from_pretrained(tmp_path / "model").find(noise((20, 30)), ["dog"])


def test_missing_tensors_are_not_replaced_by_random_ones(tmp_path: Path, directory: Callable[[str], Path]):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(directory("owlv2"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["class_head.logit_scale.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PartCLIPSegError, match=r"missing: class_head.logit_scale.weight"):
        Detector.from_pretrained(folder)


def test_the_tokenizer_of_another_model(tmp_path: Path, directory: Callable[[str], Path]):
    folder = shutil.copytree(directory("grounding-dino"), tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(directory("owlv2") / name, folder / name)
    with pytest.raises(PartCLIPSegError, match="is not BERT's, which Grounding DINO reads by"):
        Detector.from_pretrained(folder).find(noise((20, 30)), ["dog"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "moon"}, "there is no device 'moon' here"),
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"threshold": 1.5}, "the threshold of a detector must be from 0 to 1, not 1.5"),
        ({"threshold": -0.1}, "must be from 0 to 1, not -0.1"),
        ({"threshold": float("nan")}, "must be from 0 to 1, not nan"),
        ({"threshold": "0.5"}, "must be from 0 to 1, not '0.5'"),
        ({"threshold": True}, "must be from 0 to 1, not True"),
        ({"threshold": [0.5]}, r"must be from 0 to 1, not \[0.5\]"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, directory: Callable[[str], Path]):
    with pytest.raises(UsageError, match=message):
        Detector.from_pretrained(directory("owlv2"), **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lab/pets", "'lab/pets', and the Hugging Face hub cannot be reached: give the directory of a detector, or"),
        ("no such folder", "there is no directory 'no such folder': give the directory of a detector"),
        ("./runs/owl", "there is no directory './runs/owl': give the directory of a detector"),
        (7, "must be text or a path, not '7': give the directory of a detector"),
    ],
)
def test_names_of_nothing(name: Any, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(PartCLIPSegError, match=message):
        Detector.from_pretrained(name)
    assert sum(slept) < 5
