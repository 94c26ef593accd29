"""Functions replayed as CUDA graphs. What is captured of pruned decoding is tested on CPUs in test_pruned.py."""

from __future__ import annotations

import pytest
import torch
from tests.models.tester import smoothed

from partclipseg.models.cuda_graphs import Graphs
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WORDS = Vocabulary.from_dict({"bus": ["door", "wheel"], "dog": ["ear", "head", "tail"], "cat": ["ear", "paw"]})


@pytest.fixture
def model(config) -> PartCLIPSegModel:
    torch.manual_seed(0)
    return smoothed(PartCLIPSegModel(config)).eval().cuda()


@pytest.fixture
def computed(model, monkeypatch):
    """`model.label_maps` without captured graphs."""

    def label_maps(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(PartCLIPSegModel, "graphs", lambda self: None)
            return model.label_maps(*arguments)

    return label_maps


def scale(factor: float, calls: list[int]):
    def function(x):
        calls.append(1)
        return [x * factor]

    return function


@torch.inference_mode()
def test_captured_at_the_second_call_and_replayed_from_then_on(model):
    graphs, calls = Graphs(), []
    for value in range(6):
        (found,) = graphs(scale(2, calls), "double", torch.full((3,), float(value), device="cuda"))
        assert found.tolist() == [2.0 * value] * 3
        if value == 1:
            captured = len(calls)
    assert len(calls) == captured, "replayed without the function"
    (found,) = graphs(scale(3, calls), "treble", torch.ones(3, device="cuda"))
    assert found.tolist() == [3.0] * 3
    (found,) = graphs(scale(2, calls), "double", torch.ones(4, device="cuda"))
    assert found.tolist() == [2.0] * 4
    (found,) = graphs(scale(2, calls), "double", torch.ones(3, device="cuda", dtype=torch.int64))
    assert found.dtype == torch.int64


@torch.inference_mode()
def test_only_the_latest_are_kept(model):
    graphs, calls = Graphs(most=2), []
    for size in (1, 1, 2, 2, 3, 3):
        graphs(scale(2, calls), "double", torch.ones(size, device="cuda"))
    count = len(calls)
    graphs(scale(2, calls), "double", torch.ones(3, device="cuda"))
    assert len(calls) == count
    graphs(scale(2, calls), "double", torch.ones(1, device="cuda"))
    assert len(calls) > count, "captured anew"


def test_replayed_maps_equal_computed_ones(model, computed):
    """Batches, photo sizes and winners that come and go. Padded products may round differently: 1e-4 of float32."""
    generator = torch.Generator("cuda").manual_seed(0)
    words = Words.of(WORDS, 3 * torch.randn(len(model.prompts(WORDS)), model.config.projection_dim, device="cuda"))
    seen = set()
    for step in range(24):
        number = 1 + step % 2
        sizes = [(50, 60), (33 + step % 3, 40)][:number]
        photos = {"pixel_values": torch.randn(number, 3, 48, 48, generator=generator, device="cuda")}
        present = [[step % 3]] * number if step % 4 == 3 else None
        expected = computed(photos, words, sizes, present)
        actual = model.label_maps(photos, words, sizes, present)
        for ours, theirs in zip(actual, expected, strict=True):
            seen.update(theirs.object_map.unique().tolist())
            same = ours.label_map == theirs.label_map
            assert same.float().mean() > 0.99
            torch.testing.assert_close(ours.scores[same], theirs.scores[same], atol=1e-4, rtol=0)
    assert len(seen) > 2, "several objects win"


def test_captured_anew_when_the_weights_move(model, computed):
    embeddings = torch.randn(len(model.prompts(WORDS)), model.config.projection_dim, device="cuda")
    photo = torch.randn(1, 3, 48, 48, device="cuda")

    def scores(label_maps) -> torch.Tensor:
        (maps,) = label_maps({"pixel_values": photo.to(model.dtype)}, Words.of(WORDS, embeddings), [(40, 40)])
        return maps.scores.clone()

    def change_positions():
        with torch.no_grad():
            model.clip.vision_model.embeddings.position_embedding.weight.copy_(
                torch.randn(model.clip.vision_model.embeddings.position_embedding.weight.shape)
            )

    before = None
    for change in (lambda: None, change_positions, model.bfloat16, lambda: model.cpu() and model.cuda()):
        change()
        for _ in range(3):
            expected = scores(computed)
            # bfloat16 has 8 bits; at some pixels another class wins for it.
            tolerance = 1e-4 if model.dtype == torch.float32 else 3e-2
            assert ((scores(model.label_maps) - expected).abs() < tolerance).float().mean() > 0.95
        if change is change_positions:
            assert before is not None
            assert ((before - expected).abs() < 1e-4).float().mean() < 0.5, "another result was to be expected"
        before = expected
