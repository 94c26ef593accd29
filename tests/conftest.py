"""Fixtures for every room: the shared data beside the repository, and models small enough for a test."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

# Workers of pytest-xdist share the cores. Set before torch is imported; processes that tests start inherit it.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from partclipseg.models.partclipseg.config import PartCLIPSegConfig

REPOSITORY = Path(__file__).resolve().parents[1]

# The suite tries the same examples in each run, so that a change alone can make it fail. New ones are looked for by
# `pytest --hypothesis-profile explore`.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile("suite")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Let `-n auto` start a worker more than there are cores: servers, browsers and processes are often waited for."""
    return (yield) + 1


def pytest_configure(config: pytest.Config) -> None:
    """Leave the order of files to `pytest_collection_modifyitems`; pytest-xdist sorts them by their number of tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Take modules and collected tests, which stay, out of garbage collection: a seventh of the suite's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Take what a file leaves, such as modules and caches of the compiler, out of it too.

    After exports a collection takes half a second otherwise, and each row of the benchmarks makes one.
    """
    try:
        return (yield)
    finally:
        if nextitem is not None and nextitem.path != item.path:
            gc.collect()
            gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that have slow tests, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden tensors and real data, beside the repository; tests that need it skip without it."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared golden tensors and data beside the repository")
    return folder


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def small_config(**changes: object) -> PartCLIPSegConfig:
    """A configuration of some 60,000 parameters with everything that the real one has."""
    values: dict[str, object] = {
        "text_config": {
            "vocab_size": 600,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 24,
            "bos_token_id": 598,
            "eos_token_id": 599,
            "pad_token_id": 599,
        },
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        "projection_dim": 24,
        "reduce_dim": 16,
        "decoder_intermediate_size": 32,
        "extract_layers": [0, 1, 3],
        "use_complex_transposed_convolution": True,
        "image_size": 64,
    }
    return PartCLIPSegConfig(**{**values, **changes})


def shallow_config(**changes: object) -> PartCLIPSegConfig:
    """Return `small_config` with as few layers as leave every kind: they take the time of a load and of an export."""
    config = small_config(extract_layers=[0, 1], **changes)
    config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers = 1, 2
    return config


@pytest.fixture(scope="session")
def few_bars() -> Iterator[None]:
    """Draw the bars of a report for eight of its classes: those of a benchmark's take half of a small evaluation."""
    from partclipseg.evaluation import examples

    draw = examples.draw_class_bars

    def draw_some(scores: Any, path: Path, title: str) -> None:
        draw(replace(scores, classes=scores.classes[:8]), path, title)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "draw_class_bars", draw_some)
        yield


@pytest.fixture
def config() -> PartCLIPSegConfig:
    return small_config()


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP tokenizer that spells words letter by letter, in the layout that hub directories have."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    tokens = letters + [f"{letter}</w>" for letter in letters]
    tokens += [f"<unused{index}>" for index in range(598 - len(tokens))] + ["<|startoftext|>", "<|endoftext|>"]
    directory = tmp_path_factory.mktemp("tokenizer")
    CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[]).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory, tokenizer_directory: Path) -> Path:
    """A random PartCLIPSeg with its tokenizer, as `from_pretrained` takes it."""
    from partclipseg.models.partclipseg.model import PartCLIPSegModel
    from partclipseg.models.registry import load_tokenizer

    torch.manual_seed(5)  # several classes win, and several instances are found, in photos of random colours
    directory = tmp_path_factory.mktemp("model")
    PartCLIPSegModel(shallow_config()).save_pretrained(directory)
    load_tokenizer(tokenizer_directory).save_pretrained(directory)
    return directory


class Golden:
    """One golden case of the reference: configuration, words, inputs and outputs."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.meta = json.loads((folder / "meta.json").read_text())
        self.tensors = load_file(folder / "tensors.safetensors")
        self.checkpoint = folder / "checkpoint.pth"

    def model(self):
        """The reference's weights in our model, in reference mode."""
        from partclipseg.models.partclipseg.foreign import load_reference_checkpoint

        return load_reference_checkpoint(self.checkpoint, self.meta["hf_config"])

    def vocabulary(self, split: str):
        from partclipseg.vocabulary import Vocabulary

        return Vocabulary.from_names(self.meta[f"{split}_classes"])

    def inputs(self, split: str) -> dict[str, torch.Tensor]:
        """The case's training or test photos as the reference prepared them."""
        return {"pixel_values": self.tensors[f"{split}.pixel_values"]}

    def words(self, model, split: str):
        """The case's training or test words, embedded by the model."""
        from partclipseg.models.interface import Words

        tokens = (self.tensors[f"{split}.{name}"] for name in ("input_ids", "attention_mask"))
        return Words.of(self.vocabulary(split), model.encode_text(*tokens))


@pytest.fixture(params=["case_a", "case_b"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared / "reference" / "golden" / request.param)


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """Six photos of noise with index PNGs: cat's ear, cat's leg, dog's ear."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("cat's ear\ncat's leg\ndog's ear\n")
    generator = np.random.default_rng(0)
    for index in range(6):
        size = (40 + 4 * index, 56)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"images/p{index}.png")
        labels = np.full(size, 255, np.uint8)
        labels[5:30, 5:30] = index % 3
        labels[20:35, 20:50] = (index + 1) % 3
        Image.fromarray(labels).save(root / f"labels/p{index}.png")
    return root
