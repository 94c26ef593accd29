"""Pruned decoding against full decoding, at every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.tester import assert_same_maps, random_vocabulary, smoothed
from torch import Tensor

from partclipseg.maps.label_maps import Contest, LabelMaps, oracle_obj, pred_all
from partclipseg.models import clipseg_rows
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_decoder import ConditionDecoder
from partclipseg.models.clipseg_rows import DecodedPhotos, named_rows
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.decoder import PartDecoder
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

Model = PartCLIPSegModel | CLIPSegBaseline


@pytest.fixture(scope="module")
def models(model_directory) -> dict[str, Model]:
    config = PartCLIPSegConfig.from_pretrained(model_directory).to_dict()
    torch.manual_seed(0)
    made: dict[str, Model] = {}
    for name, kind, changes in (
        ("intended", PartCLIPSegModel, {}),
        ("reference lookup", PartCLIPSegModel, {"reference_object_lookup": True}),
        ("late condition", PartCLIPSegModel, {"conditional_layer": 1, "use_complex_transposed_convolution": False}),
        ("baseline", CLIPSegBaseline, {}),
    ):
        made[name] = smoothed(kind(kind.config_class(**{**config, **changes}))).eval()
    return made


def full_maps(
    model: Any,
    pixels: Tensor,
    words: Tensor,
    vocabulary: Vocabulary,
    sizes: Any,
    present: Any = None,
    with_background: bool = False,
) -> tuple[list[LabelMaps], Any]:
    with torch.inference_mode():
        output = model({"pixel_values": pixels}, Words.of(vocabulary, words))
        if present is None or with_background:
            if present is not None:
                forbid_others(output, vocabulary, present)
            return pred_all(output, sizes, vocabulary.class_to_object), output
        return oracle_obj(output, sizes, vocabulary.class_to_object, present), output


def pruned_maps(
    model: Any, pixels: Tensor, words: Tensor, vocabulary: Vocabulary, sizes: Any, *options: Any, **named: Any
) -> list[LabelMaps]:
    return model.label_maps({"pixel_values": pixels}, Words.of(vocabulary, words), sizes, *options, **named)


NEVER = -1e6
"""A logit that never wins; minus infinity times an interpolation weight of 0 would be no number."""


def forbid_others(output: Any, vocabulary: Vocabulary, present: Sequence[Sequence[int]]) -> None:
    """Take away all chances of the objects that each photo does not name, in the model's own output."""
    for index, named in enumerate(present):
        others = [o for o in range(len(vocabulary.objects)) if o not in named]
        if output.object_logits is not None:
            output.object_logits[index, others] = NEVER
        classes = np.flatnonzero(np.isin(vocabulary.class_to_object, others))
        output.object_part_logits[index, classes] = NEVER


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["intended", "reference lookup", "late condition", "baseline"]),
    seed=st.integers(0, 10_000),
    counts=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4),
    protocol=st.sampled_from(["pred_all", "oracle_obj", "pred_all among named objects"]),
    widest=st.sampled_from([1, 5000, 1 << 20]),
)
def test_pruned_equals_full(models, name, seed, counts, sizes, protocol, widest):
    generator, model = np.random.default_rng(seed), models[name]
    torch.manual_seed(seed)
    vocabulary = random_vocabulary(generator, *counts)
    pixels = torch.randn(len(sizes), 3, *generator.choice([16, 32, 48], 2))
    words = 3 * torch.randn(len(model.prompts(vocabulary)), model.config.projection_dim)
    present, with_background = None, protocol == "pred_all among named objects"
    if protocol != "pred_all":
        number = len(vocabulary.objects)
        present = [np.flatnonzero(generator.random(number) < 0.5).tolist() for _ in sizes]  # none at all among them
    expected, output = full_maps(model, pixels, words, vocabulary, sizes, present, with_background)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(clipseg_rows.WIDEST, "cpu", widest)  # one row at a time, some, all
        actual = pruned_maps(model, pixels, words, vocabulary, sizes, present, with_background)
    assert_same_maps(actual, expected, output, sizes)


class Overwriting:
    """Stands in for `Graphs` on a CPU: what a call has returned is spoilt by the next one."""

    def __init__(self):
        self.lock, self.keys, self.last = nullcontext(), [], ()

    def __call__(self, function, key, *inputs):
        self.keys.append(key)
        inputs = [tensor.clone() for tensor in inputs]
        for tensor in self.last:
            tensor.fill_(torch.nan)
        self.last = [tensor.clone() for tensor in function(*inputs)]
        return self.last


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=3),
    protocol=st.sampled_from(["pred_all", "oracle_obj", "pred_all among named objects"]),
    captured=st.sampled_from([0, 3, 12, 512]),
)
def test_what_is_captured_equals_full(models, seed, sizes, protocol, captured):
    """Padded lists, and results that do not last: nothing, the photos, some or all is captured."""
    generator, model, graphs = np.random.default_rng(seed), models["intended"], Overwriting()
    torch.manual_seed(seed)
    vocabulary = random_vocabulary(generator, 5, 5)
    pixels, words = torch.randn(len(sizes), 3, 32, 32), 3 * torch.randn(len(model.prompts(vocabulary)), 24)
    present, with_background = None, protocol == "pred_all among named objects"
    if protocol != "pred_all":
        present = [np.flatnonzero(generator.random(5) < 0.5).tolist() for _ in sizes]
    expected, output = full_maps(model, pixels, words, vocabulary, sizes, present, with_background)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clipseg_rows, "CAPTURED_ROWS", captured)
        patch.setattr(PartCLIPSegModel, "graphs", lambda self: graphs)
        actual = pruned_maps(model, pixels, words, vocabulary, sizes, present, with_background)
    assert_same_maps(actual, expected, output, sizes)
    assert bool(graphs.keys) == (captured > 0)


def test_many_classes_win_in_these_tests(models):
    """Otherwise the property above would compare background with background."""
    model, vocabulary = models["intended"], random_vocabulary(np.random.default_rng(0), 6, 6)
    words = 3 * torch.randn(len(model.prompts(vocabulary)), model.config.projection_dim)
    maps = pruned_maps(model, torch.randn(4, 3, 48, 48), words, vocabulary, [(50, 60)] * 4)
    winners = [set(m.object_map.unique().tolist()) for m in maps]
    assert len(set.union(*winners)) >= 3
    assert len({frozenset(w) for w in winners}) > 1, "the photos have other winners"
    assert len(set().union(*(m.label_map.unique().tolist() for m in maps))) >= 5


def test_pruned_equals_full_on_the_golden_photos(golden):
    model, inputs = golden.model().eval(), golden.inputs("test")
    vocabulary = golden.vocabulary("test")
    with torch.inference_mode():
        words = golden.words(model, "test").embeddings
    sizes = [tuple(golden.meta["photo_size"])]
    (maps,) = pruned_maps(model, inputs["pixel_values"], words, vocabulary, sizes)
    expected = golden.tensors["test.pred_all_scores"].argmax(0)
    expected[expected == len(vocabulary)] = -1
    assert torch.equal(maps.label_map, expected)
    present = [list(range(0, len(vocabulary.objects), 2))]
    full, output = full_maps(model, inputs["pixel_values"], words, vocabulary, sizes, present)
    assert_same_maps(pruned_maps(model, inputs["pixel_values"], words, vocabulary, sizes, present), full, output, sizes)


def test_pruned_equals_full_on_rendered_scenes(models):
    from partclipseg.data.resize import resize_photo
    from partclipseg.shapes.renderer import render_scene

    model = models["intended"]
    vocabulary = random_vocabulary(np.random.default_rng(1), 6, 5)
    words = 3 * torch.randn(len(model.prompts(vocabulary)), model.config.projection_dim)
    photos = [np.asarray(render_scene("val", index, size=64 + 16 * index).image) for index in range(3)]
    resized = np.stack([resize_photo(photo, (64, 64)) for photo in photos])
    pixels = torch.from_numpy(resized).permute(0, 3, 1, 2) / 128.0 - 1
    sizes = [photo.shape[:2] for photo in photos]
    expected, output = full_maps(model, pixels, words, vocabulary, sizes)
    assert_same_maps(pruned_maps(model, pixels, words, vocabulary, sizes), expected, output, sizes)


# -- what is decoded ------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> dict[str, int]:
    """Counts of (photo, condition) and (photo, class) rows that go through the decoder."""
    counts = {"conditions": 0, "classes": 0}
    decode, pair_logits = ConditionDecoder.decode, PartDecoder.pair_logits

    def counting_decode(self, reduced, conditions, attention_rows=None):
        features, attention = decode(self, reduced, conditions, attention_rows)
        counts["conditions"] += features.shape[0] * features.shape[1]
        return features, attention

    def counting_pairs(self, halves, words, part_rows, object_rows, grid):
        counts["classes"] += len(part_rows)
        return pair_logits(self, halves, words, part_rows, object_rows, grid)

    monkeypatch.setattr(ConditionDecoder, "decode", counting_decode)
    monkeypatch.setattr(PartDecoder, "pair_logits", counting_pairs)
    return counts


WORDS = Vocabulary.from_dict({"bus": ["door", "wheel"], "dog": ["ear", "head", "tail"]})  # 5 parts, 2 objects


def forced(monkeypatch, winners: list[list[int]]) -> None:
    """Let the listed objects win in each photo; 2 is the background of `WORDS`."""
    monkeypatch.setattr(DecodedPhotos, "winners", lambda self, contest, count: named_rows(winners, count))


def test_only_classes_of_winners_are_decoded(models, monkeypatch, decoded):
    forced(monkeypatch, [[2], [0, 2], [0, 1]])
    pruned_maps(models["intended"], torch.randn(3, 3, 32, 32), torch.randn(7, 24), WORDS, [(20, 20)] * 3)
    assert decoded["conditions"] == 3 * 3 + 0 + 2 + 5  # objects and background everywhere, then the winners' parts
    assert decoded["classes"] == 1 + 3 + 5  # background's own map where it won


def test_a_photo_of_background_alone_decodes_no_class(models, monkeypatch, decoded):
    model = models["intended"]
    logits = type(model.decoder).logits

    def background_wins(self, features, grid):
        result = logits(self, features, grid)
        result[:, -1] += 1e6
        return result

    monkeypatch.setattr(type(model.decoder), "logits", background_wins)
    (maps,) = pruned_maps(model, torch.randn(1, 3, 32, 32), torch.randn(7, 24), WORDS, [(20, 20)])
    assert (maps.label_map == -1).all()
    assert decoded == {"conditions": 3, "classes": 1}  # background's own, which gives its score


def test_known_objects_alone_are_decoded(models, decoded):
    arguments = (torch.randn(2, 3, 32, 32), torch.randn(7, 24), WORDS, [(20, 20)] * 2)
    pruned_maps(models["intended"], *arguments, present_objects=[[0], []])
    assert decoded == {"conditions": 3, "classes": 2}


def test_known_objects_and_background_alone_are_decoded(models, monkeypatch, decoded):
    arguments = (torch.randn(2, 3, 32, 32), torch.randn(7, 24), WORDS, [(20, 20)] * 2)
    forced(monkeypatch, [[0, 2], [2]])
    pruned_maps(models["intended"], *arguments, present_objects=[[0], [0, 1]], with_background=True)
    assert decoded == {"conditions": 2 + 3 + 2, "classes": 3 + 1}  # one object and two, background; parts of a winner


def test_the_baseline_decodes_the_classes_of_known_objects(models, decoded):
    arguments = (torch.randn(2, 3, 32, 32), torch.randn(5, 24), WORDS, [(20, 20)] * 2)
    pruned_maps(models["baseline"], *arguments, present_objects=[[0], [0, 1]])
    assert decoded["conditions"] == 2 + 5
    pruned_maps(models["baseline"], *arguments, present_objects=[[0], [0, 1]], with_background=True)
    assert decoded["conditions"] == 2 * (2 + 5) + 2
    pruned_maps(models["baseline"], *arguments)
    assert decoded["conditions"] == 2 * (2 + 5) + 2 + 2 * 6


def test_memory_does_not_grow_with_the_classes(models):
    """The widest tensor that is upsampled stays within a few rows, however many classes win."""
    vocabulary = Vocabulary.from_dict({f"object{o}": [f"part{p}" for p in range(20)] for o in range(20)})
    model, widest = models["intended"], 0
    words = torch.randn(len(model.prompts(vocabulary)), 24)
    add = Contest.add

    def watching(self, photos, logits, labels, owners=None):
        nonlocal widest
        widest = max(widest, len(logits))
        add(self, photos, logits, labels, owners)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Contest, "add", watching)
        patch.setitem(clipseg_rows.WIDEST, "cpu", 3 * 5 * 32 * 4)  # three rows: 5 tokens, 32 hidden units, float32
        pruned_maps(model, torch.randn(2, 3, 32, 32), words, vocabulary, [(30, 30)] * 2, [[*range(20)]] * 2)
    assert widest == 3
