"""Each piece that is written for speed equals the plain form of it, over sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.partcatseg.small import build, small_config
from torch import Tensor, nn
from torch.nn import functional as F

from partclipseg.models.partcatseg.aggregator import AppearanceGuidance, chosen
from partclipseg.models.partcatseg.convolutions import OneChannelConv2d, convolve
from partclipseg.models.partcatseg.norm_relu import JoinedNormReLU, NormReLU
from partclipseg.models.partcatseg.windows import attend_within_windows, stripes

quick = settings(max_examples=25, deadline=None)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_()


def same(found: Tensor, expected: Tensor, inputs: list[Tensor], **close: float) -> None:
    """Compare values, and the gradients of a weighted sum of them with regard to the inputs."""
    close = close or CLOSE
    torch.testing.assert_close(found, expected, **close)
    weights = random(*found.shape).detach().to(found.dtype)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), inputs) for value in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        scale = float(other.abs().max().clamp(min=1))
        torch.testing.assert_close(one / scale, other / scale, **close)


def masked_attention(projected: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """Roll the grid, attend within whole windows and mask what only the roll brought together."""
    batch, classes, grid = projected.shape[:3]
    side = grid // window
    x = projected.roll((-shift, -shift), (2, 3)).view(batch * classes, side, window, side, window, -1)
    x = x.transpose(2, 3).reshape(batch * classes, -1, window**2, 3, heads, projected.shape[-1] // 3 // heads)
    q, k, v = x.permute(3, 0, 1, 4, 2, 5)  # [B·T, windows, heads, w·w, d]
    place = torch.arange(grid)
    region = (place >= grid - window).int() + (place >= grid - shift).int() if shift else 0 * place
    region = (3 * region[:, None] + region).view(side, window, side, window)
    region = region.transpose(1, 2).reshape(-1, window**2)
    together = (region[:, None] == region[:, :, None])[:, None]  # [windows, 1, w·w, w·w]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=together).transpose(2, 3).flatten(3)
    mixed = mixed.view(batch * classes, side, side, window, window, -1).transpose(2, 3)
    return mixed.reshape(batch, classes, grid, grid, -1).roll((shift, shift), (2, 3))


@quick
@given(
    st.integers(1, 3), st.integers(1, 5), st.data(), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)
)
def test_tiles_without_a_mask_equal_shifted_windows_with_one(
    side: int, window: int, data: st.DataObject, batch: int, classes: int, heads: int
) -> None:
    """For every shift within a window, whether or not it halves the window, and for a single window."""
    shift, grid = data.draw(st.integers(0, window - 1)), side * window
    projected = random(batch, classes, grid, grid, 3 * heads * 2)
    found = attend_within_windows(projected, heads, window, shift)
    same(found, masked_attention(projected, heads, window, shift), [projected])
    assert sum(stripe.length for stripe in stripes(grid, window, shift)) == grid


def test_a_shifted_grid_of_the_released_size_takes_three_passes_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    attend, shapes = F.scaled_dot_product_attention, []

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append(tuple(q.shape))
        return attend(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    attend_within_windows(torch.zeros(1, 2, 24, 24, 3 * 8), 4, 12, 6)
    assert sorted(shapes) == [(2, 4, 144, 2), (2, 16, 36, 2), (2, 16, 72, 2)]


def maps(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random maps `[N, C, h, w]` in memory with channels last."""
    return random(*shape, dtype=dtype).detach().contiguous(memory_format=torch.channels_last).requires_grad_()


def with_weights(module: nn.Module) -> list[Tensor]:
    """Give the parameters of a module random values; return them."""
    weights = list(module.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.copy_(random(*weight.shape))
    return weights


@quick
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 7), st.integers(2, 7), st.sampled_from([0.0, 100.0]))
def test_norms_by_channels_equal_pytorch_s(count: int, groups: int, height: int, width: int, mean: float) -> None:
    """Also far from zero, where a difference of squares would leave nothing in float32."""
    norm = NormReLU(16 * groups, height)
    weights = with_weights(norm)
    x = (maps(count, 16 * groups, height, width) + mean).detach().requires_grad_()
    # PyTorch's own norm of such maps takes a difference of squares: it is 0.005 off at a mean of 100.
    expected = F.group_norm(x.double(), groups, *(weight.double() for weight in weights), norm.eps).float()
    found = norm.by_channels(x)
    close = CLOSE if not mean else {"atol": 1e-4, "rtol": 1e-4}  # float32 has 7 digits, two of which are the mean's
    same(found, expected, [x, *weights], **close)
    assert found.is_contiguous(memory_format=torch.channels_last)
    if not mean and height == width:
        torch.testing.assert_close(norm(x), F.relu(expected), **CLOSE)


def test_maps_of_another_size_are_refused() -> None:
    for layer in (NormReLU(16, 4), OneChannelConv2d(16, 4)):
        for shape in ((2, 16, 4, 5), (2, 16, 5, 4), (2, 32, 4, 4)):
            with pytest.raises(ValueError, match=" x ".join(map(str, shape[1:])) + ", expected 16 x 4 x 4"):
                layer(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_of_half_precision_are_as_near_as_pytorch_s(dtype: torch.dtype) -> None:
    norm = NormReLU(32, 24).to(dtype)
    x = (4 * maps(3, 32, 24, 24) + 6).detach().to(dtype)
    exact = F.group_norm(x.double(), 2, norm.weight.double(), norm.bias.double(), norm.eps)
    found = norm.by_channels(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)
    assert norm(x).dtype == dtype


def test_compiled_layers_take_the_fast_forms() -> None:
    """The compiler traces no group norm and no convolution, and gets maps with channels last."""
    phases, shared = maps(6, 64, 5, 5), maps(2, 16, 8, 8)
    joined, head = JoinedNormReLU(16, 8), OneChannelConv2d(16, 8)
    weights = with_weights(joined) + with_weights(head)
    graphs = []

    def watching(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph.code)
        return graph.forward

    def answer() -> tuple[Tensor, Tensor]:
        x = joined(phases, shared)
        return x, head(x)

    expected = answer()
    torch.compiler.reset()
    for layer in (joined, head):
        layer.compile(backend=watching, fullgraph=True)
    found = answer()
    torch.compiler.reset()
    assert len(graphs) == 2
    assert not any("group_norm" in code or "conv2d" in code for code in graphs)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    same(torch.cat(found, 1), torch.cat(expected, 1), [phases, shared, *weights])


@quick
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 6), st.integers(1, 6))
def test_a_product_of_taps_equals_the_convolution(count: int, channels: int, height: int, width: int) -> None:
    head = OneChannelConv2d(channels, height)
    weights = with_weights(head)
    x = maps(count, channels, height, width)
    same(head.by_taps(x), F.conv2d(x, *weights, padding=1), [x, *weights])


@quick
@given(
    *(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3, 5, 7])),
    *(st.integers(1, 8), st.integers(1, 8), st.booleans()),
)
def test_gradients_of_a_wide_convolution(
    count: int, before: int, after: int, edge: int, height: int, width: int, needed: bool
) -> None:
    """Also of maps smaller than the kernel, and where the input needs no gradient."""
    x, weight, bias = maps(count, before, height, width), random(after, before, edge, edge), random(after)
    inputs = [x, weight, bias] if needed else [weight, bias]
    x.requires_grad_(needed)
    same(convolve(x, weight, bias), F.conv2d(x, weight, bias, padding=edge // 2), inputs)


def test_a_wide_convolution_under_autocast() -> None:
    x, weight, bias = maps(2, 3, 6, 6), random(4, 3, 7, 7), random(4)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = convolve(x, weight, bias), F.conv2d(x, weight, bias, padding=3)
    assert found.dtype == torch.bfloat16
    same(found, expected, [x, weight, bias], atol=2e-2, rtol=2e-2)  # bfloat16 has 8 bits


def test_chosen_words() -> None:
    words, rows = random(2, 4, 3, 3, 5), torch.tensor([3, 0, 0, 2, 1])
    same(chosen(words, rows), words[:, rows], [words])


def gradients(model: nn.Module, kept: list[int]) -> list[Tensor]:
    """Gradients of the weights of one aggregation and its decoder; sizes of the tensors kept for them go to `kept`."""
    config = model.config
    edges, widths = [count * config.grid for count in (1, 2, 4)], (8, 8, 8)
    levels = AppearanceGuidance(*(random(2, width, edge, edge) for width, edge in zip(widths, edges, strict=True)))

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        volume = model.aggregator.aggregate(random(2, 16, config.grid, config.grid), random(5, 2, 16), levels)
    logits = [model.aggregator.decode(volume.embedding[:, :count], levels) for count in (5, 3)]
    weights = list(model.aggregator.parameters())
    found = torch.autograd.grad(sum(some.square().mean() for some in logits), weights, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]  # guidance is given, and there is one stage


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients_and_keep_no_hidden_layer() -> None:
    """Also where all is computed again in the backward pass, for volumes of unequal sizes."""
    model = build(small_config(num_layers=1))
    hidden = 2 * 5 * model.config.grid**2 * (4 * model.config.hidden_dim)
    kept: list[list[int]] = [[], [], []]
    expected = gradients(model, kept[0])
    torch.compiler.reset()
    decoder = model.aggregator.decoder2
    for layer in (model.aggregator.layers[0].block2, decoder.norm1, decoder.norm2, model.aggregator.head):
        # Splits the graph as on a GPU, and makes no kernels.
        layer.compile(backend="aot_eager_decomp_partition", fullgraph=True, dynamic=getattr(layer, "any_count", None))
    found = [gradients(model, kept[1])]
    model.recompute(True)
    found.append(gradients(model, kept[2]))
    torch.compiler.reset()
    assert not any(hidden in sizes for sizes in kept)
    for case in found:
        for one, other in zip(case, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max().clamp(min=1e-3)), rtol=1e-3)
