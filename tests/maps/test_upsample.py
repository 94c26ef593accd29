"""The greatest of upsampled logits, photo by photo and by the kernel, against every map upsampled and compared."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from partclipseg.maps import upsample as upsampling
from partclipseg.maps.label_maps import Contest, oracle_obj, pred_all
from partclipseg.maps.upsample import PhotoPixels, keep_best, upsample
from partclipseg.models.interface import PartOutput

TIE = 1e-3
"""A pixel's coordinate among the logits is rounded: up to 350 in float32 by 1.5e-5, for rows and columns. Times the
differences of neighbouring logits, some 10 in this noise, that makes 3e-4 of a logit, more where sums round as well."""

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
INTERPRETED = pytest.param(
    "interpreted",
    marks=pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1, and the package triton"
    ),
)


def reference(
    size: tuple[int, int], logits: Tensor, labels: Tensor, gate: Tensor | None, owners: Tensor
) -> tuple[Tensor, Tensor]:
    """Best value and label `[H, W]` of one photo, each `[K, H, W]` map whole."""
    if len(logits) == 0:
        return torch.full(size, -torch.inf, device=logits.device), torch.full(size, -1, device=logits.device)
    maps = upsample(logits, size)
    if gate is not None:
        maps = maps.masked_fill(owners[:, None, None] != gate, -torch.inf)
    best, place = maps.max(0)
    return best, torch.where(best > -torch.inf, labels[place], -1)


def check(
    sizes: list[tuple[int, int]],
    counts: list[int],
    shape: tuple[int, int],
    seed: int = 0,
    gated: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    pieces: int = 2,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    photos = np.repeat(np.arange(len(sizes)), counts)
    rows = len(photos)
    logits = torch.randn(rows, *shape, generator=generator).to(device, dtype)
    labels = torch.randperm(rows, generator=generator).to(device)
    owners = torch.randint(0, 3, (rows,), generator=generator).to(device)
    pixels = PhotoPixels(sizes, torch.device(device))
    best, found = pixels.full(-torch.inf), pixels.full(-1)
    gate = torch.randint(0, 3, best.shape, generator=generator).to(device) if gated else None
    for some in np.array_split(np.arange(rows), pieces):  # further rows are to be left out
        part = slice(int(some[0]), None) if len(some) else slice(0, 0)
        keep_best(pixels, best, found, photos[some], logits[part], labels[part], gate, owners[part] if gated else None)
    for index, (ours, label) in enumerate(zip(pixels.split(best), pixels.split(found), strict=True)):
        its = torch.from_numpy(photos == index).to(device)
        its_gate = None if gate is None else pixels.split(gate)[index]
        expected, winner = reference(sizes[index], logits[its], labels[its], its_gate, owners[its])
        torch.testing.assert_close(ours, expected, atol=TIE, rtol=0)
        assert torch.equal(label == -1, winner == -1)
        if device == "cpu":  # the same operations
            assert torch.equal(label, winner)
        elif len(logits[its]):
            # Elsewhere another label may win that has all but the same value.
            maps, place = upsample(logits[its], sizes[index]), torch.zeros(rows, dtype=torch.long, device=device)
            place[labels[its]] = torch.arange(len(maps), device=device)
            own = maps.gather(0, place[label.clamp(min=0)][None])[0]
            torch.testing.assert_close(torch.where(label < 0, expected, own), expected, atol=TIE, rtol=0)


SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    SIZES, st.lists(st.integers(0, 5), min_size=4, max_size=4), st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 1000), st.booleans(), st.integers(1, 3),
)  # fmt: skip
def test_photo_by_photo(sizes, counts, shape, seed, gated, pieces):
    check(sizes, counts[: len(sizes)], shape, seed, gated, pieces=pieces)


CASES = [
    ([(37, 50)], [5], (22, 22), False),
    ([(37, 50), (5, 300), (1, 1), (64, 48)], [5, 0, 3, 8], (22, 20), False),
    ([(37, 50), (50, 37), (20, 20)], [9, 6, 0], (22, 22), True),
    ([(30, 20)], [4], (1, 1), False),
]


@pytest.fixture
def kernel(monkeypatch):
    """Let tensors of a CPU go through the kernel, by Triton's interpreter, where that is asked for."""

    def run(device: str) -> str:
        if device != "interpreted":
            return device
        monkeypatch.setattr(Tensor, "is_cuda", property(lambda self: True))
        upsampling.find_kernel.cache_clear()
        assert upsampling.find_kernel(torch.device("cpu")), "or PyTorch would do it in its place"
        return "cpu"

    yield run
    upsampling.find_kernel.cache_clear()


@pytest.mark.parametrize("device", [GPU, INTERPRETED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("sizes", "counts", "shape", "gated"), CASES)
def test_the_kernel(kernel, device, dtype, sizes, counts, shape, gated):
    check(sizes, counts, shape, gated=gated, dtype=dtype, device=kernel(device))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gated", [False, True])
def test_the_kernel_at_the_released_size(gated):
    sizes, counts = [(375, 500), (500, 333), (240, 321)], [17, 12, 0]
    check(sizes, counts, (352, 352), gated=gated, dtype=torch.bfloat16, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_without_triton_maps_are_the_same(monkeypatch):
    torch.manual_seed(0)
    output = PartOutput(
        object_logits=torch.randn(2, 4, 22, 22, device="cuda"),
        object_part_logits=torch.randn(2, 8, 22, 22, device="cuda"),
    )
    class_to_object, sizes = np.array([0, 0, 1, 1, 2, 2, 2]), [(40, 50), (33, 20)]

    def maps():
        return pred_all(output, sizes, class_to_object) + oracle_obj(output, sizes, class_to_object, [[0, 2], [1]])

    fused = maps()
    monkeypatch.setattr(upsampling, "find_kernel", lambda device: None)
    for ours, theirs in zip(fused, maps(), strict=True):
        same = ours.label_map == theirs.label_map
        assert same.float().mean() > 0.99
        torch.testing.assert_close(ours.scores[same], theirs.scores[same], atol=TIE, rtol=0)


def test_where_triton_does_not_work(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "partclipseg.maps.fused", None)  # as where it cannot be imported
    upsampling.find_kernel.cache_clear()
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda self: True))
    for _ in range(2):
        check([(37, 50), (20, 20)], [5, 2], (22, 20))
    assert len(caplog.records) == 1, "said once"
    assert "Triton does not work here" in caplog.text
    upsampling.find_kernel.cache_clear()


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_who_wins_where(device):
    contest = Contest([(2, 2), (1, 3)], torch.device(device))
    logits = torch.tensor([[[1.0]], [[2.0]], [[3.0]], [[2.0]]], device=device)
    labels = torch.tensor([0, 3, 1, 2], device=device)
    contest.add(np.array([0, 0, 1, 1]), logits, labels)
    assert contest.winners(4).tolist() == [[False, False, False, True], [False, True, False, False]]
    maps = contest.maps(torch.zeros(4, dtype=torch.long, device=device))
    assert [m.label_map.tolist() for m in maps] == [[[3, 3], [3, 3]], [[1, 1, 1]]]
    contest.add(np.array([1]), torch.tensor([[[3.0]]], device=device), torch.tensor([0], device=device))
    assert contest.winners(4)[1].tolist() == [False, True, False, False], "of equal ones the first stays"
