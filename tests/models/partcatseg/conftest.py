"""Fixtures: the golden cases of the reference, and both families."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.foreign import load_released
from partclipseg.vocabulary import Vocabulary

CASES = {"case_a": PartCATSegConfig, "catseg_a": CATSegConfig}


class Golden:
    """One golden case: configuration, words, weights, inputs and outputs."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.meta = json.loads((folder / "meta.json").read_text())
        self.tensors = load_file(folder / "tensors.safetensors")
        self.checkpoint = folder / "checkpoint.pth"
        self.parts = self.meta["arch"] == "PartCATSeg"

    def config(self, **changes):
        """The sizes of the case, in reference mode unless `changes` say otherwise."""
        return golden_config(self.meta, **changes)

    def model(self, **changes):
        return load_released(self.checkpoint, self.config(**changes))

    def vocabulary(self, split: str) -> Vocabulary:
        return Vocabulary.from_names(self.meta["vocabulary"][f"{split}_object_parts"])

    def words(self, split: str, dtype: torch.dtype = torch.float32):
        """The vocabulary with the golden text features of its prompts."""
        from partclipseg.models.interface import Words

        if self.parts:
            texts = [self.tensors[f"text.{split}.{volume}"][:-1] for volume in ("part_object", "object_part")]
        else:
            texts = [self.tensors[f"text.{split}"][:-1]]  # without the background
        return Words.of(self.vocabulary(split), torch.cat(texts).flatten(0, 1).to(dtype))

    def train_labels(self, object_labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Part and object labels as our loss takes them."""
        from partclipseg.data.sample import OUTSIDE, UNLABELLED

        ignored = self.meta["config"]["ignore_label"]
        parts = self.tensors["train.part_labels"].long()
        objects = self.tensors["train.object_labels"].long() if object_labels is None else object_labels.long()
        names, known = self.meta["vocabulary"]["train_object_list"], self.vocabulary("train").objects
        table = torch.full((ignored + 1,), UNLABELLED)
        for index, name in enumerate(names):
            table[index] = known.index(name) if name in known else OUTSIDE
        return torch.where(parts == ignored, UNLABELLED, parts), table[objects]

    def photo(self, name: str) -> np.ndarray:
        return self.tensors[name].permute(1, 2, 0).numpy()

    def train_inputs(self, model) -> dict[str, torch.Tensor]:
        return model.prepare(self.tensors["train.image"])


def golden_config(meta, **changes):
    values, clip, tower = meta["config"], meta["config"]["clip"], meta["config"]["backbone"]
    if tower["name"] == "DINOv2":
        guidance = {
            "model_type": "dinov2",
            "hidden_size": tower["embed_dim"],
            "num_hidden_layers": tower["depth"],
            "num_attention_heads": tower["heads"],
            "patch_size": tower["patch_size"],
            "image_size": tower["pretrained_image_size"],
        }
    else:
        width = tower["res2_out"]
        depths = {50: [3, 4, 6], 101: [3, 4, 23]}[tower["depth"]]
        guidance = {
            "model_type": "resnet",
            "embedding_size": tower["stem_out"],
            "hidden_sizes": [width, 2 * width, 4 * width],
            "depths": depths,
        }
    config_class = PartCATSegConfig if meta["arch"] == "PartCATSeg" else CATSegConfig
    return config_class(
        **{
            "clip_config": {
                "projection_dim": clip["embed_dim"],
                "text_config": {
                    "hidden_size": clip["text_width"],
                    "intermediate_size": 4 * clip["text_width"],
                    "num_hidden_layers": clip["text_layers"],
                    "num_attention_heads": clip["text_heads"],
                    "vocab_size": clip["vocab_size"],
                    "eos_token_id": clip["vocab_size"] - 1,
                    "bos_token_id": clip["vocab_size"] - 2,
                },
                "vision_config": {
                    "hidden_size": clip["vision_width"],
                    "intermediate_size": 4 * clip["vision_width"],
                    "num_hidden_layers": clip["vision_layers"],
                    "num_attention_heads": clip["vision_heads"],
                    "patch_size": clip["patch_size"],
                    "image_size": clip["patch_size"] * clip["pretrained_grid"],
                },
            },
            "guidance_config": guidance,
            "image_size": clip["input_size"],
            "guidance_image_size": tower["input_size"],
            "shortest_edge": values["min_size_test"],
            "longest_edge": values["max_size_test"],
            "templates": meta["templates"],
            "hidden_dim": values["hidden_dim"],
            "num_heads": values["num_heads"],
            "num_layers": values["num_layers"],
            "window_size": values["window_size"],
            "pooling_size": values["pooling_size"][0],
            "text_guidance_dim": values["text_guidance_proj_dim"],
            "appearance_guidance_dim": values["appearance_guidance_proj_dim"],
            "decoder_dims": values["decoder_dims"],
            "decoder_guidance_dims": values["decoder_guidance_proj_dims"],
            "reference": not changes.get("repairs"),
            **changes,
        }
    )


@pytest.fixture(params=list(CASES))
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared / "reference" / "golden" / "partcatseg" / request.param)


@pytest.fixture
def part_golden(shared: Path) -> Golden:
    return Golden(shared / "reference" / "golden" / "partcatseg" / "case_a")


@pytest.fixture(params=[PartCATSegConfig, CATSegConfig], ids=["partcatseg", "catseg"])
def family(request: pytest.FixtureRequest):
    """The configuration class of each family."""
    return request.param
