"""Average precision: the public evaluators' figures, and examples by hand."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partclipseg import Vocabulary
from partclipseg.data.coco_masks import encode_mask
from partclipseg.data.regions import FoundRegion, PhotoRegions, TrueRegion, regions_of_maps
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.average_precision import ApScores, AveragePrecision, categories_of
from partclipseg.evaluation.precision import ApCategory

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "reference" / "golden" / "instances"
REAL = SHARED / "data" / "instances"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden annotations are not beside the repository")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def counted(
    file: dict[str, Any],
    detections: list[dict[str, Any]],
    crowds: Sequence[int] = (),
    unseen: Sequence[str] = (),
    **options: Any,
) -> AveragePrecision:
    """The categories, truths and detections of files in PACO's form."""
    place = {category["id"]: index for index, category in enumerate(file["categories"])}
    names = [category["name"] for category in file["categories"]]
    categories = [
        ApCategory(name, names.index(name.split(":")[0]), name.split(":")[1]) if ":" in name else ApCategory(name)
        for name in names
    ]
    seen = [index for index, name in enumerate(names) if name not in unseen]
    counts = AveragePrecision(categories, seen, **options)
    form = "segmentation" if counts.kind == "segm" else "bbox"
    for image in file["images"]:
        truth = PhotoRegions(
            tuple(
                TrueRegion(place[a["category_id"]], a[form], a["area"], a["obj_ann_id"], a["id"] in crowds)
                for a in file["annotations"]
                if a["image_id"] == image["id"]
            ),
            frozenset(place[number] for number in image["neg_category_ids"]),
            frozenset(place[number] for number in image["not_exhaustive_category_ids"]),
        )
        found = [
            FoundRegion(place[d["category_id"]], d[form], d["score"])
            for d in detections
            if d["image_id"] == image["id"]
        ]
        counts.update(truth, found, f"{image['id']:06d}")
    return counts


def public_names(scores: ApScores) -> dict[str, float]:
    """Our scores under the names of the public evaluators, which write -100 where there is no truth."""
    named = {
        "AP": scores.all.ap, "AP50": scores.all.ap50, "AP75": scores.all.ap75,
        "APs": scores.all.small, "APm": scores.all.medium, "APl": scores.all.large,
        "obj-AP": scores.objects.ap, "obj-part-AP": scores.object_parts.ap,
    }
    return {name: -100.0 if math.isnan(value) else value for name, value in named.items()}


@needs_golden
@pytest.mark.parametrize("rule", ["lvis", "paco"])
@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("most", [300, 6])
def test_every_figure_of_the_public_evaluators_is_met(rule: Any, kind: Any, most: int) -> None:
    folder = GOLDEN / "paco" / "dev"
    file = read(folder / "paco_dev.json")
    counts = counted(file, read(folder / "detections.json"), rule=rule, kind=kind, most=most)
    scores = counts.compute()
    expected = read(folder / "expected.json")[f"{rule}/{kind}/max{most}"]
    ours = public_names(scores)
    assert ours == pytest.approx({name: expected[name] for name in ours}, abs=1e-6)
    numbers = [str(category["id"]) for category in file["categories"]]
    for name, figure in (("per-category-AP", "ap"), ("per-category-AP50", "ap50")):
        by_number = {number: getattr(item, figure) for number, item in zip(numbers, scores.categories, strict=True)}
        assert by_number == pytest.approx(expected[name], abs=1e-6)


@needs_golden
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_cocos_figures_are_met_for_seen_and_unseen_categories(kind: Any) -> None:
    folder = GOLDEN / "paco" / "dev"
    expected = read(GOLDEN / "coco" / "dev" / "expected.json")
    crowds, unseen = expected["crowd_annotation_ids"], expected["unseen"]
    file = read(folder / "paco_dev.json")
    scores = counted(file, read(folder / "detections.json"), crowds, unseen, kind=kind).compute()
    found = scores.coco_all
    ours = {"AP": found.ap, "AP50": found.ap50, "AP-seen": found.seen, "AP-unseen": found.unseen}
    assert ours == pytest.approx({name: expected[kind][name] for name in ours}, abs=1e-6)
    by_name = {item.name: item.coco_ap for item in scores.categories}
    assert by_name == pytest.approx(expected[kind]["per-category-AP"], abs=1e-6)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos' annotations are not beside the repository")
def test_real_photos_with_several_objects_of_one_kind() -> None:
    scores = counted(read(REAL / "instances.json"), read(REAL / "detections.json"), rule="lvis").compute()
    expected = read(REAL / "expected.json")
    names = {"AP": scores.all.ap, "AP50": scores.all.ap50, "AP75": scores.all.ap75, "APs": scores.all.small,
             "APm": scores.all.medium, "APl": scores.all.large}
    assert names == pytest.approx({name: expected["lvis"][name] for name in names}, abs=1e-6)
    assert scores.coco_all.ap == pytest.approx(expected["coco"]["AP"], abs=1e-6)
    assert scores.coco_all.ap50 == pytest.approx(expected["coco"]["AP50"], abs=1e-6)


# -- by hand: photos of one row of 100 pixels -- ----------------------------------------------------------------------

DOG, EAR = 1, 0
CATEGORIES = [ApCategory("dog's ear", DOG, "ear"), ApCategory("dog")]


def run(start: int, end: int) -> dict[str, Any]:
    mask = np.zeros((1, 100), dtype=bool)
    mask[0, start:end] = True
    return encode_mask(mask)


def true(label: int, start: int, end: int, instance: int = 0, crowd: bool = False) -> TrueRegion:
    return TrueRegion(label, run(start, end), float(end - start), instance, crowd)


def score(photos: Sequence[tuple[PhotoRegions, Sequence[FoundRegion]]], **options: Any) -> ApScores:
    counts = AveragePrecision(CATEGORIES, **options)
    for number, (truth, found) in enumerate(photos):
        counts.update(truth, found, str(number))
    return counts.compute()


TWO_DOGS = PhotoRegions((true(DOG, 0, 20, 0), true(DOG, 50, 70, 1)))


@pytest.mark.parametrize(
    ("found", "ap50"),
    [
        ([(0, 20, 0.9), (50, 70, 0.8)], 100.0),
        # One of two is found: precision 1 up to recall 0.5, which are 51 of 101 recalls.
        ([(0, 20, 0.9)], 100 * 51 / 101),
        # A false one in front: precision 1/2 and then 2/3, which is the greater at every recall.
        ([(80, 90, 0.95), (0, 20, 0.9), (50, 70, 0.8)], 100 * 2 / 3),
        # The same dog twice: the second is false and comes last, so it costs nothing.
        ([(0, 20, 0.9), (50, 70, 0.8), (1, 20, 0.7)], 100.0),
        # Less than half of the union.
        ([(11, 31, 0.9)], 0.0),
        ([], 0.0),
    ],
)
def test_ap50_by_hand(found: list[tuple[int, int, float]], ap50: float) -> None:
    regions = [FoundRegion(DOG, run(start, end), value) for start, end, value in found]
    scores = score([(TWO_DOGS, regions)])
    assert scores.objects.ap50 == pytest.approx(ap50)
    assert scores.coco_objects.ap50 == pytest.approx(ap50)
    assert math.isnan(scores.object_parts.ap50)  # no true ear, so no figure


def test_thresholds_are_averaged() -> None:
    """A dog of 20 pixels found as 15 of them: right up to the threshold 0.75, which are six of ten."""
    scores = score([(PhotoRegions((true(DOG, 0, 20),)), [FoundRegion(DOG, run(0, 15), 1.0)])])
    assert (scores.objects.ap, scores.objects.ap75) == (pytest.approx(60.0), pytest.approx(100.0))


EAR_FOUND = [FoundRegion(EAR, run(0, 20), 0.9), FoundRegion(EAR, run(40, 60), 0.8), FoundRegion(EAR, run(90, 95), 0.95)]
WITH_EARS = PhotoRegions((true(EAR, 0, 20), true(EAR, 40, 60, 1)))


@pytest.mark.parametrize(
    ("second", "found", "ap50"),
    [
        # In the second photo nobody looked for ears: what is found there does not count, unless the list says so.
        (PhotoRegions((), negative=frozenset()), [FoundRegion(EAR, run(0, 9), 0.99)], 100.0),
        (PhotoRegions((), negative=frozenset({EAR})), [FoundRegion(EAR, run(0, 9), 0.99)], 100 * 2 / 3),
        (PhotoRegions((), negative=None), [FoundRegion(EAR, run(0, 9), 0.99)], 100 * 2 / 3),
        # There may be more ears than are annotated, and dogs too: no error.
        (PhotoRegions((), frozenset({EAR}), frozenset({EAR, DOG})), [FoundRegion(EAR, run(0, 9), 0.99)], 100.0),
        # A crowd takes any number of detections, and those that lie in it.
        (PhotoRegions((true(EAR, 0, 9, -1, crowd=True),)), [FoundRegion(EAR, run(0, 9), 0.99)], 100.0),
        (PhotoRegions((true(EAR, 0, 9, -1, crowd=True),)), [FoundRegion(EAR, run(0, 9), 0.99)] * 3, 100.0),
        (PhotoRegions((true(EAR, 0, 90, -1, crowd=True),)), [FoundRegion(EAR, run(7, 9), 0.99)], 100.0),
    ],
)
def test_what_nobody_looked_for_does_not_count(
    second: PhotoRegions, found: list[FoundRegion], ap50: float
) -> None:
    for rule in ("paco", "lvis"):
        scores = score([(WITH_EARS, EAR_FOUND[:2]), (second, found)], rule=rule)
        assert scores.object_parts.ap50 == pytest.approx(ap50)


@pytest.mark.parametrize(
    ("part", "not_exhaustive", "paco"),
    [
        ((60, 70), {EAR}, 50.0),  # off the dog: an error, since all dogs are annotated
        ((60, 70), {EAR, DOG}, 100.0),  # a dog may be there that is not annotated
        ((35, 45), {EAR}, 100.0),  # five of the dog's 40 pixels: 5 / 35 is below one half, excused
        ((5, 40), {EAR}, 50.0),  # most of the dog: 35 / 5 is above it
    ],
)
def test_pacos_rule_for_parts(part: tuple[int, int], not_exhaustive: set[int], paco: float) -> None:
    truth = PhotoRegions((true(DOG, 0, 40), true(EAR, 0, 5)), frozenset(), frozenset(not_exhaustive))
    found = [FoundRegion(EAR, run(*part), 0.9), FoundRegion(EAR, run(0, 5), 0.8)]
    assert score([(truth, found)], rule="paco").object_parts.ap50 == pytest.approx(paco)
    assert score([(truth, found)], rule="lvis").object_parts.ap50 == pytest.approx(100.0)


def test_areas_have_figures_of_their_own() -> None:
    """A truth of 20 pixels is small; a wrong detection of 2,000 is not counted among the small ones."""
    wide = np.zeros((50, 100), dtype=bool)
    narrow = wide.copy()
    wide[10:], narrow[0, :20] = True, True
    truth = PhotoRegions((TrueRegion(DOG, encode_mask(narrow), 20.0, 0),))
    found = [FoundRegion(DOG, encode_mask(wide), 0.9), FoundRegion(DOG, encode_mask(narrow), 0.8)]
    scores = score([(truth, found)])
    assert (scores.objects.ap, scores.objects.small) == (pytest.approx(50.0), pytest.approx(100.0))
    assert math.isnan(scores.objects.medium)
    assert scores.to_dict()["objects"]["medium"] is None


def test_part_words_are_averaged_before_the_mean() -> None:
    vocabulary = Vocabulary.from_text("dog: ear, leg; cat: ear")
    categories = categories_of(vocabulary)
    assert [item.name for item in categories] == ["dog's ear", "dog's leg", "cat's ear", "cat", "dog"]
    assert [item.object for item in categories] == [4, 4, 3, None, None]
    counts = AveragePrecision(categories, seen=[0])
    truth = PhotoRegions((true(0, 0, 10), true(1, 20, 30), true(2, 40, 50, 1)))
    counts.update(truth, [FoundRegion(0, run(0, 10), 1.0)], "photo")
    scores = counts.compute()
    assert scores.object_parts.ap == pytest.approx((50 + 0) / 2)  # ears 50, legs 0
    assert scores.coco_object_parts.ap == pytest.approx(100 / 3)
    assert (scores.coco_object_parts.seen, scores.coco_object_parts.unseen) == (pytest.approx(100), pytest.approx(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "coco"}, "unknown rule 'coco': choose one of paco, lvis"),
        ({"kind": "mask"}, "unknown kind 'mask': choose segm or bbox"),
        ({"categories": []}, "at least one category"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AveragePrecision(**{"categories": CATEGORIES, **options})


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_outside_the_categories_are_refused(label: int) -> None:
    counts = AveragePrecision(CATEGORIES)
    with pytest.raises(PartCLIPSegError, match=f"photo: the label {label} is none of the 2 categories"):
        counts.update(TWO_DOGS, [FoundRegion(label, run(0, 2), 1.0)], "photo")
    assert len(counts) == 0


def test_boxes_are_no_masks() -> None:
    with pytest.raises(PartCLIPSegError, match="choose kind='bbox'"):
        score([(TWO_DOGS, [FoundRegion(DOG, (0.0, 0.0, 20.0, 1.0), 1.0)])])
    assert score([(TWO_DOGS, [FoundRegion(DOG, (0.0, 0.0, 20.0, 1.0), 1.0)])], kind="bbox").objects.ap50 > 50


def test_a_state_is_saved_and_merged_once() -> None:
    first, second = AveragePrecision(CATEGORIES), AveragePrecision(CATEGORIES)
    found = [FoundRegion(DOG, run(0, 20), 0.9)]
    first.update(TWO_DOGS, found, "a")
    second.update(WITH_EARS, EAR_FOUND, "b")
    second.update(TWO_DOGS, found, "a")
    content = io.BytesIO()
    torch.save(second.state_dict(), content)
    content.seek(0)
    first.merge_state_dict(torch.load(content, weights_only=True))
    assert len(first) == 2
    assert first.compute().to_dict() == second.compute().to_dict()
    assert first.photos()["a"].found == tuple(found)
    second.update(TWO_DOGS, [], "c")
    first.update(TWO_DOGS, found, "c")
    with pytest.raises(PartCLIPSegError, match="'c' was scored twice with different results"):
        first.merge_state_dict(second.state_dict())
    with pytest.raises(PartCLIPSegError, match="other options"):
        first.merge_state_dict(AveragePrecision(CATEGORIES, rule="lvis").state_dict())


# -- regions of maps -- -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_regions_of_maps_cover_what_is_labelled_and_find_themselves(seed: int) -> None:
    chance = np.random.default_rng(seed)
    vocabulary = Vocabulary.from_text("dog: ear, leg; cat: ear")  # objects: cat, dog
    instances = chance.integers(-1, 3, (4, 4)).repeat(4, 0).repeat(4, 1).astype(np.int32)
    objects = np.array([0, 1, 1, 0], np.int32)[instances + 1]
    parts = np.where(objects == 1, chance.integers(-1, 2, (16, 16)), np.where(chance.random((16, 16)) < 0.5, 2, -1))
    truth = regions_of_maps(parts.astype(np.int32), objects, instances, len(vocabulary))
    area = sum(region.area for region in truth.regions if region.label >= len(vocabulary))
    assert area == objects.size
    assert sum(region.area for region in truth.regions if region.label < len(vocabulary)) == (parts >= 0).sum()
    assert {region.crowd for region in truth.regions if region.instance < 0} <= {True}
    found = [FoundRegion(region.label, region.region, 1.0) for region in truth.regions if not region.crowd]
    counts = AveragePrecision(categories_of(vocabulary))
    counts.update(truth, found, "photo")
    for item in counts.compute().categories:
        assert (item.ap == pytest.approx(100)) if item.truths else math.isnan(item.ap)


def test_objects_outside_the_vocabulary_have_no_region() -> None:
    objects = np.array([[-2, -2, 0, -1]], np.int32)
    instances = np.array([[0, 0, 1, -1]], np.int32)
    truth = regions_of_maps(np.full((1, 4), -1, np.int32), objects, instances, 3)
    assert [(region.label, region.instance, region.area) for region in truth.regions] == [(3, 1, 1.0)]
