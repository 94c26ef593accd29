"""Checkpoints: whole, verified, and refused in words that help."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from partclipseg.errors import PartCLIPSegError
from partclipseg.training.checkpoint import CheckpointStore, differences


def states(value: float) -> dict[str, object]:
    return {"model": {"weight": torch.full((3,), value)}, "counter": {"step": int(value), "name": "run", "none": None}}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        store.save(step, states(step))
    return store


def test_the_newest_is_loaded_and_the_last_two_are_kept(store: CheckpointStore) -> None:
    checkpoint = store.load()
    assert checkpoint is not None
    assert checkpoint.step == 30
    assert torch.equal(checkpoint.states["model"]["weight"], torch.full((3,), 30.0))
    assert checkpoint.states["counter"] == {"step": 30, "name": "run", "none": None}
    assert store.steps() == [20, 30]


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "nowhere").load() is None


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / "model.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "model.pt").write_bytes(content)


def cut_short(path: Path) -> None:
    content = (path / "model.pt").read_bytes()
    (path / "model.pt").write_bytes(content[: len(content) // 2])


DAMAGES = {
    "a bit flipped": flip_a_bit,
    "cut short": cut_short,
    "a file missing": lambda path: (path / "counter.pt").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "a broken manifest": lambda path: (path / "manifest.json").write_text('{"sha256": '),
    "another manifest": lambda path: (path / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_one_is_named_and_the_one_before_it_used(
    store: CheckpointStore, damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(store.directory / "step-00000030")
    with caplog.at_level(logging.WARNING):
        checkpoint = store.load()
    assert checkpoint is not None
    assert checkpoint.step == 20
    assert "step-00000030 is damaged" in caplog.text


def test_only_damaged_ones_are_an_error_and_can_be_written_over(store: CheckpointStore) -> None:
    for step in store.steps():
        flip_a_bit(store.directory / f"step-{step:08d}")
    with pytest.raises(PartCLIPSegError, match=r"every checkpoint in .* is damaged"):
        store.load()
    store.save(30, states(31))
    checkpoint = store.load()
    assert checkpoint is not None
    assert checkpoint.states["counter"]["step"] == 31


def test_what_a_killed_process_left_is_not_a_checkpoint_and_is_cleared(store: CheckpointStore) -> None:
    leftover = store.directory / ".partclipseg-4194305-0123abcd.tmp"  # no process has so high a number
    others = store.directory / ".step-notes.tmp"
    for folder in (leftover, others):
        folder.mkdir()
        (folder / "model.pt").write_bytes(b"half")
    assert store.steps() == [20, 30]
    store.save(50, states(50))
    assert not leftover.exists()
    assert others.exists(), "somebody else's"


@pytest.mark.parametrize(
    "manifest",
    [
        '{"step": 30, "sha256": {}}', '{"sha256": []}', '{"sha256": null}', '{"sha256": {"model.pt": 3}}', "null", "7",
        '{"sha256": {"../model.pt": "x"}}', '{"step": 30}', "\x00", "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_manifest_of_another_form_is_damage(
    store: CheckpointStore, manifest: str, caplog: pytest.LogCaptureFixture
) -> None:
    strict = CheckpointStore(store.directory, states=("model", "counter"))
    (store.directory / "step-00000030" / "manifest.json").write_text(manifest)
    checkpoint = strict.load()
    assert checkpoint is not None
    assert checkpoint.step == 20
    assert "step-00000030 is damaged" in caplog.text


def test_a_checkpoint_without_a_needed_state_is_damaged(store: CheckpointStore) -> None:
    with pytest.raises(PartCLIPSegError, match=r"every checkpoint in .* is damaged: delete that folder"):
        CheckpointStore(store.directory, states=("model", "optimizer")).load()


def test_a_failed_save_leaves_the_others_alone(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(PartCLIPSegError, match=r"step-00000040 cannot be .*No space left.*: make room"):
        store.save(40, states(40))
    assert store.steps() == [20, 30]
    assert not list(store.directory.glob(".*"))


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PartCLIPSegError, match="keep at least one"):
        CheckpointStore(tmp_path, keep=0)


def test_differences_name_the_nested_field_and_skip_what_is_harmless() -> None:
    then = {"steps": 10, "loss": {"weight": 0.1}, "crop": [0.5, 1.0], "log_every": 5}
    now = {"steps": 10, "loss": {"weight": 0.2}, "crop": (0.5, 1.0), "log_every": 7, "new": True}
    assert differences(then, now, harmless={"log_every"}) == [
        "loss.weight: 0.1 then, 0.2 now",
        "new: 'absent' then, True now",
    ]
    assert differences(then, now, harmless={"log_every", "loss.weight", "new"}) == []
