"""A golden case of the reference, translated into what the losses take."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.losses.labels import present_pairs
from partclipseg.models.interface import PartOutput
from partclipseg.vocabulary import Vocabulary

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "reference" / "golden"
IGNORE = 255


@pytest.fixture(scope="session", params=["case_a", "case_b"])
def golden(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Training outputs, label maps and losses: `output` (attention of the pairs), `labels` (the arguments that
    follow the output), `attention` `[B, N_c + N_o, T, T]`, `loss` (the stored values)."""
    folder = GOLDEN / request.param
    if not folder.is_dir():
        pytest.skip(f"no golden tensors in {folder}")
    meta = json.loads((folder / "meta.json").read_text())
    tensors = load_file(folder / "tensors.safetensors")
    vocabulary = Vocabulary.from_names(meta["train_classes"])
    num_parts = len(vocabulary.parts)

    lookup = torch.full((IGNORE + 1,), UNLABELLED)
    for index, name in enumerate(meta["train_objects"]):
        lookup[index] = vocabulary.objects.index(name) if name in vocabulary.objects else OUTSIDE
    object_labels = lookup[tensors["train.object_labels"]]
    part_labels = tensors["train.part_labels"].where(tensors["train.part_labels"] != IGNORE, UNLABELLED)
    pairs = present_pairs(part_labels, len(vocabulary.object_parts))
    attention = tensors["train.attentions"]
    return SimpleNamespace(
        output=PartOutput(
            object_part_logits=tensors["train.part_object_logits"],
            object_logits=tensors["train.logits"][:, num_parts:],
            part_logits=tensors["train.logits"][:, :num_parts],
            attention=attention[pairs[:, 0], pairs[:, 1]],
        ),
        labels=(
            part_labels,
            object_labels,
            torch.from_numpy(np.asarray(vocabulary.class_to_part)),
            torch.from_numpy(np.asarray(vocabulary.class_to_object)),
            pairs,
        ),
        loss=meta["loss"],
    )
