"""CLIP's own tokenisation, with the byte-pair vocabulary and the tokenizer of the package openai-clip."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import small_config
from tests.models.hosts import released_file

from partclipseg.apps.cli import main
from partclipseg.models.convert import fitting_tokenizer
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.registry import load_tokenizer
from partclipseg.vocabulary import Vocabulary

START, END = 49406, 49407


@pytest.fixture(scope="module")
def reference() -> Any:
    """OpenAI's tokenizer. It is read as a file of its own: the package itself imports torchvision."""
    package = importlib.util.find_spec("clip")
    path = Path(str(package and package.origin)).with_name("simple_tokenizer.py")
    if not path.is_file():
        pytest.skip("needs openai-clip, of the extra dev")
    specification = importlib.util.spec_from_file_location("clip_simple_tokenizer", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.SimpleTokenizer()


@pytest.fixture(scope="module")
def clip_tokenizer(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``vocab.json`` and ``merges.txt`` of CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps(reference.encoder))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, reference.bpe_ranks)]))
    return folder


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("Dog's  Ear", [1929, 568, 8373]),
    ],
)
def test_known_texts(text: str, ids: list[int], clip_tokenizer: Path):
    assert load_tokenizer(clip_tokenizer)(text)["input_ids"] == [START, *ids, END]


@pytest.mark.parametrize("catalogue", ["pascal-part-116", "ade20k-part-234", "part-imagenet"])
def test_all_words_of_the_catalogues(catalogue: str, reference: Any, clip_tokenizer: Path):
    vocabulary = Vocabulary.load(catalogue)
    words = [*vocabulary.parts, *vocabulary.objects, *(pair.name for pair in vocabulary.object_parts)]
    assert len(words) > 100
    found = fitting_tokenizer(clip_tokenizer, PartCLIPSegConfig.from_reference().text_config)(words)["input_ids"]
    assert found == [[START, *reference.encode(word), END] for word in words]


def test_convert_asks_for_the_size_before_it_reads_weights(
    clip_tokenizer: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "small.pth").write_bytes(released_file(small_config()))
    (tmp_path / "config.json").write_text(json.dumps(small_config().to_dict()))
    read = torch.load

    def shapes_only(*args: Any, **kwargs: Any) -> Any:
        assert kwargs["map_location"] == "meta", "the weights were read"
        return read(*args, **kwargs)

    monkeypatch.setattr(torch, "load", shapes_only)
    call = ["convert", str(tmp_path / "small.pth"), "--output", str(tmp_path / "out"), "--vocabulary", "dog: ear"]
    call += ["--config", str(tmp_path / "config.json"), "--tokenizer", str(clip_tokenizer)]
    assert main(call) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "has 49408 tokens and the model's configuration 600: give the tokenizer that" in said
    assert not (tmp_path / "out").exists()
