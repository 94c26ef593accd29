"""The second look: where it looks, what it may change, and that it changes nothing unless asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partclipseg.data.resize import resize_labels
from partclipseg.inference import zoom
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.inference.zoom import find_crops, look_again, merge_looks
from partclipseg.maps import crops as shared
from partclipseg.maps.crops import Crop, connected_regions
from partclipseg.maps.label_maps import BACKGROUND, LabelMaps
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

SEEN_AS = (32, 32)
"""The input of the models that are played here."""

# -- regions --------------------------------------------------------------------------------------------------


def flood(labels: np.ndarray) -> np.ndarray:
    """Connected regions, pixel by pixel."""
    regions = np.full(labels.shape, -1)
    for start in np.ndindex(labels.shape):
        if regions[start] >= 0:
            continue
        number, stack = regions.max() + 1, [start]
        while stack:
            row, column = stack.pop()
            inside = 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]
            if inside and regions[row, column] < 0 and labels[row, column] == labels[start]:
                regions[row, column] = number
                stack += [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return regions


@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 1)))
def test_regions_are_those_of_a_flood_fill(labels):
    np.testing.assert_array_equal(connected_regions(labels), flood(labels))


def test_a_spiral_is_one_region():
    spiral = np.zeros((41, 41), np.int64)
    top, left, bottom, right = 0, 0, 40, 40
    while right - left > 3:
        spiral[top, left : right + 1] = spiral[top : bottom + 1, right] = spiral[bottom, left : right + 1] = 1
        spiral[top + 2 : bottom + 1, left] = 1
        spiral[top + 2, left : left + 3] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    regions = connected_regions(spiral)
    np.testing.assert_array_equal(regions, flood(spiral))
    assert len(np.unique(regions[spiral == 1])) == 1


# -- crops ----------------------------------------------------------------------------------------------------


@st.composite
def object_maps(draw) -> np.ndarray:
    """Background with up to twelve rectangles of three objects on it."""
    shape = draw(st.sampled_from([(32, 32), (24, 40)]))
    labels = np.full(shape, BACKGROUND)
    for _ in range(draw(st.integers(0, 12))):
        top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
        labels[top : top + height, left : left + width] = draw(st.integers(BACKGROUND, 2))
    return labels


@settings(max_examples=200, deadline=None)
@given(object_maps(), st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(1, 30))
def test_crops_show_their_regions(labels, photo_size, least_area):
    crops = find_crops(labels, photo_size, least_area)
    regions = connected_regions(labels)
    scale = np.array(photo_size) / labels.shape
    boxes = []
    for number in np.unique(regions):
        rows, columns = np.nonzero(regions == number)
        if (word := int(labels[rows[0], columns[0]])) != BACKGROUND and len(rows) >= least_area:
            start, end = np.array([rows.min(), columns.min()]), np.array([rows.max(), columns.max()]) + 1
            boxes.append((word, start * scale, end * scale))

    def shows(crop: Crop, word: int, start: np.ndarray, end: np.ndarray) -> bool:
        corner = np.array([crop.top, crop.left])
        inside = (corner <= start + 1e-9).all() and (end <= corner + (crop.height, crop.width) + 1e-9).all()
        return crop.object == word and bool(inside)

    for crop in crops:
        assert crop.top >= 0
        assert crop.left >= 0
        assert crop.top + crop.height <= photo_size[0]
        assert crop.left + crop.width <= photo_size[1]
        assert crop.height * crop.width * zoom.LEAST_GAIN**2 <= photo_size[0] * photo_size[1] + 1e-6
        if crop.height < photo_size[0] and crop.width < photo_size[1]:
            # Undistorted, but for rounding up to whole pixels.
            assert abs(crop.height / labels.shape[0] - crop.width / labels.shape[1]) <= 1 / min(labels.shape)
        assert any(shows(crop, word, start, end) for word, start, end in boxes)
    assert len(crops) <= zoom.MOST_CROPS
    if len(crops) < zoom.MOST_CROPS:
        for word, start, end in boxes:
            needed = (1 + 2 * shared.MARGIN) * ((end - start) / labels.shape).max() * np.array(labels.shape)
            needed = np.ceil(np.maximum(needed, np.array(labels.shape) / shared.LARGEST_PIXEL) - 1e-9)
            window = np.minimum(needed, photo_size).prod()
            too_large = window * zoom.LEAST_GAIN**2 > np.prod(photo_size) * 0.98  # rounding may tip the balance
            assert too_large or any(shows(crop, word, start, end) for crop in crops)


def square(size: int, *places: tuple[int, int, int, int]) -> np.ndarray:
    """Object map `[size, size]` with squares: object, top, left, side."""
    labels = np.full((size, size), BACKGROUND)
    for word, top, left, side in places:
        labels[top : top + side, left : left + side] = word
    return labels


@pytest.mark.parametrize(
    ("labels", "photo_size", "expected"),
    [
        # 4 of 32 pixels are 40 of 320; with a quarter on each side 60.
        (square(32, (2, 10, 12, 4)), (320, 320), [(2, 90, 110, 60, 60)]),
        # A wide photo was squeezed; its crop is not.
        (square(32, (2, 10, 12, 4)), (320, 640), [(2, 60, 220, 120, 120)]),
        # In the corner the window is moved inside.
        (square(32, (0, 28, 28, 4)), (320, 320), [(0, 260, 260, 60, 60)]),
        # Magnified to two pixels for one, not more.
        (square(32, (0, 16, 16, 2)), (128, 128), [(0, 60, 60, 16, 16)]),
        # The largest first, whatever its index.
        (square(32, (0, 2, 2, 3), (1, 20, 20, 6)), (320, 320), [(1, 185, 185, 90, 90), (0, 12, 12, 45, 45)]),
        # A piece beside a larger one of the same object is in its window; one of another object has its own.
        (square(32, (1, 8, 8, 8), (1, 10, 17, 1)), (320, 320), [(1, 60, 60, 120, 120)]),
        (square(32, (1, 8, 8, 8), (0, 10, 17, 1)), (320, 320), [(1, 60, 60, 120, 120), (0, 97, 167, 16, 16)]),
        # Nothing there; fills the photo; the photo is no larger than what the model sees at twice its size.
        (square(32), (320, 320), []),
        (square(32, (0, 0, 0, 32)), (320, 320), []),
        (square(32, (0, 4, 4, 15)), (320, 320), []),
        (square(32, (0, 16, 16, 2)), (20, 20), []),
    ],
)
def test_where_crops_are(labels, photo_size, expected):
    assert find_crops(labels, photo_size, least_area=1) == [Crop(*values) for values in expected]


def test_specks_are_left_out():
    labels = square(32, (0, 1, 1, 2), (0, 20, 20, 3))
    assert [crop.top for crop in find_crops(labels, (320, 320), least_area=5)] == [192]
    assert find_crops(labels, (320, 320), least_area=10) == []


def test_the_largest_objects_of_a_crowd_are_looked_at():
    places = [(index % 3, 5 * (index // 6), 5 * (index % 6), 1 + index % 3) for index in range(36)]
    crops = find_crops(square(32, *places), (640, 640), least_area=1)
    assert len(crops) == zoom.MOST_CROPS
    assert {crop.object for crop in crops} == {2}  # those with a side of 3
    assert crops == sorted(crops, key=lambda crop: (crop.top, crop.left)), "of equal ones the first in reading order"


# -- composition ----------------------------------------------------------------------------------------------

OWNER = torch.tensor([0, 0, 1, 1, 2])
"""Objects of five classes."""


def random_maps(generator: torch.Generator, size: tuple[int, int], classes: Sequence[int]) -> LabelMaps:
    labels = torch.tensor(classes)[torch.randint(0, len(classes), size, generator=generator)]
    owners = torch.cat([OWNER, torch.tensor([BACKGROUND])])[labels]
    return LabelMaps(labels, owners, torch.randint(0, 5, size, generator=generator) / 4)  # with ties


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4), st.booleans())
def test_looks_decide_within_their_crops_alone(seed, number, with_background):
    generator, chance = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    size = (9, 11)
    first = random_maps(generator, size, [-1, 0, 1, 2, 3, 4])
    kept = LabelMaps(*(values.clone() for values in first))
    looks = []
    for _ in range(number):
        index, height, width = int(chance.integers(3)), int(chance.integers(1, 9)), int(chance.integers(1, 11))
        crop = Crop(index, int(chance.integers(10 - height)), int(chance.integers(12 - width)), height, width)
        classes = np.flatnonzero(OWNER.numpy() == index).tolist() + [-1] * with_background
        looks.append((crop, random_maps(generator, (height, width), classes)))
    result = merge_looks(first, looks, with_background)
    for values, before in zip(first, kept, strict=True):
        assert torch.equal(values, before), "the first look's maps are left alone"
    for row, column in np.ndindex(size):
        may = [BACKGROUND] if with_background else []
        there = [
            [values[row - crop.top, column - crop.left].item() for values in look]
            for crop, look in looks
            if crop.top <= row < crop.top + crop.height
            and crop.left <= column < crop.left + crop.width
            and first.object_map[row, column].item() in [crop.object, *may]
        ]
        expected = max(there, key=lambda values: values[2], default=[values[row, column].item() for values in first])
        assert [values[row, column].item() for values in result] == expected


# -- both looks -----------------------------------------------------------------------------------------------


class Coarse:
    """A model that sees every photo at `SEEN_AS` and reads the class off the colour: class + 1 in red.

    Its second looks are surer than its first. With `lost`, it finds no object at the second look.
    """

    def __init__(self, lost: bool = False) -> None:
        self.lost = lost
        self.calls: list[tuple[list[tuple[int, int]], list[list[int]], bool]] = []

    def __call__(self, photos, sizes, present_objects, with_background, masks=None) -> list[LabelMaps]:
        self.calls.append(([photo.shape[:2] for photo in photos], [list(p) for p in present_objects], with_background))
        return [
            self.read(photo, size, present, with_background)
            for photo, size, present in zip(photos, sizes, present_objects, strict=True)
        ]

    def first(self, photo: np.ndarray, present: Sequence[int] | None = None) -> LabelMaps:
        return self.read(photo, photo.shape[:2], range(3) if present is None else present, present is None, score=0.5)

    def read(self, photo, size, present, with_background, score=0.75) -> LabelMaps:
        seen = resize_labels(photo[:, :, 0].astype(np.int64) - 1, SEEN_AS)
        labels = torch.from_numpy(resize_labels(seen, size))
        owners = torch.cat([OWNER, torch.tensor([BACKGROUND])])[labels]
        known = torch.isin(owners, torch.tensor(list(present)))
        if self.lost and with_background and score != 0.5:
            known = torch.zeros_like(known)
        other = BACKGROUND if with_background else OWNER.tolist().index(next(iter(present)))
        labels = torch.where(known, labels, other)
        owners = torch.cat([OWNER, torch.tensor([BACKGROUND])])[labels]
        return LabelMaps(labels, owners, torch.full(size, score))


def scene(*places: tuple[int, int, int, int, int], size: tuple[int, int] = (128, 128)) -> np.ndarray:
    """A photo with rectangles: class, top, left, height, width."""
    photo = np.zeros((*size, 3), np.uint8)
    for label, top, left, height, width in places:
        photo[top : top + height, left : left + width] = label + 1
    return photo


SMALL = [(0, 40, 50, 12, 12), (1, 43, 54, 2, 3)]
"""An object of 12 pixels with a part of 2 by 3: less than a pixel of the model's, which are 4 by 4."""
LARGE = [(2, 8, 4, 100, 110), (3, 51, 55, 3, 2)]


def see(photos: Sequence[np.ndarray], model: Coarse, present: Sequence[Sequence[int]] | None = None):
    first = [model.first(p, None if present is None else present[i]) for i, p in enumerate(photos)]
    return first, look_again(model, photos, first, present, SEEN_AS, least_area=1)


def truth(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo[:, :, 0].astype(np.int64) - 1)


def test_a_small_part_is_found_at_the_second_look():
    photo, model = scene(*SMALL), Coarse()
    (first,), (both,) = see([photo], model)
    assert not torch.equal(first.label_map, truth(photo))
    # The window of 18 by 18 fits into what the model sees: every pixel is read, parts and outline.
    assert torch.equal(both.label_map, truth(photo))
    assert torch.equal(both.object_map, torch.cat([OWNER, torch.tensor([-1])])[both.label_map])
    assert model.calls == [([(18, 18)], [[0]], True)]
    assert both.scores[45, 55] == 0.75
    assert both.scores[0, 0] == first.scores[0, 0] == 0.5, "a pixel's score is of the look that decided it"


@pytest.mark.parametrize("size", [(128, 128), (100, 180), (301, 97)])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_crops_come_back_to_their_place(size, corner):
    """Every pixel of a crop that is no larger than the input is read, so a shift by one would show."""
    top, left = (place * (limit - 14) for place, limit in zip(corner, size, strict=True))
    photo = scene((0, top, left, 14, 14), (1, top + 4, left + 5, 3, 2), size=size)
    _, (both,) = see([photo], Coarse())
    assert torch.equal(both.label_map, truth(photo))


def test_a_large_object_is_not_looked_at_again():
    photo, model = scene(*LARGE), Coarse()
    (first,), (both,) = see([photo], model)
    assert both is first
    assert model.calls == []


def test_no_object_no_second_look():
    model = Coarse()
    (first,), (both,) = see([scene()], model)
    assert both is first
    assert model.calls == []


def test_a_look_leaves_other_objects_alone():
    # A small object in the middle of a large one, and the second look finds nothing at all.
    photo = scene(*LARGE, *SMALL)
    (first,), (both,) = see([photo], Coarse(lost=True))
    small = first.object_map == 0
    assert (both.object_map[small] == BACKGROUND).all()
    for before, after in zip(first, both, strict=True):
        assert torch.equal(before[~small], after[~small])


def test_known_objects_keep_their_pixels():
    """Without background, the parts alone are decided anew; the whole photo is looked at once to find the object."""
    photo, model = scene(*SMALL), Coarse()
    (first,), (both,) = see([photo], model, [[0]])
    assert model.calls == [([(128, 128)], [[0]], True), ([(18, 18)], [[0]], False)]
    assert torch.equal(both.object_map, first.object_map)
    assert (both.object_map == 0).all()
    inside = truth(photo) >= 0
    assert torch.equal(both.label_map[inside], truth(photo)[inside])


def test_a_known_object_that_is_not_found():
    model = Coarse(lost=True)
    (first,), (both,) = see([scene(*SMALL)], model, [[0]])
    assert both is first


def test_photos_together_are_as_alone():
    photos = [
        scene(*SMALL),
        scene(),
        scene(*LARGE),
        scene(*SMALL, (2, 90, 90, 10, 8), (4, 5, 100, 9, 9), size=(120, 140)),
        *(scene((0, 9 * i, 11 * i, 8, 7), (4, 100 - 9 * i, 11 * i, 6, 6)) for i in range(1, 9)),
    ]
    model = Coarse()
    _, together = see(photos, model)
    for photo, result in zip(photos, together, strict=True):
        _, (alone,) = see([photo], Coarse())
        for ours, theirs in zip(result, alone, strict=True):
            assert torch.equal(ours, theirs)
    numbers = [len(shapes) for shapes, _, _ in model.calls]
    assert max(numbers) <= max(shared.CROPS_AT_ONCE, len(photos))
    assert sum(numbers) > max(numbers), "in several batches"


# -- the segmenter --------------------------------------------------------------------------------------------

WORDS = Vocabulary.from_dict({"bus": ["door", "wheel"], "dog": ["ear", "head"], "cat": ["ear", "tail"]})


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    from partclipseg.shapes.renderer import render_scene

    return [np.asarray(render_scene("val", index, size=160 + 16 * index).image) for index in range(3)]


@pytest.fixture(params=[PartCLIPSegModel, CLIPSegBaseline])
def segmenter(request, config, tokenizer_directory) -> PartSegmenter:
    from partclipseg.models.registry import load_tokenizer

    model = request.param(request.param.config_class(**config.to_dict()))
    with torch.no_grad():
        # In random heads every fine pixel has weights of its own and regions are specks. Shared, they are patches.
        for layer in model.decoder.modules():
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight.copy_(5 * layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    return PartSegmenter(model, load_tokenizer(tokenizer_directory))


def test_off_by_default(segmenter, photos, monkeypatch):
    expected = [segmenter(photo, WORDS) for photo in photos]

    def never(*_: object) -> None:
        raise AssertionError("a second look was not asked for")

    monkeypatch.setattr(segmenter, "look_again", never)
    for result, before in zip(segmenter(photos, WORDS, batch_size=1), expected, strict=True):
        assert np.array_equal(result.label_map, before.label_map)
        assert np.array_equal(result.scores, before.scores)
    assert len(list(segmenter.segment_many(photos, WORDS))) == 3
    with pytest.raises(AssertionError, match="not asked for"):
        segmenter(photos, WORDS, zoom=True)


@pytest.mark.parametrize("objects", [None, ["dog", "bus"], ["bus", "cat"]])
def test_two_looks_of_a_model(segmenter, photos, objects, monkeypatch):
    crops: list[Crop] = []

    def watched(*arguments):
        found = find_crops(*arguments)
        crops.extend(found)
        return found

    monkeypatch.setattr(zoom, "find_crops", watched)
    results = segmenter(photos, WORDS, objects=objects, zoom=True)
    assert crops, "otherwise this shows nothing"
    again = segmenter(photos, WORDS, objects=objects, zoom=True)
    once = segmenter(photos, WORDS, objects=objects)
    owners = np.append(WORDS.class_to_object, BACKGROUND)
    for photo, result, repeated, plain in zip(photos, results, again, once, strict=True):
        assert np.array_equal(result.label_map, repeated.label_map)
        assert np.array_equal(result.scores, repeated.scores)
        assert np.array_equal(result.object_map, owners[result.label_map])
        assert ((result.scores >= 0) & (result.scores <= 1)).all()
        if objects is not None:
            assert np.array_equal(result.object_map, plain.object_map)
        alone = segmenter(photo, WORDS, objects=objects, zoom=True)
        # A batch adds up in another order: where two classes tie to 1e-6, a pixel may fall to the other one.
        assert np.mean(alone.label_map != result.label_map) < 5e-3
    assert any(not np.array_equal(r.label_map, p.label_map) for r, p in zip(results, once, strict=True))


def test_a_stream_looks_twice_too(segmenter, photos):
    results = [result for _, result in segmenter.segment_many(photos, WORDS, zoom=True)]
    for ours, theirs in zip(results, segmenter(photos, WORDS, zoom=True), strict=True):
        assert np.array_equal(ours.label_map, theirs.label_map)
