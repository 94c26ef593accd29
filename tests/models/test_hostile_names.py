"""Names of models that name none: each is answered by one sentence, most of them without the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import load_model, load_tokenizer


@pytest.mark.parametrize(
    "name",
    [
        "x" * 300,
        "x" * 300 + "/" + "y" * 300,
        "a\0b",
        "owner/a\0b",
        "a\nb/c\nd",
        "dog: ear",
        "",
        " ",
        "models/pascl",
        "./x",
        "../x",
        "/nowhere/x",
        "x/y/z",
        "x/",
        "owner/model/",
        "models\\pascal",
        "C:\\models\\pascal",
        "~/models",
        "pascl",
        "mine/pascl",
        "https://example.org/a/b",
        7,
        None,
    ],
)
def test_mistyped_names_are_answered_without_the_hub(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import partclipseg.models.names as names

    monkeypatch.setattr(names, "hub_file", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "pascal").mkdir(parents=True)
    for load in (load_model, load_tokenizer, PartCLIPSegModel.from_pretrained):
        with pytest.raises(PartCLIPSegError, match="give a model's directory") as caught:
            load(name)
        assert len(str(caught.value)) < 500
        assert ("did you mean mine/pascal?" in str(caught.value)) == (name == "mine/pascl")
    assert "asking" not in caplog.text
