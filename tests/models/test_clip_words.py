"""CLIP's own tokenisation, with the byte-pair vocabulary of the package instant-clip-tokenizer."""

from __future__ import annotations

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

package = pytest.importorskip("instant_clip_tokenizer", reason="needs the byte-pair vocabulary of a package of dev")

START, END = 49406, 49407


PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]

LETTERS = {byte: chr(byte) for byte in PRINTABLE}
LETTERS |= {byte: chr(256 + i) for i, byte in enumerate(byte for byte in range(256) if byte not in PRINTABLE)}
"""Printable letters that stand for the 256 bytes, in CLIP's order."""


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``vocab.json`` and ``merges.txt`` of CLIP.

    The package decodes tokens, but has no list of merges: each token is the merge of the two tokens that the earlier
    merges leave of it. Tokens that are no whole letters, parts of emoji, get names of their own.
    """
    decode = package.Tokenizer().decode
    tokens = [*LETTERS.values(), *(f"{letter}</w>" for letter in LETTERS.values())]
    ranks: dict[tuple[str, str], int] = {}
    for index in range(512, START):
        text = decode([index])
        if "\N{REPLACEMENT CHARACTER}" in text:
            tokens.append(f"<bytes {index}>")
            continue
        pieces = [LETTERS[byte] for byte in text.strip().encode()]
        if text.endswith(" "):
            pieces[-1] += "</w>"
        pieces = merged(pieces, ranks)
        tokens.append("".join(pieces))
        if len(pieces) == 2:
            ranks[pieces[0], pieces[1]] = len(ranks)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in ranks)]))
    return folder


def merged(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    while len(pieces) > 1:
        best = min(range(len(pieces) - 1), key=lambda i: ranks.get((pieces[i], pieces[i + 1]), len(ranks)))
        if (pieces[best], pieces[best + 1]) not in ranks:
            break
        pieces = [*pieces[:best], pieces[best] + pieces[best + 1], *pieces[best + 2 :]]
    return pieces


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
def test_all_words_of_the_catalogues(catalogue: str, clip_tokenizer: Path):
    vocabulary = Vocabulary.load(catalogue)
    words = [*vocabulary.parts, *vocabulary.objects, *(pair.name for pair in vocabulary.object_parts)]
    assert len(words) > 100
    reference = package.Tokenizer().encode
    found = fitting_tokenizer(clip_tokenizer, PartCLIPSegConfig.from_reference().text_config)(words)["input_ids"]
    assert found == [[START, *reference(word), END] for word in words]


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
    assert "has 49408 tokens and the checkpoint 600: give the tokenizer that the checkpoint was trained with" in said
    assert not (tmp_path / "out").exists()
