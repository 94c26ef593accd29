"""benchmarks/cost_information.py measures what made-up features are known to tell."""

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))
from cost_information import agreement, at_patches, grids, probe, variance
from partclipseg.shapes.dataset import PartShapesDataset


def test_labels_are_those_of_the_patches_centres():
    labels = torch.arange(16 * 16).view(1, 16, 16)
    assert at_patches(labels).tolist() == [[4 * 16 + 4, 4 * 16 + 12, 12 * 16 + 4, 12 * 16 + 12]]


@pytest.mark.parametrize(("sign", "right", "above"), [(1, 1.0, 1.0), (-1, 0.0, 0.0)])
def test_costs_that_know_the_objects_are_right_and_their_opposite_is_wrong(sign: int, right: float, above: float):
    labels = torch.tensor([[0, 0, 1, -1], [2, -1, -1, 2]])
    scores = sign * torch.nn.functional.one_hot(labels.clamp(min=0), 3) * (labels >= 0)[..., None].float()
    assert agreement(scores, labels) == {"right": right, "above": above}


@pytest.mark.parametrize(("knows", "least", "most"), [(True, 0.95, 1.0), (False, 0.0, 0.6)])
def test_a_probe_tells_what_features_know_in_scenes_that_it_was_not_trained_on(knows: bool, least: float, most: float):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (800,), generator=generator)
    features = torch.randn(800, 8, generator=generator)
    if knows:
        features = features + 8 * torch.nn.functional.one_hot(labels, 8)
    found = probe(features[:600], labels[:600], features[600:], labels[600:])
    assert least <= found["right"] <= most
    assert least <= found["mean over words"] <= most


def test_variance_is_of_scenes_places_or_the_rest():
    of_scene, of_place, rest = torch.randn(400, 1, 3), torch.randn(1, 400, 3), torch.randn(400, 400, 3)
    for features, expected in (
        (of_scene.expand(400, 400, 3), {"scene": 1, "place": 0}),
        (of_place.expand(400, 400, 3), {"scene": 0, "place": 1}),
        (rest, {"scene": 0, "place": 0}),
    ):
        found = variance(features)
        assert all(math.isclose(found[name], value, abs_tol=0.02) for name, value in expected.items())


def test_a_finer_grid_loses_less_of_the_labels():
    table = list(grids(PartShapesDataset("test", 2, 64)).values())
    for name, falling in (("mIoU", False), ("small parts", False), ("parts smaller than a cell", True)):
        values = [row[name] for row in table]
        assert sorted(values, reverse=falling) == values
    assert table[-1]["mIoU"] == 100  # a cell of 64 x 64 is a pixel of these scenes
