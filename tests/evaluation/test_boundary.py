from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partclipseg import Evaluator, Vocabulary
from partclipseg.evaluation.boundary import boundary_maps, boundary_width, window_minimum

NUM_CLASSES = 3
VOCABULARY = Vocabulary.from_names(["cat's ear", "cat's leg", "dog's ear"])
SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def random_maps(low: int) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two maps of one shape: large blocks of equal labels, so that there is an inside to erode."""

    def blocks(shape: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
        coarse = tuple(-(-side // 7) for side in shape)
        values = arrays(np.int32, coarse, elements=st.integers(low, NUM_CLASSES - 1))
        return values.map(lambda m: np.kron(m, np.ones((7, 7), np.int32))[: shape[0], : shape[1]].copy())

    return SHAPES.flatmap(lambda shape: st.tuples(blocks(shape), blocks(shape)))


def eroded_once(values: np.ndarray, border: int) -> np.ndarray:
    """Minimum over each pixel's 3×3 neighbourhood, pixel by pixel."""
    padded = np.pad(values, 1, constant_values=border)
    return np.array(
        [[padded[y : y + 3, x : x + 3].min() for x in range(values.shape[1])] for y in range(values.shape[0])]
    )


def brute_force_boundary(mask: np.ndarray) -> np.ndarray:
    """Cheng et al.: the pixels of a binary mask that erosion takes away."""
    eroded = mask.astype(np.int32)
    for _ in range(boundary_width(*mask.shape)):
        eroded = eroded_once(eroded, border=0)
    return mask & (eroded == 0)


def brute_force_iou(prediction: np.ndarray, labels: np.ndarray, index: int) -> float:
    predicted = brute_force_boundary((prediction == index) & (labels >= 0))
    labelled = brute_force_boundary(labels == index)
    union = (predicted | labelled).sum()
    return 100 * (predicted & labelled).sum() / union if union else float("nan")


@given(SHAPES.flatmap(lambda s: arrays(np.int32, s, elements=st.integers(0, 9))), st.integers(1, 5), st.integers(-1, 0))
@settings(max_examples=40)
def test_window_minimum_equals_repeated_erosion(values: np.ndarray, radius: int, border: int) -> None:
    expected = values
    for _ in range(radius):
        expected = eroded_once(expected, border)
    np.testing.assert_array_equal(window_minimum(torch.from_numpy(values), radius, border).numpy(), expected)


@given(random_maps(low=-1))
@settings(max_examples=60)
def test_per_class_equals_the_definition(maps: tuple[np.ndarray, np.ndarray]) -> None:
    evaluator = Evaluator(VOCABULARY, boundary="per_class")
    evaluator.update(*maps)
    ours = [item.boundary_iou for item in evaluator.compute().classes]
    expected = [brute_force_iou(*maps, index) for index in range(NUM_CLASSES)]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)  # one division of equal integers


@pytest.mark.parametrize("width", [2, 5])
def test_per_class_equals_the_definition_for_wide_boundaries(width: int) -> None:
    maps = np.random.default_rng(0).integers(-1, NUM_CLASSES, (2, 6, 8), dtype=np.int32)
    side = round(width / 0.02 / 2**0.5 / 6)
    prediction, labels = (np.kron(m, np.ones((side, side), np.int32))[:, : 6 * side] for m in maps)
    assert boundary_width(*labels.shape) == width
    evaluator = Evaluator(VOCABULARY)
    evaluator.update(prediction, labels)
    ours = [item.boundary_iou for item in evaluator.compute().classes]
    np.testing.assert_allclose(ours, [brute_force_iou(prediction, labels, i) for i in range(3)], rtol=1e-12)


@given(random_maps(low=0))
@settings(max_examples=40)
def test_identical_maps_score_all(maps: tuple[np.ndarray, np.ndarray]) -> None:
    evaluator = Evaluator(VOCABULARY)
    evaluator.update(maps[0], maps[0])
    assert evaluator.compute().all.boundary_iou == 100


def test_a_growing_shift_lowers_the_score() -> None:
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 20:50] = 1
    scores = []
    for shift in range(6):
        evaluator = Evaluator(VOCABULARY)
        evaluator.update(np.roll(labels, shift, axis=1), labels)
        scores.append(evaluator.compute().classes[1].boundary_iou)
    assert scores[0] == 100
    assert all(later < earlier for earlier, later in pairwise(scores))


def test_reference_boundary_holds_differences_of_class_numbers() -> None:
    index_map = torch.zeros(7, 7, dtype=torch.int32)
    index_map[1:6, 1:6] = 3
    index_map[2:5, 2:5] = 1
    expected = torch.zeros_like(index_map)
    expected[1:6, 1:6] = 3  # eroded to 0 by the background beside it
    expected[2:5, 2:5] = 0  # beside 3 a 1 stays: this is how the form mixes up parts that touch
    np.testing.assert_array_equal(boundary_maps(index_map, "reference", background=3).numpy(), expected.numpy())


@pytest.mark.parametrize(("shape", "width"), [((1, 1), 1), ((375, 500), 12), ((60, 80), 2), ((352, 352), 10)])
def test_width_is_two_percent_of_the_diagonal(shape: tuple[int, int], width: int) -> None:
    assert boundary_width(*shape) == width


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("boundary", ["per_class", "reference"])
def test_the_gpu_counts_as_the_cpu(boundary: str) -> None:
    maps = torch.from_numpy(np.random.default_rng(1).integers(-1, NUM_CLASSES, (2, 90, 120), dtype=np.int32))
    totals = []
    for device in ("cpu", "cuda"):
        evaluator = Evaluator(VOCABULARY, boundary=boundary)
        evaluator.update(maps[0].to(device), maps[1].to(device))
        totals.append((evaluator.regions.total, evaluator.boundaries.total))
    np.testing.assert_array_equal(totals[0], totals[1])
