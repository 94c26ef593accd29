"""Compiling the layers of a model that has been used drops what was captured of it before."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

import pytest
import torch
from tests.conftest import small_config
from tests.models.partcatseg import small
from torch import nn

from partclipseg.models import cuda_graphs
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.compiled import compile_layers
from partclipseg.models.partclipseg.model import PartCLIPSegModel

MODELS = {
    "partclipseg": lambda: PartCLIPSegModel(small_config()),
    "clipseg": lambda: CLIPSegBaseline(CLIPSegBaseline.config_class.from_values(small_config().to_dict())),
    "partcatseg": lambda: small.build(small.small_config()),
}


class Replayed:
    """A graph in place of a captured one, which needs a GPU."""

    def replay(self) -> None:
        pass


@pytest.mark.parametrize("name", MODELS)
def test_compiling_drops_what_was_captured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    captured = []

    def capture(function, device, pool=None):
        captured.append(function)
        return Replayed(), function()

    monkeypatch.setattr(cuda_graphs, "capture", capture)
    model: Any = MODELS[name]()
    photo = torch.ones(2)

    def ask() -> int:
        with monkeypatch.context() as patch:  # captured passes are for CUDA devices
            patch.setattr(type(model), "device", torch.device("cuda"))
            graphs = model.graphs()
        graphs(lambda x: [2 * x], "double", photo)
        return len(captured)

    assert [ask() for _ in range(4)] == [0, 1, 1, 1]
    compile_layers(model)
    assert [ask() for _ in range(3)] == [2, 2, 2], "captured anew, once"
    model.renew_stamp()
    assert [ask() for _ in range(3)] == [3, 3, 3]


def test_norms_and_head_take_any_number_of_maps_from_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other layers begin with numbers, which are faster, and get symbols where a size changes."""
    asked: dict[str, set[Any]] = {}

    def compile(self: nn.Module, **options: Any) -> None:
        asked.setdefault(type(self).__name__, set()).add(options["dynamic"])

    monkeypatch.setattr(nn.Module, "compile", compile)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    compile_layers(small.build(small.small_config()))
    assert {name for name, dynamic in asked.items() if dynamic == {True}} == {
        "JoinedNormReLU", "NormReLU", "OneChannelConv2d"
    }  # fmt: skip
    assert {name for name, dynamic in asked.items() if dynamic == {None}} == {
        "AggregationLayer", "CLIPEncoderLayer", "Dinov2Layer", "PhasesOfProduct"
    }  # fmt: skip
