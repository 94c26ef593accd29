"""A model's directory: everything that goes together, here, for transformers, and on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch

from partclipseg import PartCLIPSegError, PartSegmenter, UsageError, Vocabulary

FILES = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocabulary.json"}


@pytest.fixture
def segmenter(model_directory: Path) -> PartSegmenter:
    segmenter = PartSegmenter.from_pretrained(model_directory, device="cpu")
    segmenter.vocabulary = Vocabulary.load("dog: ear, tail; bus: wheel")
    return segmenter


def test_what_is_saved_can_be_loaded(segmenter: PartSegmenter, tmp_path: Path) -> None:
    directory = segmenter.save_pretrained(tmp_path / "models/pets")
    assert {path.name for path in directory.iterdir()} == FILES
    again = PartSegmenter.from_pretrained(directory, device="cpu")
    assert again.vocabulary == segmenter.vocabulary
    photo = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again(photo).label_map, segmenter(photo).label_map)
    card = (directory / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: partclipseg\n")
    assert "- bus: wheel\n- dog: ear, tail\n" in card
    assert f'from_pretrained("{directory}")' in card


def test_without_words_of_its_own(segmenter: PartSegmenter, tmp_path: Path) -> None:
    segmenter.vocabulary = None
    directory = segmenter.save_pretrained(tmp_path / "plain")
    assert {path.name for path in directory.iterdir()} == FILES - {"vocabulary.json"}
    assert PartSegmenter.from_pretrained(directory, device="cpu").vocabulary is None
    assert "no words of its own" in (directory / "README.md").read_text()


def test_nothing_is_overwritten(segmenter: PartSegmenter, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "file", "dangling"):
        with pytest.raises(UsageError, match=f"{name} exists already: name another directory"):
            segmenter.save_pretrained(tmp_path / name)
    with pytest.raises(PartCLIPSegError, match=r"below cannot be read or written \("):
        segmenter.save_pretrained(tmp_path / "file/below")
    assert (tmp_path / "mine/notes.txt").read_text() == (tmp_path / "file").read_text() == "keep"
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_appears_while_it_writes_is_kept(
    segmenter: PartSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = segmenter.tokenizer.save_pretrained

    def somebody_else_is_faster(*args: Any, **kwargs: Any) -> Any:
        (tmp_path / "model").mkdir()
        (tmp_path / "model/notes.txt").write_text("keep")
        return whole(*args, **kwargs)

    monkeypatch.setattr(segmenter.tokenizer, "save_pretrained", somebody_else_is_faster)
    with pytest.raises(UsageError, match="model was made by another program meanwhile and is kept"):
        segmenter.save_pretrained(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class FakeHub:
    """Stands in for `huggingface_hub.HfApi`: remembers calls, and what was in the uploaded folder."""

    def __init__(self, owner: str = "me") -> None:
        self.owner, self.token = owner, None
        self.made: list[tuple[str, Any]] = []
        self.uploads: list[tuple[str, str, dict[str, bytes]]] = []

    def __call__(self, token: str | None = None) -> FakeHub:
        self.token = token
        return self

    def create_repo(self, name: str, private: bool | None, exist_ok: bool) -> SimpleNamespace:
        assert exist_ok
        self.made.append((name, private))
        return SimpleNamespace(repo_id=name if "/" in name else f"{self.owner}/{name}")

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> SimpleNamespace:
        content = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.uploads.append((repo_id, commit_message, content))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    return hub


@pytest.mark.parametrize(("name", "full_name"), [("lab/pets", "lab/pets"), ("pets", "me/pets")])
def test_the_hub_gets_all_files(name: str, full_name: str, segmenter: PartSegmenter, hub: FakeHub) -> None:
    address = segmenter.push_to_hub(name, private=True, token="secret", commit_message="First")
    assert address == f"https://hub/{full_name}/commit/1"
    assert (hub.token, hub.made) == ("secret", [(name, True)])
    [(repo, message, content)] = hub.uploads
    assert (repo, message, set(content)) == (full_name, "First", FILES)
    assert json.loads(content["vocabulary.json"])
    assert f'from_pretrained("{full_name}")' in content["README.md"].decode()


def test_what_the_hub_refuses_is_one_sentence(
    segmenter: PartSegmenter, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("403 Forbidden\nlong page")

    for name in ("", "a/b/c", "with space/x", "/abs", None, "-x"):
        with pytest.raises(UsageError, match="is no name for the hub: give owner/model"):
            segmenter.push_to_hub(name)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(hub, "upload_folder", refuse)
    with pytest.raises(PartCLIPSegError, match=r"the upload to me/pets failed: .* \(OSError: 403 Forbidden\)$"):
        segmenter.push_to_hub("pets")
    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(PartCLIPSegError, match=r"did not take pets: log in by `hf auth login`"):
        segmenter.push_to_hub("pets")
    assert not hub.uploads


def test_words_of_a_model_on_the_hub_come_along(
    segmenter: PartSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from partclipseg.models import names
    from partclipseg.models.registry import load_vocabulary

    directory = segmenter.save_pretrained(tmp_path / "cache")

    def cached(name: str, file: str, **_: Any) -> Path | None:
        return directory / file if (directory / file).is_file() else None

    monkeypatch.setattr(names, "hub_file", cached)
    assert load_vocabulary("lab/pets") == segmenter.vocabulary
    (directory / "vocabulary.json").unlink()
    assert load_vocabulary("lab/pets") is None


def test_the_number_type_is_kept(segmenter: PartSegmenter, tmp_path: Path) -> None:
    segmenter.model.to(torch.bfloat16)
    directory = segmenter.save_pretrained(tmp_path / "small")
    assert json.loads((directory / "config.json").read_text())["dtype"] == "bfloat16"
