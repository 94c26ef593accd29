"""Models on the Hugging Face hub: what it says is passed on, and nothing waits for a hub that is not there."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.instances.tiny import build
from tests.models.hosts import Hosts, redirect

from partclipseg import Detector, PartSegmenter
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import find_device, load_model, load_tokenizer

NOWHERE = "http://127.0.0.1:9"


def put_on_hub(hosts: Hosts, name: str, folder: Path) -> None:
    hosts.hub |= {f"{name}/{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (
            (404, "RepoNotFound"),
            r"no directory 'lab/pets', and no model lab/pets exists on the Hugging Face hub \(or it is private: log in",
        ),
        ((401, "RepoNotFound"), "no model lab/pets exists on the Hugging Face hub"),
        (
            (404, "EntryNotFound"),
            r"the Hugging Face hub has no config.json of a model of that name: check the spelling",
        ),
        ((404, ""), r"the Hugging Face hub has no config.json of a model of that name: check the spelling"),
        ((404, "RevisionNotFound"), "the model lab/pets on the Hugging Face hub has no such revision"),
        ((403, "GatedRepo"), "is open to some people only .ask for access on its page"),
        ((403, ""), "the Hugging Face hub answers 403 for config.json of lab/pets"),
        ((418, ""), "the Hugging Face hub answers 418 for config.json of lab/pets"),
    ],
)
def test_what_the_hub_answers_is_passed_on(says: tuple[int, str], message: str, hosts: Hosts):
    hosts.hub_says = says
    with pytest.raises(PartCLIPSegError, match=message) as caught:
        load_model("lab/pets")
    assert "\n" not in str(caught.value)
    assert "reached" not in str(caught.value)


@pytest.mark.parametrize("load", [load_model, load_tokenizer, PartSegmenter.from_pretrained])
def test_a_hub_that_is_not_there_is_said_at_once(load: Any, cache: Path, monkeypatch: pytest.MonkeyPatch):
    redirect(monkeypatch, NOWHERE)
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(
        PartCLIPSegError, match=r"'lab/pets', and the Hugging Face hub cannot be reached: give a model's"
    ):
        load("lab/pets")
    assert sum(slept) < 5


def test_a_detector_of_the_hub_works_without_it_later(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_on_hub(hosts, "lab/finder", build("grounding-dino", tmp_path / "finder"))
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)

    def boxes() -> list[tuple[float, ...]]:
        (found,) = Detector.from_pretrained("lab/finder", threshold=0).find([photo], ["dog"])
        return [one.box for one in found]

    expected = boxes()
    (found,) = Detector.from_pretrained(tmp_path / "finder", threshold=0).find([photo], ["dog"])
    assert [one.box for one in found] == expected  # with the size that its settings ask for
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert boxes() == expected


def test_a_model_of_the_hub_works_without_it_later(
    hosts: Hosts, model_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    put_on_hub(hosts, "lab/pets", model_directory)
    expected = PartSegmenter.from_pretrained("lab/pets").model.state_dict()
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        same(PartSegmenter.from_pretrained("lab/pets").model, expected)
    redirect(monkeypatch, NOWHERE)
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    same(PartSegmenter.from_pretrained("lab/pets").model, expected)
    assert sum(slept) < 10
    assert "cannot be reached: using lab/pets as it was fetched before" in caplog.text


def same(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_loading_and_saving_show_no_bar_and_leave_the_bars_as_they_were(model_directory: Path, tmp_path: Path):
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    logging.enable_progress_bar()
    try:
        shown = io.StringIO()
        with redirect_stderr(shown):
            PartSegmenter.from_pretrained(model_directory).save_pretrained(tmp_path / "again")
        assert shown.getvalue() == ""
        assert logging.is_progress_bar_enabled()
        assert not are_progress_bars_disabled()
    finally:
        if not before[0]:
            logging.disable_progress_bar()
        assert (logging.is_progress_bar_enabled(), are_progress_bars_disabled()) == before


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_device_is_chosen(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert find_device(None) == torch.device(expected)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="MPS is here")
def test_an_absent_device_is_named():
    with pytest.raises(UsageError, match="there is no device 'mps' here: use 'cpu' or leave the option out"):
        find_device("mps")


def test_a_released_name_is_no_name_of_a_folder(hosts: Hosts, cache: Path, tmp_path: Path):
    """`load_model` fetches it; classes, which load folders and hub names, say what does."""
    with pytest.raises(PartCLIPSegError, match=r"is a name that `partclipseg models` lists: load it by `load_model`"):
        PartCLIPSegModel.from_pretrained("partclipseg-pascal")
    model = load_model("partclipseg-pascal")
    assert isinstance(model, PartCLIPSegModel)
    shutil.rmtree(cache / "models")
