"""What a result says, and that every format says the same."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from partclipseg.errors import UsageError
from partclipseg.formats.coco import coco_document
from partclipseg.formats.drawing import LegendEntry, draw_overlay
from partclipseg.formats.palette import object_colour, part_colours
from partclipseg.formats.png import index_image
from partclipseg.inference.result import PartResult, Segment, SegmentKeyError
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_dict({"dog": ["head", "ear"], "bus": ["wheel"]})


def result(labels, vocabulary=WORDS, scores=None, photo=True, **options) -> PartResult:
    labels = np.asarray(labels)
    objects = np.append(vocabulary.class_to_object, -1)[labels]
    scores = np.full(labels.shape, 0.5) if scores is None else scores
    pixels = np.random.default_rng(0).integers(0, 255, (*labels.shape, 3), np.uint8) if photo else None
    return PartResult.from_maps(labels, objects, scores, vocabulary, pixels, **options)


@pytest.fixture
def small() -> PartResult:
    labels = [[-1, 0, 0, -1], [-1, 0, 1, -1], [2, -1, -1, 2]]
    scores = [[0.9, 0.5, 0.6, 0.9], [0.9, 0.7, 0.4, 0.9], [0.2, 0.9, 0.9, 0.3]]
    return result(labels, scores=np.array(scores), name="album/dog.jpg")


# -- segments -------------------------------------------------------------------------------------------------


def test_segments(small):
    expected = [
        Segment("dog", "head", 0, pytest.approx(0.6), 3, (1, 0, 2, 2)),
        Segment("dog", "ear", 1, pytest.approx(0.4), 1, (2, 1, 1, 1)),
        Segment("bus", "wheel", 2, pytest.approx(0.25), 2, (0, 2, 4, 1)),
    ]
    assert small.segments() == list(small) == expected
    assert [segment.name for segment in expected] == ["dog's head", "dog's ear", "bus's wheel"]


def test_objects_are_their_parts_together(small):
    bus, dog = small.segments("objects")
    assert bus == Segment("bus", None, 0, pytest.approx(0.25), 2, (0, 2, 4, 1))
    assert dog == Segment("dog", None, 1, pytest.approx((0.5 + 0.6 + 0.7 + 0.4) / 4), 4, (1, 0, 2, 2))
    assert dog.name == "dog"


def test_parts_below_a_score_become_background(small):
    kept = small.at_least(0.3)
    assert [segment.name for segment in kept.segments()] == ["dog's head", "dog's ear"]
    assert [segment.object for segment in kept.segments("objects")] == ["dog"]
    assert kept.label_map.dtype == kept.object_map.dtype == np.int32
    assert kept.scores.tolist() == pytest.approx([0.6, 0.4, 0])
    assert [segment.name for segment in small.segments()][2] == "bus's wheel"  # the result itself stays as it is
    assert small.at_least(0) is small
    assert small.at_least(1).segments() == []


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (0, []),
        (0.3, [("bus", 0, 0.2, 1, (0, 2, 1, 1))]),  # the first object of all
        (0.45, [("bus", 0, 0.25, 2, (0, 2, 4, 1)), ("dog", 1, 0.4, 1, (2, 1, 1, 1))]),
    ],
)
def test_pixels_of_objects_without_a_part(small, least, expected):
    scores = np.array([[0.9, 0.5, 0.6, 0.9], [0.9, 0.7, 0.4, 0.9], [0.2, 0.9, 0.9, 0.3]])
    found = result(small.label_map, scores=scores, min_part_probability=least)
    assert found.without_part() == [
        Segment(word, None, index, pytest.approx(score), area, box) for word, index, score, area, box in expected
    ]
    rest = found.to_coco()["annotations"][len(found) :]
    assert [some["category_id"] - len(WORDS) - 1 for some in rest] == [index for _, index, *_ in expected]


def test_masks(small):
    assert small.mask("dog's ear").sum() == 1
    assert np.array_equal(small.mask("Dog"), small.mask("dog's ear") | small.mask("dog's head"))
    assert np.array_equal(small.mask("Dog’s  EAR"), small.mask("dog's ear"))
    for name in ("cat", "dog's eer", ""):
        message = re.escape(f"{name!r} is neither an object-part nor an object of the vocabulary (dog's head, ")
        with pytest.raises(UsageError, match=message):
            small.mask(name)


def test_nothing_found():
    empty = result(np.full((4, 5), -1))
    assert empty.segments() == empty.segments("objects") == []
    assert empty.to_coco()["annotations"] == empty.to_labelme()["shapes"] == []
    assert "nothing found" in repr(empty)
    assert empty.overlay().width > 0


def test_a_result_keeps_no_hold_of_the_maps_it_is_made_from():
    """They may be views of a whole batch, or of memory that is pinned for copies from a GPU."""
    maps = np.zeros((2, 3), np.int32), np.zeros((2, 3), np.int32), np.ones((2, 3), np.float32)
    made = PartResult.from_maps(*maps, WORDS)
    for array in maps:
        array.fill(-1)
    assert (made.label_map == 0).all()
    assert (made.object_map == 0).all()


def test_maps_that_do_not_belong_together_are_refused():
    zeros = np.zeros((2, 3), dtype=np.int32)
    scores = np.zeros(3, dtype=np.float32)
    with pytest.raises(ValueError, match="same shape"):
        PartResult(zeros, zeros.T, scores, WORDS)
    with pytest.raises(ValueError, match="does not fit"):
        PartResult(zeros, zeros, scores, WORDS, np.zeros((3, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="one entry for each class"):
        PartResult(zeros, zeros, scores[:2], WORDS)


# -- a value --------------------------------------------------------------------------------------------------

NOTHING = np.full((3, 4), -1)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("dog's ear", "dog's ear"),
        (" Dog's EAR", "dog's ear"),
        ("dog", "dog"),
        ("bus", "bus"),
        (0, "dog's head"),
        (-1, "bus's wheel"),
        (np.int64(1), "dog's ear"),
        ("dog's tail", (KeyError, "\"dog's tail\" was not found in the photo; what was found: dog's head, dog's ear")),
        ("", (UsageError, "'' was not found in the photo")),
        ("cat", (SegmentKeyError, "'cat' was not found in the photo")),
        (3, (IndexError, "there is no segment 3: the photo has 3")),
        (-4, (IndexError, "there is no segment -4: the photo has 3")),
        (1.0, (TypeError, "a segment has a name or a number, not float")),
        (None, (TypeError, "a segment has a name or a number, not NoneType")),
        (slice(2), (TypeError, "a segment has a name or a number, not slice")),
    ],
)
def test_a_segment_by_name_or_number(small, key, expected):
    if isinstance(expected, str):
        segment = small[key]
        assert segment.name == expected
        assert segment in [*small, *small.segments("objects")]
        assert np.array_equal(segment.mask, small.mask(expected))
        assert segment.mask.dtype == bool
    else:
        kind, words = expected
        with pytest.raises(kind, match=re.escape(words)) as caught:
            small[key]
        assert str(caught.value).startswith(words), "no quotes around the sentence"


@pytest.mark.parametrize(
    ("labels", "key", "expected"),
    [
        ([[0, -1]], "dog's head", True),
        ([[0, -1]], "DOG'S HEAD", True),
        ([[0, -1]], "dog", True),
        ([[0, -1]], "dog's ear", False),
        ([[0, -1]], "bus", False),
        ([[0, -1]], "no word of the vocabulary", False),
        ([[0, -1]], Segment("dog", "head", 0, 0.5, 1, (0, 0, 1, 1)), True),
        ([[0, -1]], Segment("dog", "head", 0, 0.5, 2, (0, 0, 2, 1)), False),
        ([[0, -1]], 0, False),
        (NOTHING, "dog", False),
    ],
)
def test_whether_something_was_found(labels, key, expected):
    assert (key in result(labels)) == expected


@pytest.mark.parametrize(("labels", "count"), [(NOTHING, 0), ([[0]], 1), ([[0, 1], [2, -1]], 3)])
def test_length_and_truth(labels, count):
    made = result(labels)
    assert len(made) == len(list(made)) == count
    assert bool(made) == (count > 0)
    if not count:
        with pytest.raises(KeyError, match="what was found: nothing"):
            made["dog"]


def test_masks_make_up_the_label_map(small):
    again = np.full(small.size, -1)
    for segment in small:
        again[segment.mask] = segment.index
        assert segment.mask.sum() == segment.area
    assert np.array_equal(again, small.label_map)


def test_a_segment_without_a_map_says_so():
    with pytest.raises(ValueError, match="the segment dog's head was made without its pixels"):
        _ = Segment("dog", "head", 0, 0.5, 1, (0, 0, 1, 1)).mask


# -- formats --------------------------------------------------------------------------------------------------

label_maps = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-1, 2))


@settings(max_examples=50, deadline=None)
@given(label_maps)
def test_coco_masks_decode_to_the_label_map(labels):
    document = json.loads(json.dumps(result(labels).to_coco()))
    again = np.full(labels.shape, -1)
    for annotation in document["annotations"]:
        mask = mask_utils.decode(annotation["segmentation"]).astype(bool)
        assert mask.sum() == annotation["area"] == mask_utils.area(annotation["segmentation"])
        assert annotation["bbox"] == mask_utils.toBbox(annotation["segmentation"]).tolist()
        again[mask] = annotation["category_id"] - 1
    assert np.array_equal(again, labels)


def test_pycocotools_opens_the_merged_file(small, tmp_path, capsys):
    records = [small.labelled.record, result([[2, 2]], name="bus.jpg").labelled.record]
    (tmp_path / "all.json").write_text(json.dumps(coco_document(enumerate(records, start=1), WORDS)))
    coco = COCO(tmp_path / "all.json")
    coco.info()
    assert "description: Object-parts" in capsys.readouterr().out
    assert coco.dataset["licenses"] == small.to_coco()["licenses"] == []
    assert coco.getImgIds() == [1, 2]
    assert coco.getAnnIds() == [1, 2, 3, 4]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(WORDS.names)
    assert coco.loadCats([1])[0]["supercategory"] == "dog"
    assert coco.annToMask(coco.loadAnns([4])[0]).tolist() == [[1, 1]]
    assert coco.loadImgs([1])[0] == {"id": 1, "file_name": "album/dog.jpg", "width": 4, "height": 3}


@settings(max_examples=30, deadline=None)
@given(label_maps)
def test_index_image_holds_the_labels(labels):
    buffer = io.BytesIO()
    result(labels).label_image().save(buffer, format="PNG")
    image = Image.open(buffer)
    assert image.mode == "P"
    values = np.asarray(image).astype(int)
    assert np.array_equal(np.where(values == 255, -1, values), labels)
    shown = np.asarray(image.convert("RGB"))
    expected = np.append(part_colours(WORDS), [[0, 0, 0]], axis=0)[labels]
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize(("classes", "mode", "background"), [(255, "P", 255), (256, "I;16", 65535)])
def test_index_image_widens_with_the_vocabulary(classes, mode, background):
    labels = np.array([[-1, 0, classes - 1]])
    buffer = io.BytesIO()
    index_image(labels, np.zeros((classes, 3), np.uint8)).save(buffer, format="PNG")
    image = Image.open(buffer)
    assert image.mode == mode
    assert np.asarray(image).tolist() == [[background, 0, classes - 1]]


def test_labelme_outlines_cover_the_masks():
    labels = np.full((60, 80), -1)
    labels[10:40, 10:50] = 0
    labels[20:30, 20:30] = 1  # an island, hence a hole in class 0
    labels[45:55, 60:75] = 2
    document = result(labels, name="album/dog.jpg").to_labelme()
    assert document["imagePath"] == "dog.jpg"
    assert (document["imageHeight"], document["imageWidth"]) == (60, 80)
    again = np.full(labels.shape, -1)
    for shape in document["shapes"]:
        index = WORDS.names.index(shape["label"])
        assert shape["group_id"] == index + 1
        points = [coordinate for point in shape["points"] for coordinate in point]
        again[mask_utils.decode(mask_utils.frPyObjects([points], 60, 80))[:, :, 0] > 0] = index
    # Vertices lie on pixel corners, so rectangles come back exactly.
    assert np.array_equal(again, labels)


def test_json(small):
    document = json.loads(json.dumps(small.to_dict()))
    assert (document["photo"], document["width"], document["height"]) == ("album/dog.jpg", 4, 3)
    assert document["segments"][0] == {
        "name": "dog's head", "object": "dog", "part": "head", "index": 0, "score": 0.6, "area": 3,
        "box": [1, 0, 2, 2],
    }  # fmt: skip
    assert [entry["name"] for entry in document["objects"]] == ["bus", "dog"]
    assert document["vocabulary"] == list(WORDS.names)


def test_save_writes_what_is_asked_for(small, tmp_path):
    written = small.save(tmp_path / "new", formats=("overlay", "png", "json", "coco", "labelme"))
    names = ["dog.overlay.png", "dog.labels.png", "dog.parts.json", "dog.coco.json", "dog.labelme.json"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)  # no temporary file is left
    assert np.array_equal(np.asarray(Image.open(written[1])), np.where(small.label_map < 0, 255, small.label_map))
    assert [path.name for path in small.save(tmp_path, "other.name", ["json"])] == ["other.name.parts.json"]


def test_save_refuses_unknown_formats_before_writing(small, tmp_path):
    for formats, words in ((["json", "tiff"], "unknown format 'tiff'"), ([], "no format")):
        with pytest.raises(UsageError, match=words):
            small.save(tmp_path / "new", formats=formats)
    assert not (tmp_path / "new").exists()


def test_labelme_finds_the_photo_from_its_own_folder(tmp_path):
    photo = tmp_path / "album" / "dog.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"x")
    (path,) = result([[0]], name=str(photo)).save(tmp_path / "out" / "deep", formats=["labelme"])
    assert (path.parent / json.loads(path.read_text())["imagePath"]).resolve() == photo.resolve()


# -- overlay --------------------------------------------------------------------------------------------------


def many(count: int) -> Vocabulary:
    return Vocabulary.from_dict({f"thing{i // 4}": [f"part{j}" for j in range(i, i + 4)] for i in range(0, count, 4)})


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (64, 64), (480, 640), (1700, 1300)])
@pytest.mark.parametrize("classes", [1, 40])
def test_the_legend_never_covers_the_photo(shape, classes):
    vocabulary = many(40)
    labels = np.arange(shape[0] * shape[1]).reshape(shape) % classes
    with_legend = result(labels, vocabulary).overlay()
    without = result(labels, vocabulary).overlay(legend=False)
    assert with_legend.width * with_legend.height > without.width * without.height
    left = (with_legend.width - without.width) // 2 if with_legend.height > without.height else 0
    for x in {0, left}:  # beside: at the left edge; below: centred
        cut = with_legend.crop((x, 0, x + without.width, without.height))
        if np.array_equal(np.asarray(cut), np.asarray(without)):
            break
    else:
        pytest.fail("the photo is not whole in the overlay")


def test_the_drawn_photo_has_a_readable_size():
    assert max(result(np.zeros((30, 60), int)).overlay(legend=False).size) == 640
    assert max(result(np.zeros((3000, 60), int)).overlay(legend=False).size) == 1600
    assert result(np.zeros((700, 900), int)).overlay(legend=False).size == (900, 700)
    assert result(np.zeros((700, 900), int)).overlay(legend=False, long_side=90).size == (90, 70)


def test_segments_take_their_colour_and_the_background_does_not():
    labels = np.full((700, 700), -1)
    labels[100:600, 100:600] = 0
    painted = np.asarray(result(labels, photo=False).overlay(legend=False, opacity=1.0)).astype(int)
    assert np.array_equal(painted[350, 350], part_colours(WORDS)[0])
    assert painted[20, 20].min() > 200  # grey paper, paler
    assert painted[100, 350].min() > 200  # the contour


def test_objects_have_their_own_view(small):
    assert small.label_image("objects").getpixel((1, 0)) == 1  # dog
    assert small.label_image("parts").getpixel((1, 0)) == 0  # its head
    painted = small.overlay("objects", opacity=1.0, legend=False)
    assert painted.getpixel((240, 80)) == object_colour("dog")


@pytest.mark.parametrize("word", ["", "x" * 500, "Löwe", "хвост", "尾巴", "🐕", "a\nb", "ذيل"])
def test_any_word_can_stand_in_a_legend(word):
    sheet = draw_overlay(
        None, np.zeros((50, 50), int), np.array([[255, 0, 0]]), [LegendEntry(word, (255, 0, 0), "0.50")]
    )
    assert sheet.width <= 3 * 640


def test_long_legends_end_in_a_count(monkeypatch):
    from partclipseg.formats import overlay as module

    monkeypatch.setattr(module, "LEGEND_LIMIT", 2)
    labels = np.array([[0, 0, 0, 1, 1, 2]])
    entries = module.legend_entries(result(labels).segments(), part_colours(WORDS), "parts")
    assert [entry.text for entry in entries] == ["dog", "head", "ear", "and 1 smaller"]


def test_notebooks_get_a_png(small):
    assert Image.open(io.BytesIO(small._repr_png_())).format == "PNG"
