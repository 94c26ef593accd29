"""The page for a Space: answered by gradio itself, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.integrations.conftest import INTEGRATIONS, load

from partclipseg import PartSegmenter

WORDS = "bus: wheel, window, body"


@pytest.fixture(scope="module")
def gradio_client() -> Any:
    """The package; gradio takes seconds to import, which a worker without these tests need not."""
    pytest.importorskip("gradio")
    return pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def client(gradio_client: Any) -> Any:
    demo = load("space/app.py").demo
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield gradio_client.Client(address, verbose=False)
    demo.close()


def test_parts_of_a_photo(
    client: Any, gradio_client: Any, tmp_path: Path, photo: np.ndarray, segmenter: PartSegmenter
):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    answer = client.predict(gradio_client.handle_file(tmp_path / "photo.png"), WORDS)
    annotations = answer["value"]["annotations"] if "value" in answer else answer["annotations"]
    result = segmenter(photo, WORDS)
    assert [annotation["label"] for annotation in annotations] == [segment.name for segment in result]
    assert len(result) > 0
    for annotation, segment in zip(annotations, result, strict=True):
        with Image.open(annotation["image"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture.convert("RGBA"))[..., 3] > 0, segment.mask)


def test_wrong_words_are_answered_by_the_sentence(
    client: Any, gradio_client: Any, tmp_path: Path, photo: np.ndarray
):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with pytest.raises(Exception, match="'bus' has no part"):
        client.predict(gradio_client.handle_file(tmp_path / "photo.png"), "bus:")
    with pytest.raises(Exception, match="Choose a photo first"):
        client.predict(None, WORDS)


@pytest.mark.parametrize("name", ["words.txt", "words.yaml"])
def test_words_are_never_a_file(client: Any, gradio_client: Any, tmp_path: Path, photo: np.ndarray, name: str):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (tmp_path / name).write_text("hidden: content\n")
    try:
        answer = client.predict(gradio_client.handle_file(tmp_path / "photo.png"), str(tmp_path / name))
    except Exception as error:
        answer = error
    assert "hidden" not in repr(answer)


def test_the_readme_names_the_file():
    assert "app_file: app.py" in (INTEGRATIONS / "space/README.md").read_text()
