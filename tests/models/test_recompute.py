"""What is computed anew in the backward pass: the same gradients, from less that is kept."""

import pytest
import torch

from partclipseg.models import kernels, recomputing
from partclipseg.models.clipseg_decoder import DecoderLayer
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_dict({"dog": ["ear", "tail", "leg"], "bus": ["wheel", "door"]})


def step(model: PartCLIPSegModel, bf16: bool) -> tuple[float, torch.Tensor, int]:
    """A loss of everything that the model answers, its gradient, and the bytes kept in between."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    words = torch.randn(len(model.prompts(WORDS)), model.config.projection_dim, generator=generator)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # alive, so that no other takes its place
        return tensor.detach()

    model.zero_grad()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        pairs = torch.tensor([[0, 1], [1, 2], [1, 4]])
        output = model({"pixel_values": pixels}, Words.of(WORDS, words), pairs)
        loss = torch.stack([value.float().square().mean() for value in output.to_tuple()]).sum()
    size = sum(storage.nbytes() for storage in kept.values())
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients), size


# float32: sums over all rows are made piece by piece. bfloat16: gradients of weights are rounded once a piece, to 8
# bits, and added in float32, in place of once in all.
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 5e-3)])
def test_gradients_are_the_same_and_less_is_kept(config, monkeypatch, bf16, tolerance):
    monkeypatch.setattr(recomputing, "RECOMPUTED_ROWS", 5)  # several pieces, and a last one that is smaller
    config.decoder_intermediate_size = 256
    model = PartCLIPSegModel(config).train()
    model.train_published_parameters()
    loss, gradient, kept = step(model, bf16)
    for layer in model.decoder.layers:
        layer.recompute = True
    again, same, less = step(model, bf16)
    assert again == pytest.approx(loss, rel=1e-6 if not bf16 else 1e-3)
    assert gradient.norm() > 0
    assert (same - gradient).norm() < tolerance * gradient.norm()
    rows, tokens = 2 * (len(model.prompts(WORDS)) + 1), 17
    hidden = len(model.decoder.layers) * rows * tokens * 256 * (2 if bf16 else 4)
    assert kept - less > 0.8 * hidden  # its own inputs are kept besides


def test_attention_is_recomputed_without_being_asked(config):
    layer = DecoderLayer(16, 2, 32, 1e-5)
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _, attention = layer(torch.randn(3, 300, 16), torch.tensor([0, 2]))
    assert attention.shape == (2, 300, 300)
    assert max(kept) < 2 * 300 * 300  # nothing of the size of the maps
    attention[:, 0, 1].sum().backward()
    assert layer.qkv.weight.grad.norm() > 0


def test_the_relu_product_is_recomputed_when_compiled():
    linear = torch.nn.Linear(16, 512)
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor.detach()

    @torch.compile(backend="aot_eager_decomp_partition")  # splits the graph as on a GPU, and makes no kernels
    def hidden(x: torch.Tensor) -> torch.Tensor:
        return recomputing.recomputed_by_rows(lambda some: kernels.linear_relu(some, linear).tanh(), x)

    x = torch.randn(200, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = hidden(x)
    assert max(kept) < 64 * 512  # the weights, and nothing of the size of a piece's result
    (gradient,) = torch.autograd.grad(result.square().sum(), x)
    (expected,) = torch.autograd.grad(linear(x).relu().tanh().square().sum(), x)
    torch.testing.assert_close(gradient, expected)
