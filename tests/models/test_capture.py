"""Gradients of a step: of this one alone, added up, and the same from a captured graph."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from partclipseg.losses.labels import present_pairs
from partclipseg.models.compiled import compile_layers
from partclipseg.models.cuda_graphs import StepGradients
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.loss import PartLoss
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_dict({"dog": ["ear", "tail"], "bus": ["wheel", "door"], "cat": ["tail", "ear"]})
IDS = torch.tensor([[598, 5 + index, 599] for index in range(len(WORDS.parts) + len(WORDS.objects))])


def step(model: PartCLIPSegModel, device: str, compiled: bool = False):
    """A whole training step's losses, as the loop computes them, and inputs that change from call to call."""
    model.train_published_parameters()
    ids = IDS.to(device)
    classes = [torch.from_numpy(rows).to(device) for rows in (WORDS.class_to_part, WORDS.class_to_object)]
    loss = PartLoss(compiled=compiled)

    def compute(inputs):
        words = Words(WORDS, model.encode_text(ids, torch.ones_like(ids)), *classes)
        output = model({"pixel_values": inputs["pixels"]}, words, inputs["pairs"])
        return loss(output, inputs["parts"], inputs["objects"], *classes, inputs["pairs"])

    def inputs(seed: int):
        generator = torch.Generator().manual_seed(seed)
        parts = torch.randint(-1, len(WORDS), (2, 4, 4), generator=generator).repeat_interleave(16, 1)
        parts = parts.repeat_interleave(16, 2)  # [2, 64, 64]
        objects = torch.where(parts >= 0, classes[1].cpu()[parts.clamp(min=0)], -1)
        pixels = torch.randn(2, 3, 64, 64, generator=generator)
        pairs = present_pairs(parts, len(WORDS), capacity=12)
        values = {"pixels": pixels, "parts": parts, "objects": objects, "pairs": pairs}
        return {name: value.to(device) for name, value in values.items()}

    return compute, inputs, [parameter for parameter in model.parameters() if parameter.requires_grad]


def gradients(parameters):
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]).cpu()


def test_each_call_has_its_own_gradients_or_adds_them(config):
    compute, inputs, parameters = step(PartCLIPSegModel(config), "cpu")
    run = StepGradients(compute, parameters)
    terms = run(inputs(1))
    first = gradients(parameters)
    assert not terms["total"].requires_grad
    run(inputs(2))
    second = gradients(parameters)
    assert not torch.equal(first, second)
    run(inputs(1))
    assert torch.equal(gradients(parameters), first)
    run(inputs(2), add=True)
    assert torch.equal(gradients(parameters), first + second)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_equals_an_eager_one(config):
    model = nn.Module.to(PartCLIPSegModel(config), "cuda")
    compute, inputs, parameters = step(model, "cuda")
    eager, captured = StepGradients(compute, parameters, capture=False), StepGradients(compute, parameters)
    for seed in (1, 2, 3):
        expected = {name: term.item() for name, term in eager(inputs(seed)).items()}
        by_hand = gradients(parameters)
        terms = {name: term.item() for name, term in captured(inputs(seed)).items()}
        # Atomic additions in the backward pass come in another order.
        assert terms == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert (gradients(parameters) - by_hand).norm() < 1e-3 * by_hand.norm()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_compiled_layers_and_losses_give_the_same_gradients(config, device, monkeypatch):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if device == "cpu":  # both passes are traced; a GPU has the kernels, which in C++ take half a minute
        monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    model = nn.Module.to(PartCLIPSegModel(config), device)
    compute, inputs, parameters = step(model, device)
    run = StepGradients(compute, parameters, capture=False)
    expected = {name: term.item() for name, term in run(inputs(1)).items()}
    by_hand = gradients(parameters)
    names = list(model.state_dict())
    torch.compiler.reset()  # of other tests' grids, as training does it
    compile_layers(model)
    compute, *_ = step(model, device, compiled=True)
    run = StepGradients(compute, parameters)
    # The compiler fuses and reorders float32 sums.
    assert {name: term.item() for name, term in run(inputs(1)).items()} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert (gradients(parameters) - by_hand).norm() < 1e-3 * by_hand.norm()
    assert list(model.state_dict()) == names
