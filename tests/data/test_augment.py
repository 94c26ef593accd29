"""Photo and labels stay together, whatever `augment` draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partclipseg.data.augment import Augmentation, Mirror, augment, sample_generator
from partclipseg.data.resize import resize_labels, resize_photo
from partclipseg.data.sample import OUTSIDE, UNLABELLED, PartSample
from partclipseg.errors import UsageError
from partclipseg.vocabulary import CATALOGS, Vocabulary

STILL = Augmentation.none()
CLASSES, OBJECTS = 6, 3


def paint(parts: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """A photo from which both labels can be read: one channel each, the third from both."""
    red, green = (parts + 1) * 30, (objects + 2) * 40
    return np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)


def blocks(seed: int, height: int, width: int, edge: int = 1) -> PartSample:
    """Random labels in squares of `edge` pixels, painted into the photo."""
    generator = np.random.default_rng(seed)
    shape = -(-height // edge), -(-width // edge)
    parts, objects = (
        np.kron(generator.integers(low, high, shape), np.ones((edge, edge), int))[:height, :width].astype(np.int32)
        for low, high in ((UNLABELLED, CLASSES), (OUTSIDE, OBJECTS))
    )
    return PartSample(paint(parts, objects), parts, objects, key=str(seed))


configurations = st.builds(
    Augmentation,
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    crop_edge=st.sampled_from([None, (0.3, 0.9), (0.05, 0.2)]),
    crop_keeps=st.sampled_from([0.0, 0.5, 1.0]),
    brightness=st.just(0),
    contrast=st.just(0),
    saturation=st.just(0),
)
seeds = st.integers(0, 2**32)


@given(configurations, seeds, st.integers(1, 40), st.integers(1, 40))
def test_paint_and_labels_agree_at_every_pixel_without_scaling(config, seed, height, width):
    changed = augment(blocks(seed, height, width), np.random.default_rng(seed), config)
    np.testing.assert_array_equal(changed.image, paint(changed.part_labels, changed.object_labels))
    assert (changed.image.dtype, changed.part_labels.dtype, changed.object_labels.dtype) == (
        np.uint8,
        np.int32,
        np.int32,
    )


@settings(max_examples=40)
@given(configurations, seeds, st.integers(3, 9), st.integers(3, 9), st.integers(20, 120))
def test_paint_and_labels_agree_inside_every_region_after_scaling(config, seed, rows, columns, edge):
    config = Augmentation(**{**vars(config), "shortest_edge": (20, edge), "crop_edge": None})
    # Whole squares only: a sliver at the rim could colour pixels and yet be missed by every label.
    sample = blocks(seed, 10 * rows, 10 * columns, edge=10)
    changed = augment(sample, np.random.default_rng(seed), config)

    # Interpolation mixes colours within the filter's reach of a border: one pixel of the coarser of the two
    # grids, and half a pixel for the nearest label. Everywhere else the colour must be exact.
    scale = changed.part_labels.shape[0] / (10 * rows)
    reach = int(np.ceil(1.5 * max(1, scale)))
    expected = paint(changed.part_labels, changed.object_labels)
    inside = np.ones(changed.part_labels.shape, bool)
    padded = np.pad(expected[..., :2].astype(int) @ [1, 256], reach, mode="edge")
    height, width = inside.shape
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            inside &= padded[dy : dy + height, dx : dx + width] == padded[reach:-reach, reach:-reach]
    np.testing.assert_array_equal(changed.image[inside], expected[inside])
    if scale >= 0.5:  # a square of 5 pixels is the smallest whose middle no border reaches
        assert inside.any()


@given(configurations, seeds, st.sampled_from([(7, 5), (64, 64)]))
def test_a_final_size_is_a_last_scaling(config, seed, size):
    config = Augmentation(**{**vars(config), "shortest_edge": (20, 50)})
    sample = blocks(seed, 33, 48, edge=6)
    at_once = augment(sample, np.random.default_rng(seed), config, size=size)
    then = augment(sample, np.random.default_rng(seed), config)
    np.testing.assert_array_equal(at_once.image, resize_photo(then.image, size))
    np.testing.assert_array_equal(at_once.part_labels, resize_labels(then.part_labels, size))
    np.testing.assert_array_equal(at_once.object_labels, resize_labels(then.object_labels, size))


@given(seeds, st.integers(0, 5), st.integers(0, 5))
def test_a_sample_is_fixed_by_seed_epoch_and_index(seed, epoch, index):
    sample = blocks(1, 24, 32, edge=4)
    first, second = (augment(sample, sample_generator(seed, epoch, index), Augmentation()) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.part_labels, second.part_labels)


def test_generators_of_neighbours_differ():
    draws = {
        float(sample_generator(*numbers).random())
        for numbers in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**32, 0, 0), (0, 2**32, 0), (0, 1, 1)]
    }
    assert len(draws) == 7


def test_colours_change_the_photo_alone():
    sample = blocks(3, 30, 40, edge=5)
    config = Augmentation(flip=1, crop_edge=None)
    changed = augment(sample, np.random.default_rng(0), config)
    np.testing.assert_array_equal(changed.part_labels, sample.part_labels[:, ::-1])
    assert (changed.image != sample.image[:, ::-1]).any()


@given(seeds, st.sampled_from([0.5, 0.9, 1.0]))
def test_a_crop_keeps_a_part(seed, keeps):
    sample = blocks(seed, 40, 40, edge=8)
    config = Augmentation(**{**vars(STILL), "crop_edge": (0.3, 0.6), "crop_keeps": keeps, "crop_attempts": 4})
    changed = augment(sample, np.random.default_rng(seed), config)
    classes = [c for c in range(CLASSES) if (sample.part_labels == c).any()]
    shares = [(changed.part_labels == c).sum() / (sample.part_labels == c).sum() for c in classes]
    assert not classes or max(shares) >= keeps


def test_a_photo_whose_parts_no_crop_can_keep_stays_whole():
    parts = np.zeros((20, 20), np.int32)  # one part everywhere: a crop of half an edge keeps a quarter of it
    sample = PartSample(paint(parts, parts), parts, parts, key="")
    config = Augmentation(**{**vars(STILL), "crop_edge": (0.5, 0.5)})
    assert augment(sample, np.random.default_rng(0), config).part_labels.shape == (20, 20)


def test_an_unlabelled_photo_is_cropped():
    parts = np.full((20, 20), UNLABELLED, np.int32)
    sample = PartSample(paint(parts, parts), parts, parts, key="")
    config = Augmentation(**{**vars(STILL), "crop_edge": (0.5, 0.5)})
    assert augment(sample, np.random.default_rng(0), config).part_labels.shape == (10, 10)


def test_the_published_configuration_flips_and_scales():
    shapes, flipped = set(), 0
    sample = blocks(5, 30, 60, edge=6)
    for index in range(20):
        changed = augment(sample, sample_generator(0, 0, index), Augmentation.published())
        shapes.add(changed.image.shape)
        flipped += (changed.part_labels == resize_labels(sample.part_labels[:, ::-1], (667, 1333))).all()
    assert shapes == {(667, 1333, 3)}  # 30:60 to a shortest edge of 800 would be 1600 wide
    assert 2 < flipped < 18


def test_resized_labels_sit_where_the_photo_puts_them():
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    np.testing.assert_array_equal(resize_labels(labels, (6, 8)), labels.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(resize_labels(labels, (1, 4)), labels[1:2])
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[:, 4:] = 200
    # A border between two pixels stays there: the filter spreads it evenly to both sides.
    np.testing.assert_array_equal(resize_photo(photo, (4, 4))[..., 0], [[0, 25, 175, 200]] * 4)


# -- left and right ---------------------------------------------------------------------------------------------


def test_flipping_exchanges_left_and_right_words():
    vocabulary = Vocabulary.from_dict({"car": ["left mirror", "Right Mirror", "roof", "front_left_door"]})
    mirror = Mirror.of(vocabulary)
    assert mirror is not None
    np.testing.assert_array_equal(mirror.classes, [1, 0, 2, UNLABELLED])
    parts = np.array([[0, 1, 2, 3, UNLABELLED]], np.int32)
    sample = PartSample(np.zeros((1, 5, 3), np.uint8), parts, np.zeros_like(parts), key="")
    flip = Augmentation(**{**vars(STILL), "flip": 1})
    changed = augment(sample, np.random.default_rng(0), flip, mirror)
    np.testing.assert_array_equal(changed.part_labels, [[UNLABELLED, UNLABELLED, 2, 0, 1]])
    unswapped = augment(
        sample, np.random.default_rng(0), Augmentation(**{**vars(flip), "swap_left_right": False}), mirror
    )
    np.testing.assert_array_equal(unswapped.part_labels, parts[:, ::-1])


def test_flipping_exchanges_left_and_right_objects():
    mirror = Mirror.of(Vocabulary.from_dict({"left shoe": ["sole"], "right shoe": ["sole"], "left sock": ["heel"]}))
    assert mirror is not None
    np.testing.assert_array_equal(mirror.classes, [1, 0, UNLABELLED])
    np.testing.assert_array_equal(mirror.objects, [2, OUTSIDE, 0])  # left shoe, left sock, right shoe


@pytest.mark.parametrize("name", CATALOGS)
def test_the_benchmarks_have_nothing_to_exchange(name):
    assert Mirror.of(Vocabulary.from_catalog(name)) is None


def test_words_that_contain_left_or_right_stay():
    assert Mirror.of(Vocabulary.from_dict({"piano": ["upright", "leftover", "copyright"]})) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flip": 1.5}, "flip"),
        ({"crop_edge": (0.9, 0.1)}, "crop_edge"),
        ({"crop_edge": (0, 1)}, "crop_edge"),
        ({"shortest_edge": (0, 5)}, "shortest_edge"),
        ({"crop_attempts": 0}, "crop_attempts"),
        ({"brightness": -0.1}, "brightness"),
    ],
)
def test_impossible_options_are_named(options, words):
    with pytest.raises(UsageError, match=words):
        Augmentation(**options)


# -- crops around objects -- ------------------------------------------------------------------------------------------


def with_two_objects(seed: int) -> PartSample:
    """Two objects of six and eight pixels a side in a photo of 40x60, one of them without a labelled part."""
    parts, objects = np.full((2, 40, 60), UNLABELLED, np.int32)
    instances = parts.copy()
    for number, (top, left, edge) in enumerate(((4, 5, 6), (25, 40, 8))):
        objects[top : top + edge, left : left + edge], instances[top : top + edge, left : left + edge] = 0, number
    parts[4:10, 5:10] = seed % CLASSES
    return PartSample(paint(parts, objects), parts, objects, "two", instances)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_an_object_with_a_labelled_part_is_cut_out_with_what_lies_beside_it(flip: float) -> None:
    sample = with_two_objects(2)
    config = Augmentation(flip=flip, object_crop=1, crop_edge=None, brightness=0, contrast=0, saturation=0)
    changed = augment(sample, np.random.default_rng(0), config)
    # The first object has parts: its box of 6 pixels with a quarter of margin on each side, in the photo's shape.
    assert changed.image.shape == (20, 30, 3)  # a pixel is enlarged twice at most
    assert (changed.object_labels == 0).sum() == 36
    assert (changed.part_labels == 2).sum() == 30
    np.testing.assert_array_equal(changed.image, paint(changed.part_labels, changed.object_labels))
    assert augment(sample, np.random.default_rng(0), config, size=(32, 32)).image.shape == (32, 32, 3)


def test_crops_around_objects_are_off_unless_asked_for() -> None:
    """Nothing is drawn for them then: photos change exactly as before."""
    assert Augmentation().object_crop == Augmentation.published().object_crop == Augmentation.none().object_crop == 0
    sample = blocks(1, 40, 60)
    generator = np.random.default_rng(3)
    augment(sample, generator, Augmentation.none())
    other = np.random.default_rng(3)
    other.random()  # the flip
    assert generator.random() == other.random()


def test_without_a_part_in_any_object_the_random_crop_is_taken() -> None:
    sample = with_two_objects(0)
    bare = replace(sample, part_labels=np.full_like(sample.part_labels, UNLABELLED))
    config = Augmentation(flip=0, object_crop=1, crop_edge=(0.5, 0.5), brightness=0, contrast=0, saturation=0)
    assert augment(bare, np.random.default_rng(0), config).image.shape == (20, 30, 3)


def test_crops_around_objects_need_an_instance_map() -> None:
    with pytest.raises(UsageError, match="object_crop needs data that tell objects apart"):
        augment(blocks(1, 8, 8), np.random.default_rng(0), Augmentation(object_crop=1))
    with pytest.raises(UsageError, match=r"object_crop must lie in 0\.\.1"):
        Augmentation(object_crop=1.5)


# -- photos cut to the model's size ---------------------------------------------------------------------------------


@given(st.sampled_from(["crop", "corner"]), seeds, st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
def test_a_cut_photo_is_filled_up_without_a_label(fit, seed, height, width, side):
    sample, config = blocks(seed, height, width), replace(STILL, flip=0.5, fit=fit)
    changed = augment(sample, np.random.default_rng(seed), config, size=(side, side))
    assert changed.image.shape == (side, side, 3)
    kept = (slice(min(side, height)), slice(min(side, width)))
    np.testing.assert_array_equal(changed.image[kept], paint(changed.part_labels[kept], changed.object_labels[kept]))
    filled = np.ones((side, side), bool)
    filled[kept] = False
    assert (changed.image[filled] == 128).all()
    assert (changed.part_labels[filled] == UNLABELLED).all()
    assert (changed.object_labels[filled] == UNLABELLED).all()


def test_a_cut_lies_anywhere_or_at_the_corner():
    numbers = np.arange(30, dtype=np.int32).reshape(5, 6)
    sample = PartSample(np.repeat(numbers.astype(np.uint8)[..., None], 3, -1), numbers, numbers, key="a")
    firsts = {
        fit: {
            int(augment(sample, sample_generator(0, 0, i), replace(STILL, fit=fit), size=(4, 4)).part_labels[0, 0])
            for i in range(60)
        }
        for fit in ("crop", "corner")
    }
    assert firsts == {"crop": {0, 1, 2, 6, 7, 8}, "corner": {0}}


def test_labels_of_a_cut_photo_are_torch_s_nearest():
    sample = blocks(3, 30, 41)
    config = replace(STILL, fit="corner", shortest_edge=(48, 48))
    changed = augment(sample, np.random.default_rng(0), config, size=(48, 66))
    for found, labels in ((changed.part_labels, sample.part_labels), (changed.object_labels, sample.object_labels)):
        wanted = torch.nn.functional.interpolate(torch.from_numpy(labels)[None, None].float(), (48, 66), mode="nearest")
        np.testing.assert_array_equal(found, wanted[0, 0].numpy())


# -- colours --------------------------------------------------------------------------------------------------------


def colours_of(config, image, count=60):
    sample = PartSample(image, *[np.zeros(image.shape[:2], np.int32)] * 2, key="a")
    return [augment(sample, sample_generator(0, 0, index), config).image.astype(int) for index in range(count)]


def test_ssd_adds_brightness_and_multiplies_contrast_half_of_the_time():
    image = np.random.default_rng(0).integers(60, 120, (5, 7, 3), dtype=np.uint8)
    brighter = colours_of(replace(STILL, ssd=True, brightness=32 / 255), image)
    steps = [np.unique(one - image) for one in brighter]
    assert all(len(step) == 1 and -33 <= step[0] <= 32 for step in steps)
    assert 20 < sum(step[0] != 0 for step in steps) < 45
    for one in colours_of(replace(STILL, ssd=True, contrast=0.5), image):
        ratio = one.sum() / image.sum()
        assert 0.49 < ratio < 1.51
        assert np.abs(one - image * ratio).max() < 1.5  # values are cut to whole numbers


def test_the_hue_is_turned():
    red = np.full((2, 3, 3), (200, 0, 0), np.uint8)
    for config in (replace(STILL, hue=180), replace(STILL, ssd=True, hue=180)):
        found = np.array([one[0, 0] for one in colours_of(config, red)])
        assert (found.max(1) == 200).all()
        assert (found.min(1) == 0).all()
        assert {int(colour.argmax()) for colour in found} == {0, 1, 2}
    few = np.array([one[0, 0] for one in colours_of(replace(STILL, hue=30), red)])
    assert (few[:, 0] == 200).all()
    assert (few[:, 1:].max(1) <= 105).all()  # 30 of the 60 degrees to the next corner
    assert len(np.unique(few, axis=0)) > 10


def test_saturation_of_ssd_leaves_the_greatest_channel():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    found = colours_of(replace(STILL, ssd=True, saturation=0.5), image)
    assert all((one.max(-1) == image.max(-1)).all() for one in found)
    assert len({one.tobytes() for one in found}) > 20


@pytest.mark.parametrize("hue", [-1.0, 181.0])
def test_a_hue_out_of_range_is_refused(hue):
    with pytest.raises(UsageError, match=r"hue must lie in 0\.\.180"):
        Augmentation(hue=hue)
