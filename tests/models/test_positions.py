"""Position embeddings of photos that are not as large as the vision tower was trained on: interpolated, and kept."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from partclipseg.models.partclipseg.model import PartCLIPSegModel


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
