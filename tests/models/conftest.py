"""Fixtures of models: a random CLIPSeg, and for models by name an empty cache and hosts on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import small_config
from tests.models.hosts import DRIVE_ID, Hosts, own_catalogue, redirect, released_file, serving, tokenizer_on_hub
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from partclipseg.models.partclipseg.config import PartCLIPSegConfig


@pytest.fixture(params=[True, False], ids=["complex", "simple"])
def random_clipseg(request: pytest.FixtureRequest, config: PartCLIPSegConfig) -> CLIPSegForImageSegmentation:
    """A small random CLIPSeg of transformers, with either head."""
    values = config.to_dict()
    fields = ("text_config", "vision_config", "projection_dim", "reduce_dim", "extract_layers")
    return CLIPSegForImageSegmentation(
        CLIPSegConfig(
            **{field: values[field] for field in fields},
            decoder_intermediate_size=32,
            use_complex_transposed_convolution=request.param,
        )
    )


@pytest.fixture(scope="session")
def content() -> bytes:
    return released_file(small_config())


@pytest.fixture
def cache(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, in which the catalogue says that the released file is small."""
    monkeypatch.setenv("PARTCLIPSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    own_catalogue(tmp_path / "home", content, small_config())
    return tmp_path / "home"


@pytest.fixture
def hosts(cache: Path, content: bytes, tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with serving() as server:
        server.drive[DRIVE_ID] = content
        server.hub |= tokenizer_on_hub(tokenizer_directory)
        redirect(monkeypatch, server.address)
        yield server
