"""The order of training, its state, and that workers and processes do not change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partclipseg.data.augment import Augmentation
from partclipseg.data.loader import Batch, Draw, StepSampler, build_loader
from partclipseg.data.sample import PartSample
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.vocabulary import Vocabulary


@dataclass
class Noise:
    """Records of noise, of changing sizes; record `broken` cannot be read."""

    size: int = 7
    broken: int | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.from_text("dog: ear, tail; bus: wheel")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> PartSample:
        if index == self.broken:
            raise PartCLIPSegError(f"photos/{index}.jpg is not a photo")
        generator = np.random.default_rng(index)
        shape = (20 + index, 30 - index)
        return PartSample(
            image=generator.integers(0, 256, (*shape, 3), dtype=np.uint8),
            part_labels=generator.integers(-1, 3, shape, dtype=np.int32),
            object_labels=generator.integers(-2, 2, shape, dtype=np.int32),
            key=str(index),
        )


def stream(dataset=None, **options):
    options = {"batch_size": 4, "seed": 3, "image_size": 16, **options}
    return build_loader(Noise() if dataset is None else dataset, **{"augmentation": Augmentation(), **options})


def assert_same(first: Batch, second: Batch) -> None:
    assert first.keys == second.keys
    for name in ("photos", "part_labels", "object_labels"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=0, atol=0)


@dataclass
class Corners(Noise):
    """Large records that are labelled at the top left only, or not at all."""

    labelled: bool = True

    def __getitem__(self, index: int) -> PartSample:
        parts = np.full((60, 60), -1, np.int32)
        parts[:20, :20] = index % 3 if self.labelled else -1
        return PartSample(np.zeros((60, 60, 3), np.uint8), parts, np.zeros_like(parts), key=str(index))


def test_a_cut_without_a_label_gives_way_to_another_photo():
    still = replace(Augmentation.none(), fit="crop")
    batches = list(islice(stream(Corners(), augmentation=still), 12))
    assert all((labels >= 0).any() for batch in batches for labels in batch.part_labels)
    assert {key for batch in batches for key in batch.keys} == set("0123456")
    again = stream(Corners(), augmentation=still, workers=2)
    for batch in batches[:3]:
        assert_same(next(again), batch)
    unlabelled = next(stream(Corners(labelled=False), augmentation=still))  # ends, though nothing has a label
    assert (unlabelled.part_labels < 0).all()
    corners = list(islice(stream(Noise(), augmentation=replace(still, fit="corner")), 7))
    assert sorted(key for batch in corners for key in batch.keys) == sorted("0123456" * 4)  # each photo in its turn


# -- order ------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 20), batch_size=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_every_epoch_has_every_record_once(size, batch_size, seed):
    steps = list(islice(StepSampler(size, batch_size, seed), 3 * size))
    draws = [draw for step in steps for draw in step]
    assert all(len(step) == batch_size for step in steps)
    for epoch in range(len(draws) // size):
        records = draws[epoch * size : (epoch + 1) * size]
        assert sorted(records) == [Draw(seed, epoch, index) for index in range(size)]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(draw.index for draw in step) for seed in (0, 1) for step in islice(StepSampler(50, 50, seed), 3)}
    assert len(orders) == 6


@given(
    size=st.integers(1, 20),
    share=st.integers(1, 4),
    world_size=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 9),
    taken=st.integers(0, 60),
)
def test_a_sampler_continues_at_every_position_in_every_process(size, share, world_size, seed, taken):
    batch_size = share * world_size
    whole = list(islice(StepSampler(size, batch_size, seed), taken + 3))
    ranks = [
        list(
            islice(
                StepSampler(size, batch_size, seed, position=taken * batch_size, rank=rank, world_size=world_size), 3
            )
        )
        for rank in range(world_size)
    ]
    for step, together in enumerate(whole[taken:]):
        # The processes' strides, put together, are the step of a single process.
        assert [draw for draws in zip(*(r[step] for r in ranks), strict=True) for draw in draws] == together


@settings(max_examples=15, deadline=None)
@given(delivered=st.integers(0, 12), world_size=st.sampled_from([1, 2]), new_world_size=st.sampled_from([1, 2, 4]))
def test_a_stream_continues_at_every_position_in_every_process(delivered, world_size, new_world_size):
    whole = list(islice(stream(), delivered + 2))
    for rank in range(world_size):
        before = stream(rank=rank, world_size=world_size)
        assert [b.keys for b in islice(before, delivered)] == [b.keys[rank::world_size] for b in whole[:delivered]]
        state = before.state_dict()
        for new_rank in range(new_world_size):
            # Another seed, to see that the state's one is taken up.
            after = stream(seed=8, rank=new_rank, world_size=new_world_size)
            after.load_state_dict(state)
            assert after.state_dict() == state
            for expected, batch in zip(whole[delivered:], after, strict=False):
                assert batch.keys == expected.keys[new_rank::new_world_size]
                torch.testing.assert_close(batch.photos, expected.photos[new_rank::new_world_size], rtol=0, atol=0)


def test_the_state_counts_within_the_epoch():
    batches = stream(batch_size=4)
    assert batches.state_dict() == {"seed": 3, "epoch": 0, "position": 0, "size": 7}
    next(batches), next(batches)
    assert batches.state_dict() == {"seed": 3, "epoch": 1, "position": 1, "size": 7}


# -- workers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone() -> list[Batch]:
    return list(islice(stream(), 9))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers, alone):
    batches = stream(workers=workers)
    for expected in alone[:4]:
        assert_same(next(batches), expected)
    # The workers are ahead by now; the state is that of what was handed out.
    state = batches.state_dict()
    assert state["epoch"] * state["size"] + state["position"] == 16
    continued = stream(workers=3 - workers)
    continued.load_state_dict(state)
    for expected in alone[4:6]:
        assert_same(next(continued), expected)
    batches.load_state_dict({**state, "epoch": 0, "position": 0})
    assert_same(next(batches), alone[0])


def test_starting_workers_leaves_torchs_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(stream(workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_photo_is_named_without_a_traceback(workers):
    batches = stream(Noise(broken=5), workers=workers, batch_size=7)
    for _ in range(2):  # asked again, it says so again: no batch is passed over
        with pytest.raises(PartCLIPSegError) as caught:
            next(batches)
        assert str(caught.value) == "photos/5.jpg is not a photo"
        assert batches.state_dict()["position"] == 0


# -- batches ----------------------------------------------------------------------------------------------------


def test_a_batch_without_augmentation_is_the_resized_record():
    batch = next(stream(augmentation=None, batch_size=7))
    assert batch.photos.shape == (7, 3, 16, 16)
    assert batch.photos.dtype == torch.uint8
    assert batch.part_labels.shape == batch.object_labels.shape == (7, 16, 16)
    assert batch.part_labels.dtype == batch.object_labels.dtype == torch.int64
    for i, key in enumerate(batch.keys):
        sample = Noise()[int(key)]
        height, width = sample.part_labels.shape
        assert batch.part_labels[i, 0, 0] == sample.part_labels[height // 32, width // 32]
        assert set(batch.object_labels[i].unique().tolist()) == {-2, -1, 0, 1}
    assert not torch.equal(batch.part_labels, batch.object_labels)


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_photos_keep_their_range_and_colour_order(augmentation):
    """The model normalises photos, so batches must not."""

    class Red(Noise):
        def __getitem__(self, index: int) -> PartSample:
            labels = np.zeros((8, 8), np.int32)
            return PartSample(np.full((8, 8, 3), (255, 51, 0), np.uint8), labels, labels, key="")

    photos = next(stream(Red(), augmentation=augmentation, batch_size=1)).photos
    colour = photos[0, :, 0, 0].double()
    assert (photos == photos[:, :, :1, :1]).all()
    assert photos.dtype in (torch.uint8, torch.float32)
    if photos.dtype == torch.float32:
        assert photos.max() <= 1
        colour = 255 * colour
    if augmentation is None:
        assert colour.tolist() == [255, 51, 0]
    assert colour[0] > colour[1] >= colour[2]


@pytest.mark.parametrize(
    ("dataset", "options", "error", "words"),
    [
        (Noise(size=0), {}, PartCLIPSegError, "empty"),
        (None, {"batch_size": 3, "world_size": 2}, UsageError, "multiple of 2"),
        (None, {"batch_size": 0}, UsageError, "batch size 0"),
        (None, {"world_size": 2, "rank": 2}, UsageError, "rank 2"),
        (None, {"seed": -1}, UsageError, "seed"),
    ],
)
def test_impossible_loaders_are_refused(dataset, options, error, words):
    with pytest.raises(error, match=words):
        stream(dataset, **options)


def test_a_state_of_other_data_is_refused():
    state = stream().state_dict()
    with pytest.raises(PartCLIPSegError, match=r"7 records .* 6"):
        stream(Noise(size=6)).load_state_dict(state)
