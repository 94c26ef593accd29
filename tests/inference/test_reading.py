"""Photos on their way to the model: resized as from an array, kept or not, or decoded at a reduced size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from partclipseg.data.photo import MAX_PIXELS, read_photo, read_picture
from partclipseg.data.resize import resize_photo
from partclipseg.errors import UsageError
from partclipseg.inference.photos import LoadedPhoto
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.interface import PartModel
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.shapes.renderer import render_scene

WORDS = {"dog": ["ear", "head"], "bus": ["wheel", "door"]}
SHAPE = (32, 32)


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """A picture of 339x262: its sides are no multiples of 2."""
    return Image.fromarray(render_scene("test", 3, 339).image).crop((0, 0, 339, 262))


def files(scene: Image.Image) -> dict[str, bytes]:
    alpha = scene.convert("RGBA")
    alpha.putalpha(120)
    grey = Image.fromarray(np.asarray(scene.convert("L")).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "JPEG": encoded(scene),
        "turned": encoded(scene, exif=turned),
        "grey JPEG": encoded(scene.convert("L")),
        "CMYK": encoded(scene.convert("CMYK")),
        "transparent": encoded(alpha, "PNG"),
        "palette": encoded(scene.quantize(32), "PNG"),
        "16 bits": encoded(grey, "PNG"),
        "of the model's size": encoded(scene.resize(SHAPE), "PNG"),
    }


KINDS = tuple(files(Image.new("RGB", (339, 262))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_is_resized_as_its_array_is(scene, kind):
    content = files(scene)[kind]
    photo = read_photo(content)
    loaded = LoadedPhoto.read(content, SHAPE, MAX_PIXELS)
    np.testing.assert_array_equal(loaded.resized, resize_photo(photo, SHAPE))
    np.testing.assert_array_equal(loaded.pixels, photo)
    assert loaded.size == photo.shape[:2]
    without = LoadedPhoto.read(content, SHAPE, MAX_PIXELS, keep=False)
    np.testing.assert_array_equal(without.resized, loaded.resized)
    assert (without.pixels, without.size) == (None, loaded.size)


@pytest.mark.parametrize("kind", KINDS)
def test_fast_reading_sees_nearly_the_same(scene, kind):
    content = files(scene)[kind]
    exact = LoadedPhoto.read(content, SHAPE, MAX_PIXELS)
    fast = LoadedPhoto.read(content, SHAPE, MAX_PIXELS, keep=False, fast=True)
    assert (fast.pixels, fast.size) == (None, exact.size)
    difference = np.abs(fast.resized.astype(int) - exact.resized)
    # A JPEG of eight times the model's sides is decoded at half its size; of others only the filter is another.
    reduced = kind in {"JPEG", "turned", "grey JPEG", "CMYK"}
    assert difference.mean() < (2.0 if reduced else 0.02)
    assert difference.max() <= (60 if reduced else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_decoded_at_a_reduced_size_is_upright_and_knows_its_own(scene, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(scene, exif=exif)
    whole, reduced = read_picture(content), read_picture(content, least_side=128)
    assert whole.size == reduced.size == ((339, 262) if orientation >= 5 else (262, 339))
    assert sorted(reduced.image.size) == [131, 170]
    again = np.asarray(reduced.image.resize(whole.image.size), int)
    assert np.abs(again - np.asarray(whole.image)).mean() < 6


@pytest.mark.parametrize(
    ("least_side", "size"), [(263, (339, 262)), (132, (339, 262)), (131, (170, 131)), (60, (85, 66)), (1, (43, 33))]
)
def test_no_side_gets_less_than_asked_for(scene, least_side, size):
    assert read_picture(encoded(scene), least_side=least_side).image.size == size


@pytest.fixture(scope="module")
def segmenter(model_directory) -> PartSegmenter:
    return PartSegmenter.from_pretrained(model_directory)


@pytest.mark.parametrize("options", [{}, {"zoom": True}, {"instances": "components"}], ids=["plain", "zoom", "objects"])
def test_results_without_their_photo_are_the_same(segmenter, scene, options):
    content = encoded(scene)
    with_photo, without = (segmenter(content, WORDS, keep_photo=keep, **options) for keep in (True, False))
    assert with_photo.photo is not None
    assert without.photo is None
    np.testing.assert_array_equal(with_photo.label_map, without.label_map)
    assert without.files(["png", "json"]) == with_photo.files(["png", "json"])


def test_fast_results_have_the_photos_size_and_no_photo(segmenter, scene):
    exact, fast = (segmenter(encoded(scene), WORDS, fast_reading=fast) for fast in (False, True))
    assert exact.photo is not None
    assert fast.photo is None
    assert fast.size == exact.size == (262, 339)
    array = segmenter(np.asarray(scene), WORDS, fast_reading=True)
    assert array.size == (262, 339)


def test_fast_reading_is_refused_for_models_that_resize_themselves(config, tokenizer_directory):
    class AtItsOwnSize(PartCLIPSegModel):
        ahead_shape = None

    model: PartModel = AtItsOwnSize(PartCLIPSegModel.config_class(**config.to_dict()))
    segmenter = PartSegmenter(model, AutoTokenizer.from_pretrained(tokenizer_directory))
    photo = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="since this model looks at photos at their own size: leave it out"):
        segmenter(photo, WORDS, fast_reading=True)
    assert segmenter(photo, WORDS, keep_photo=False).photo is None
