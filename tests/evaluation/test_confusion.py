from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.processes import quick_context

from partclipseg.errors import PartCLIPSegError
from partclipseg.evaluation.confusion import ConfusionMatrix, count_pixels

SIZE = 5
MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=st.integers(0, SIZE - 1))] * 2)
)


def loop(prediction: np.ndarray, labels: np.ndarray) -> np.ndarray:
    matrix = np.zeros((SIZE, SIZE), dtype=np.int64)
    for predicted, labelled in zip(prediction.ravel(), labels.ravel(), strict=True):
        matrix[predicted, labelled] += 1
    return matrix


def random_matrix(seed: int) -> torch.Tensor:
    maps = np.random.default_rng(seed).integers(0, SIZE, (2, 11, 13), dtype=np.int32)
    return count_pixels(*torch.from_numpy(maps), SIZE)


def state_bytes(first: int, last: int) -> bytes:
    """What another process sends: the counts of the records `first .. last - 1`."""
    matrix = ConfusionMatrix(SIZE)
    for seed in range(first, last):
        matrix.add(str(seed), random_matrix(seed))
    buffer = io.BytesIO()
    torch.save(matrix.state_dict(), buffer)
    return buffer.getvalue()


@given(MAPS)
def test_counts_equal_a_plain_loop(maps: tuple[np.ndarray, np.ndarray]) -> None:
    counted = count_pixels(torch.from_numpy(maps[0]), torch.from_numpy(maps[1]), SIZE)
    assert counted.dtype == torch.int64
    np.testing.assert_array_equal(counted.numpy(), loop(*maps))


@given(st.lists(MAPS, min_size=1, max_size=4))
@settings(max_examples=30)
def test_total_is_the_sum_and_records_are_kept(records: list[tuple[np.ndarray, np.ndarray]]) -> None:
    matrix = ConfusionMatrix(SIZE)
    for index, (prediction, labels) in enumerate(records):
        assert matrix.add(str(index), count_pixels(*map(torch.from_numpy, (prediction, labels)), SIZE))
    np.testing.assert_array_equal(matrix.total, sum(loop(*record) for record in records))
    for index, record in enumerate(records):
        np.testing.assert_array_equal(matrix.record(str(index)), loop(*record))


def test_a_key_counts_once() -> None:
    matrix = ConfusionMatrix(SIZE)
    assert matrix.add("a", random_matrix(0))
    before = matrix.total.copy()
    assert not matrix.add("a", random_matrix(1))
    np.testing.assert_array_equal(matrix.total, before)
    assert list(matrix) == ["a"]
    assert "a" in matrix
    assert "b" not in matrix


def test_merging_in_any_order_and_with_overlap_gives_equal_counts() -> None:
    parts = []
    for keys in ((0, 1, 2), (2, 3), (3, 4, 0)):  # a padded tail: some records are scored by two processes
        part = ConfusionMatrix(SIZE)
        for seed in keys:
            part.add(str(seed), random_matrix(seed))
        parts.append(part)
    expected = sum(random_matrix(seed) for seed in range(5)).numpy()
    for first, second, third in permutations(parts):
        np.testing.assert_array_equal((first + second + third).total, expected)
        np.testing.assert_array_equal((first + (second + third)).total, expected)


def test_two_processes_count_as_one() -> None:
    with ProcessPoolExecutor(2, mp_context=quick_context()) as pool:
        states = list(pool.map(state_bytes, (0, 3), (4, 7)))
    result = ConfusionMatrix(SIZE)
    for state in states:
        result.merge(ConfusionMatrix.from_state_dict(torch.load(io.BytesIO(state), weights_only=True)))
    np.testing.assert_array_equal(result.total, sum(random_matrix(seed) for seed in range(7)).numpy())
    assert sorted(result) == list("0123456")


def test_different_counts_of_one_record_are_refused_and_nothing_changes() -> None:
    first, second = ConfusionMatrix(SIZE), ConfusionMatrix(SIZE)
    first.add("photo 7", random_matrix(0))
    second.add("a new one", random_matrix(2))
    second.add("photo 7", random_matrix(1))
    before = first.total.copy()
    with pytest.raises(PartCLIPSegError, match="'photo 7' was scored twice"):
        first.merge(second)
    np.testing.assert_array_equal(first.total, before)
    assert len(first) == 1


def test_different_sizes_are_refused() -> None:
    with pytest.raises(PartCLIPSegError, match="6 classes into 4 classes"):
        ConfusionMatrix(5).merge(ConfusionMatrix(7))


@pytest.mark.parametrize("records", [0, 1, 3])
def test_state_survives_a_file(tmp_path: Path, records: int) -> None:
    matrix = ConfusionMatrix(SIZE)
    for seed in range(records):
        matrix.add(str(seed), random_matrix(seed))
    torch.save(matrix.state_dict(), tmp_path / "state")
    again = ConfusionMatrix.from_state_dict(torch.load(tmp_path / "state", weights_only=True))
    np.testing.assert_array_equal(again.total, matrix.total)
    assert list(again) == list(matrix)
    for key in matrix:
        np.testing.assert_array_equal(again.record(key), matrix.record(key))


def test_counts_beyond_32_bits_stay_exact() -> None:
    matrix = ConfusionMatrix(2)
    many = torch.tensor([[2**40 + 1, 0], [0, 0]])
    matrix.add("a", many)
    matrix.add("b", many)
    assert matrix.total[0, 0] == 2**41 + 2
