"""A torchvision that was built for another torch is named, since it breaks every import of a model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from partclipseg.errors import PartCLIPSegError
from partclipseg.models import interface
from partclipseg.models.imports import fitting_torchvision


@pytest.fixture
def torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is imported as torchvision."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (tmp_path / "torchvision").mkdir()
    return tmp_path / "torchvision" / "__init__.py"


def test_the_models_name_a_torchvision_that_does_not_fit(torchvision: Path, monkeypatch: pytest.MonkeyPatch):
    torchvision.write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setitem(sys.modules, "transformers.modeling_utils", None)  # its import fails
    spec = importlib.util.spec_from_file_location("interface_again", interface.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "interface_again", module)
    with pytest.raises(
        PartCLIPSegError,
        match=r"torchvision does not fit torch [\d.]+.* \(operator torchvision::nms does not exist\): install the one "
        "that belongs to this torch, or remove it by `pip uninstall torchvision`",
    ):
        spec.loader.exec_module(module)


@pytest.mark.parametrize("content", ["", None])
def test_other_errors_stay_as_they_are(content: str | None, torchvision: Path):
    if content is None:
        torchvision.parent.rmdir()
    else:
        torchvision.write_text(content)
    with pytest.raises(ImportError, match="something else"), fitting_torchvision():
        raise ImportError("something else")
