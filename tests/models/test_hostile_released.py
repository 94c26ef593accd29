"""Damaged files of the released implementation: `convert` refuses each by one sentence."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from tests.models.damage import CASES, HTML, LFS, NOT_A_TABLE, Damage, damaged, drop

from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg_weights import foreign_names
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.foreign import load_reference_checkpoint
from partclipseg.models.partclipseg.model import PartCLIPSegModel


@pytest.fixture
def released(config: PartCLIPSegConfig, tmp_path: Path) -> Path:
    content: dict[str, torch.Tensor] = {}
    for name, tensor in PartCLIPSegModel(config).state_dict().items():
        names = foreign_names(name, config)
        content.update(zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True))
    torch.save({"model": content}, tmp_path / "released.pth")
    return tmp_path / "released.pth"


def resave(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)["model"]
        changed = change(content) or None
        torch.save({"model": content} if changed is None else changed, path)

    return damage


def resaved_bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("released.pth", content)
    return file.getvalue()


def damaged_list(place: int) -> Damage:
    """Damage two bytes of the first entry in the list of a ZIP archive's files, which stands at its end."""

    def change(content: bytes) -> bytes:
        start = content.index(b"PK\x01\x02") + place
        return content[:start] + b"\xff\xff" + content[start + 2 :]

    return resaved_bytes(change)


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


RELEASED: dict[str, tuple[Damage, str]] = {
    "gone": (Path.unlink, "there is no file"),
    "directory": (_as_directory, "is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "web page": (lambda path: path.write_bytes(HTML), "is a web page"),
    "Git LFS pointer": (lambda path: path.write_bytes(LFS), "git lfs pull"),
    "text": (lambda path: path.write_bytes(b"hello"), "is refused|not a readable"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-900]), "not a readable"),
    "no table": (resave(lambda t: {"model": 5}), "no table of tensors under 'model'"),
    "list": (resave(lambda t: [1]), "no table of tensors"),
    "numbered": (resave(lambda t: {"model": {1: torch.zeros(1)}}), "no table of tensors"),
    "NaN": (resave(lambda t: t["decoder.film_mul.weight"].fill_(float("nan")) is None), "NaN or infinity in 1 tensor"),
    "sparse": (resave(lambda t: t.update(non_object_embedding=torch.zeros(1, 24).to_sparse())), "not dense"),
    "whole numbers": (resave(lambda t: t.update(non_object_embedding=torch.zeros(1, 24).int())), "not dense"),
    "missing": (resave(drop("reduces")), "missing: decoder.reduces.0.bias"),
    "two models": (
        resave(lambda t: t.update({f"partclipseg_model.{name}": tensor * 0 for name, tensor in t.items()})),
        "holds two models in one: non_object_embedding and partclipseg_model.non_object_embedding are one tensor",
    ),
    "safetensors": (resaved_bytes(lambda content: save({"a": torch.zeros(3)})), "is a safetensors file, not a PyTorch"),
    "gzip": (resaved_bytes(gzip.compress), "is packed: unpack it"),
    "ZIP": (resaved_bytes(zipped), "is a ZIP archive and no PyTorch checkpoint: unpack it"),
    "list of the archive": (damaged_list(0), "is not a readable PyTorch checkpoint: copy or download it again"),
    "length of a name in it": (damaged_list(28), "is not a readable PyTorch checkpoint: copy or download it again"),
    "half of it": (resave(drop("clip.text_model")), "missing: clip.text_model"),
    "too large for float32": (
        resave(lambda t: t.update({name: tensor.double() * 1e300 for name, tensor in t.items()})),
        "NaN or infinity in",
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_a_damaged_released_file_is_refused(released: Path, config: PartCLIPSegConfig, name: str):
    damage, words = RELEASED[name]
    damage(released)
    with pytest.raises(PartCLIPSegError, match=words) as caught:
        load_reference_checkpoint(released, config)
    assert str(released) in str(caught.value)


@pytest.mark.parametrize("number_type", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types_and_the_prefix_of_parallel_training(
    released: Path, config: PartCLIPSegConfig, number_type: torch.dtype
):
    plain = load_reference_checkpoint(released, config).state_dict()
    resave(lambda t: {"model": {f"module.{name}": tensor.to(number_type) for name, tensor in t.items()}})(released)
    for name, tensor in load_reference_checkpoint(released, config).state_dict().items():
        assert torch.equal(tensor, plain[name].to(number_type).float()), name


def test_a_configuration_that_is_larger_than_the_released_file(released: Path, config: PartCLIPSegConfig):
    vision = config.vision_config.to_dict() | {"num_hidden_layers": 200, "hidden_size": 16_384}
    with pytest.raises(PartCLIPSegError, match="asks for"):
        load_reference_checkpoint(released, config.to_dict() | {"vision_config": vision})


@pytest.mark.parametrize("size", [-100, 100])
def test_convert_checks_the_tokenizer_before_the_weights(
    released: Path, config: PartCLIPSegConfig, tokenizer_directory: Path, size: int, tmp_path: Path, capsys: Any
):
    values = config.to_dict()
    values["text_config"]["vocab_size"] += size
    (tmp_path / "config.json").write_text(json.dumps(values))
    resave(drop("reduces"))(released)
    words = ["--vocabulary", "dog: ear", "--config", str(tmp_path / "config.json")]
    options = ["--output", str(tmp_path / "out"), *words, "--tokenizer", str(tokenizer_directory)]
    assert main(["convert", str(released), *options]) == 1
    assert "has 600 tokens and the model's configuration" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NOT_A_TABLE)
def test_convert_refuses_a_configuration_that_is_no_table(released: Path, tmp_path: Path, name: str, capsys: Any):
    content, words = NOT_A_TABLE[name]
    (tmp_path / "config.json").write_bytes(content)
    options = ["--vocabulary", "dog: ear", "--config", str(tmp_path / "config.json")]
    assert main(["convert", str(released), "--output", str(tmp_path / "out"), *options]) == 1
    assert words in " ".join(capsys.readouterr().err.split())


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_of_a_released_file(released: Path, config: PartCLIPSegConfig, data: st.DataObject):
    path = released.with_name("damaged.pth")
    path.write_bytes(data.draw(damaged(released.read_bytes())))
    try:
        load_reference_checkpoint(path, config)
    except PartCLIPSegError as error:
        said = str(error)
    else:
        said = str(path)
    assert str(path) in said
