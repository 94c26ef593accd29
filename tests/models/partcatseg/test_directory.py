"""Directories of both families, from `convert` and elsewhere: complete, undamaged and sane, or one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.damage import NO_VALUES, Damage, configure, drop, tensors
from tests.models.partcatseg.small import build, random_photos, small_config
from tests.models.partcatseg.test_foreign import HEAD, released, write

from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.registry import load_model, load_tokenizer

FAMILIES = {"partcatseg": PartCATSegConfig, "catseg": CATSegConfig}


@pytest.fixture(scope="module", params=list(FAMILIES))
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer_directory: Path
) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    build(small_config(FAMILIES[request.param])).save_pretrained(folder)
    load_tokenizer(tokenizer_directory).save_pretrained(folder)
    return folder


@pytest.fixture
def directory(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "model"))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "another family": (configure(model_type="clipseg-baseline"), "configuration asks for"),
    "missing": (tensors(drop("aggregator.head")), r"2 tensors \(missing: aggregator.head.bias"),
    "missing background": (tensors(drop("background")), r"1 tensor \(missing: background\)"),
    "unexpected": (tensors(lambda t: t.update(surprise=torch.zeros(2))), "unknown: surprise"),
    "mis-shaped": (tensors(lambda t: t.update(background=torch.zeros(1, 5))), r"shape \(1, 5\), expected \(1, 16\)"),
    "NaN": (tensors(lambda t: t["background"].fill_(float("nan")) is None), r"NaN or infinity in 1 tensor"),
    "whole numbers": (tensors(lambda t: t.update(background=torch.zeros(1, 16).int())), "not quantised"),
    "10^6 layers": (configure(num_layers=10**6), "num_layers must be a whole number"),
    "10^6 CLIP layers": (configure(clip_config__vision_config__num_hidden_layers=10**6), "num_hidden_layers must be"),
    "a wide aggregation": (configure(hidden_dim=60_000, num_heads=1), "asks for"),
    "text for a number": (configure(hidden_dim="many"), "hidden_dim must be a whole number"),
    "heads": (configure(num_heads=3), "multiple of num_heads"),
    "window": (configure(window_size=3), "window_size 3 must divide the feature grid"),
    "templates": (configure(templates=["a photo"]), "must have {} once"),
    "guidance of another kind": (configure(guidance_config__model_type="vit"), "give dinov2 or resnet"),
    "guidance list": (configure(guidance_config=[1]), "guidance_config must be a table"),
    "repairs": (configure(repairs=["all"]), "has no repair 'all'"),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "too large a tokenizer": (configure(clip_config__text_config__vocab_size=550), "has shape"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_directory_is_refused(directory: Path, name: str):
    damage, words = DAMAGES[name]
    damage(directory)
    with pytest.raises(PartCLIPSegError, match=words) as caught:
        PartSegmenter.from_pretrained(directory, device="cpu")
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


FIELDS = [
    *(
        "clip_config",
        "guidance_config",
        "image_size",
        "guidance_image_size",
        "shortest_edge",
        "image_mean",
        "reference",
    ),
    *("templates", "hidden_dim", "pooling_size", "decoder_dims", "decoder_guidance_dims", "repairs", "longest_edge"),
    *("clip_config__vision_config__patch_size", "clip_config__text_config", "clip_config__projection_dim"),
    *("guidance_config__hidden_size", "guidance_config__patch_size", "guidance_config__model_type"),
    *("guidance_config__hidden_sizes", "guidance_config__depths", "guidance_config__mlp_ratio"),
]


@pytest.mark.parametrize("field", FIELDS)
def test_no_value_of_the_configuration_is_a_raw_error(directory: Path, field: str):
    *towers, name = field.split("__")
    own = json.loads((directory / "config.json").read_text())
    for tower in towers:
        own = own[tower]
    # A loaded model takes time: an entry that only the other family's guidance has, and this one ignores, gets a few.
    for value in NO_VALUES if name in own else NO_VALUES[::4]:
        shutil.copy(directory / "config.json", directory / "kept")
        configure(**{field: value})(directory)
        try:
            load_model(directory)
        except PartCLIPSegError as error:
            said = str(error)
        else:
            said = str(directory)
        assert str(directory) in said
        shutil.move(directory / "kept", directory / "config.json")


@pytest.fixture(params=list(FAMILIES))
def converted(request: pytest.FixtureRequest, tmp_path: Path, tokenizer_directory: Path) -> tuple[Any, list[str]]:
    """A model, and the arguments that convert a released file of it."""
    model = build(small_config(FAMILIES[request.param], reference=True))
    file = write(tmp_path / "released.pth", released(model))
    values = {key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "reference")}
    (tmp_path / "sizes.json").write_text(json.dumps(values))
    options = ["--config", str(tmp_path / "sizes.json"), "--tokenizer", str(tokenizer_directory)]
    return model, ["convert", str(file), str(tmp_path / "out"), "--vocabulary", "dog: ear, leg", *options]


def test_convert_writes_a_directory_that_predicts(converted: tuple[Any, list[str]], tmp_path: Path, capsys):
    model, arguments = converted
    assert main(arguments) == 0
    assert type(model).__name__ in capsys.readouterr().out
    segmenter = PartSegmenter.from_pretrained(tmp_path / "out", device="cpu")
    assert type(segmenter.model) is type(model)
    assert segmenter.model.config.reference
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in segmenter.model.state_dict().items())
    assert segmenter.vocabulary.names == ("dog's ear", "dog's leg")
    # In reference mode the greatest probability decides, however small it is.
    (photo,) = random_photos((60, 80))
    with torch.no_grad():
        segmenter.model.aggregator.head.bias -= 8.0
    inputs = segmenter.prepare([photo])
    (expected,) = segmenter.label_maps(inputs, segmenter.vocabulary, [(60, 80)])
    assert (expected.label_map >= 0).any()
    assert expected.scores.max() < 0.2
    result = segmenter(photo)
    assert (torch.from_numpy(result.label_map) == expected.label_map).all()


def test_convert_for_part_imagenet_keeps_photos_at_their_size(converted: tuple[Any, list[str]], tmp_path: Path):
    arguments, sizes = converted[1], tmp_path / "sizes.json"
    values = json.loads(sizes.read_text())
    del values["shortest_edge"]
    sizes.write_text(json.dumps(values))
    arguments[arguments.index("dog: ear, leg")] = "part-imagenet"
    assert main(arguments) == 0
    assert load_model(tmp_path / "out").first_size((375, 500)) == (375, 500)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"model": {"some.weight": torch.zeros(2)}}, "no released file of a method that is known here"),
        (lambda t: t["model"].pop(HEAD + "transformer.head.bias"), "does not fit the model in 1 tensor (missing:"),
        (lambda t: next(iter(t["model"].values())).fill_(float("inf")) is None, "has NaN or infinity in 1 tensor"),
    ],
)
def test_convert_refuses_other_files(converted: tuple[Any, list[str]], tmp_path: Path, change, words: str, capsys):
    content = torch.load(tmp_path / "released.pth", weights_only=True)
    changed = change(content)
    torch.save(changed if isinstance(changed, dict) else content, tmp_path / "released.pth")
    assert main(converted[1]) == 1
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
