"""Photos, a small model, and runs of ``partclipseg label`` that the tests of this folder share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.apps.label.helpers import (
    PHOTOS,
    arguments,
    make_photos,
    records,
)
from tests.conftest import small_config
from tests.processes import quick_context

from partclipseg.apps.cli import main
from partclipseg.apps.label import report


@pytest.fixture(scope="session", autouse=True)
def small_thumbnails() -> Iterator[None]:
    """Draw the pictures of each report small: at their size they take a quarter of a run on these few photos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "THUMBNAIL", 60)
        yield


@pytest.fixture(scope="session", autouse=True)
def ray_workers_run_like_others() -> Iterator[None]:
    """Start Ray's workers at the usual priority: at the low one that Ray gives them, other tests leave them no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes start within a moment."""
    monkeypatch.setattr("partclipseg.apps.label.workers.get_context", lambda _: quick_context())


@pytest.fixture(scope="session")
def model(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose logits are smooth, as a trained one's are: all pixels of a token share their weights."""
    from partclipseg.models.partclipseg.model import PartCLIPSegModel

    directory = tmp_path_factory.mktemp("smooth") / "model"
    shutil.copytree(model_directory, directory)
    torch.manual_seed(0)
    network = PartCLIPSegModel(small_config())  # whose segments are compact
    with torch.no_grad():
        for head in (network.decoder.upsample, network.decoder.class_upsample):
            for layer in (head[2], head[4]):
                layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    network.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven scenes in folders, two photos that differ in their suffix only, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder, 11)
    first = folder / "scenes/0/000.png"
    Image.open(first).resize((90, 60)).save(folder / "twin.jpg")
    Image.open(first).resize((60, 90)).save(folder / "twin.png")
    (folder / "no photo.jpg").write_text("not a photo")
    (folder / "cut.png").write_bytes(first.read_bytes()[:900])
    return folder


@pytest.fixture(scope="session")
def labelled(photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("labels") / "out"
    assert main(arguments(photos, output, model)) == 1  # two photos are bad
    return output


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """27 scenes and the real photos."""
    folder = tmp_path_factory.mktemp("many")
    make_photos(folder, PHOTOS - 5)
    for path in (shared / "data/photos").glob("*.jpg"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def uninterrupted(many: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    assert main(arguments(many, output, model)) == 0
    assert len(records(output)) == PHOTOS
    return output
