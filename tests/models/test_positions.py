"""Position embeddings of photos that are not as large as the vision tower was trained on: interpolated, and kept."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.models.partcatseg.small import build, random_photos, random_words, small_config
from torch.nn import functional as F

from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.positions import ResizedPositions, resize_bicubic


@pytest.fixture
def model(config) -> PartCLIPSegModel:
    torch.manual_seed(0)
    return PartCLIPSegModel(config).eval()


@pytest.fixture
def interpolated(monkeypatch) -> list[tuple[int, int]]:
    """The grids that have been interpolated."""
    grids = []
    interpolate = F.interpolate

    def recording(*arguments, size, **options):
        grids.append(size)
        return interpolate(*arguments, size=size, **options)

    monkeypatch.setattr(F, "interpolate", recording)
    return grids


def by_the_library(model, grid: tuple[int, int]) -> torch.Tensor:
    """What transformers makes of the position embeddings."""
    embeddings = model.clip.vision_model.embeddings
    patch, width = embeddings.patch_size, embeddings.embed_dim
    tokens = torch.zeros(1, 1 + grid[0] * grid[1], width)
    return embeddings.interpolate_pos_encoding(tokens, grid[0] * patch, grid[1] * patch)


@pytest.mark.parametrize("grid", [(3, 2), (1, 1), (2, 5)])
def test_as_the_library_interpolates(model, grid):
    torch.testing.assert_close(model.position_embeddings(grid), by_the_library(model, grid), rtol=0, atol=0)


def test_interpolated_once_a_grid_while_the_weights_stay(model, interpolated):
    with torch.inference_mode():
        first = model.position_embeddings((3, 2))
        assert model.position_embeddings((3, 2)) is first
        model.position_embeddings((2, 3))
        model.position_embeddings((3, 2))
    assert interpolated == [(3, 2), (2, 3)]
    assert not first.is_inference(), "it has to serve training as well"


def test_interpolated_anew_when_the_weights_change(model, interpolated):
    weight = model.clip.vision_model.embeddings.position_embedding.weight
    changes = (
        lambda: weight.mul_(2),
        lambda: model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()}),
        lambda: model.double(),
        lambda: setattr(weight, "data", weight.data + 1),
    )
    for count, change in enumerate((lambda: None, *changes), start=1):
        with torch.no_grad():
            change()
            kept = model.position_embeddings((3, 2))
            torch.testing.assert_close(kept, by_the_library(model, (3, 2)), rtol=0, atol=0)
        assert len(interpolated) == 2 * count


def test_not_kept_while_it_is_trained(model):
    weight = model.clip.vision_model.embeddings.position_embedding.weight
    model.position_embeddings((3, 2)).sum().backward()
    assert weight.grad is not None
    weight.requires_grad_(False)
    assert not model.position_embeddings((3, 2)).requires_grad


# -- CLIP's own tower and DINOv2 --


@pytest.fixture
def bicubic(monkeypatch) -> list[int]:
    """Channels of what is resized bicubically: one, twice, for DINOv2, whose axes are resized in turn."""
    widths, interpolate = [], F.interpolate

    def recording(values, *arguments, mode="nearest", **options):
        if mode == "bicubic":
            widths.append(values.shape[1])
        return interpolate(values, *arguments, mode=mode, **options)

    monkeypatch.setattr(F, "interpolate", recording)
    return widths


@pytest.mark.parametrize("sizes", [{"size": (9, 7)}, {"size": (3, 12)}, {"scale_factor": (4.1 / 6, 11.1 / 5)}])
def test_axes_resized_in_turn_give_the_same_bits(sizes):
    maps = torch.randn(1, 8, 6, 5, requires_grad=True)
    theirs = F.interpolate(maps, mode="bicubic", align_corners=False, **sizes)
    ours = resize_bicubic(maps, **sizes)
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(theirs)
    gradients = [torch.autograd.grad((resized * weights).sum(), maps)[0] for resized in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-6)  # added up in another order


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(("kind", "widths"), [(PartCATSegConfig, [1, 1, 32]), (CATSegConfig, [32])])
def test_towers_resize_once_while_the_weights_stay(kind, widths, reference, bicubic):
    model = build(small_config(kind, reference=reference))
    inputs, words = model.prepare(random_photos((50, 60), (64, 64))), random_words(model)
    with torch.inference_mode():
        first = model(inputs, words).object_part_logits
        assert sorted(bicubic) == widths
        again = model(inputs, words).object_part_logits
        assert sorted(bicubic) == widths, "resized once"
        assert torch.equal(first, again)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "position_embedding" in name:
                weight.mul_(2)
    fresh = copy.deepcopy(model)  # its weights lie elsewhere, so that it resizes for itself
    with torch.inference_mode():
        changed = model(inputs, words).object_part_logits
        assert len(bicubic) == 2 * len(widths)
        assert not torch.equal(changed, first)
        assert torch.equal(fresh(inputs, words).object_part_logits, changed)
    assert len(bicubic) == 3 * len(widths)


def test_the_guidance_resizes_in_each_step_of_training(bicubic):
    model = build(small_config()).train()
    model.trained_parameters(model.settings_class())
    inputs, words = model.prepare(random_photos((64, 64))), random_words(model)
    for step in (1, 2):
        model(inputs, words).object_part_logits.sum().backward()
        assert bicubic.count(1) == 2 * step
        assert bicubic.count(32) == 1, "CLIP is frozen"
    assert model.guidance.tower.embeddings.position_embeddings.grad.any()


def test_a_weight_that_changes_while_another_thread_resizes_it():
    """The positions of the former weight are not kept for the new one."""
    weight, positions = torch.zeros(3), ResizedPositions()

    def meanwhile() -> torch.Tensor:
        former = weight + 1
        weight.add_(1)
        assert positions(weight, (3, 3), lambda: weight + 1).tolist() == [2, 2, 2]
        return former

    positions(weight, (3, 3), meanwhile)
    assert positions(weight, (3, 3), lambda: weight + 1).tolist() == [2, 2, 2]
