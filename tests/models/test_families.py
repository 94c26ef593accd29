"""Every family of the registry, by the tests that all of them share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.conftest import shallow_config
from tests.models.partcatseg.small import build, small_config
from tests.models.tester import FamilyTester, noise, random_vocabulary, random_words
from torch import nn
from torch.nn import functional as F

from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.interface import PartOutput
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import FAMILIES, family
from partclipseg.models.zsseg.config import ZSSegConfig
from partclipseg.models.zsseg.model import ZSSegModel
from partclipseg.vocabulary import Vocabulary


class TestPartCLIPSeg(FamilyTester):
    @pytest.fixture
    def model(self):
        return PartCLIPSegModel(shallow_config()).eval()


class TestPartCLIPSegWithTheReferenceLookup(FamilyTester):
    @pytest.fixture
    def model(self):
        return PartCLIPSegModel(shallow_config(reference_object_lookup=True, conditional_layer=1)).eval()


class TestCLIPSegBaseline(FamilyTester):
    @pytest.fixture
    def model(self):
        return CLIPSegBaseline(CLIPSegBaseline.config_class.from_values(shallow_config().to_dict())).eval()


def resized_probabilities(logits, size):
    return F.interpolate(logits[None].sigmoid(), size, mode="bilinear", align_corners=False)[0]


class CostAggregationTester(FamilyTester):
    """Labels by the greatest probability after resizing, of all classes and background at once."""

    values = staticmethod(resized_probabilities)
    gated = False

    @pytest.fixture
    def model(self):
        # Training photos come at the model's own size: without a first resizing they are prepared as any others.
        return build(small_config(self.config_class, shortest_edge=None, num_layers=1))

    def plain_maps(self, model, inputs, words, sizes, present=None, with_background=False):
        logits, owners = model(inputs, words).object_part_logits, F.pad(words.class_to_object, (0, 1), value=-1)
        maps = []
        for index, size in enumerate(sizes):
            values = resized_probabilities(logits[index], size)
            if present is not None:
                out = ~torch.isin(owners, torch.tensor([*present[index], -1] if with_background else present[index]))
                values[out] = 0 if out.all() else -1
            best, labels = values.max(0)
            none = torch.full_like(labels, len(words.class_to_object))
            labels = none if present is not None and out.all() else labels
            maps.append(LabelMaps(labels.masked_fill(labels == none, -1), owners[labels], best))
        return maps


class TestPartCATSeg(CostAggregationTester):
    config_class = PartCATSegConfig


class TestCATSeg(CostAggregationTester):
    config_class = CATSegConfig


class TestZSSeg(FamilyTester):
    """Two stages on photo after photo; label maps are made of what they find, not of the logits."""

    gated = False
    # Queries begin as zeros, so that the first layer's have nothing to say to each other.
    without_gradient = ("proposals.transformer.decoder.layers.0.self_attn",)

    @pytest.fixture
    def model(self):
        torch.manual_seed(3)  # with many others every probability is too small to be told from the next
        return ZSSegModel(small_zsseg()).eval()

    @pytest.fixture
    def run(self, model, vocabulary, photos):
        def run(model=model, photos=photos, vocabulary=vocabulary):
            with torch.no_grad():
                output = model(model.prepare(photos), random_words(model, vocabulary))
            return PartOutput(object_part_logits=output.object_part_logits)

        return run

    def test_bfloat16_is_close(self, model, run):
        """Regions are found by an argmax, so that a rounding may move one: only what it is made of is close."""
        assert run(nn.Module.to(model, torch.bfloat16)).object_part_logits.dtype == torch.bfloat16

    def test_several_classes_win_in_such_maps(self, model):
        vocabulary, sizes = random_vocabulary(np.random.default_rng(0), 6, 6), [(64, 64), (50, 70)]
        words, inputs = random_words(model, vocabulary, 3), model.prepare(noise(*sizes))
        maps = model.label_maps(inputs, words, sizes, [[0, 1, 2], [3, 4, 5]])
        assert len(set().union(*(found.label_map.unique().tolist() for found in maps))) >= 2

    def test_the_forward_pass_compiles_without_a_graph_break(self, model, vocabulary, tokenizer):
        """Photos have sizes of their own, and are read one by one: the text tower compiles."""
        tokens = tokenizer(model.prompts(vocabulary), padding=True, return_tensors="pt")
        arguments = tokens["input_ids"], tokens["attention_mask"]
        torch.compiler.reset()
        with torch.no_grad():
            expected = model.encode_text(*arguments)
            actual = torch.compile(model.encode_text, backend="eager", fullgraph=True)(*arguments)
        torch.compiler.reset()
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)

    def test_an_object_mask_decides_what_is_looked_at(self, model, vocabulary):
        inputs, words = model.prepare(noise((64, 64))), random_words(model, vocabulary)
        whole = model.with_object_masks(inputs, [torch.ones(64, 64, dtype=torch.bool)])
        empty = model.with_object_masks(inputs, [torch.zeros(64, 64, dtype=torch.bool)])
        corner = torch.zeros(64, 64, dtype=torch.bool)
        corner[40:, 40:] = True
        plain, full, none, part = (
            model.label_maps(given, words, [(64, 64)], [[0, 1]])[0].scores
            for given in (inputs, whole, empty, model.with_object_masks(inputs, [corner]))
        )
        assert torch.equal(plain, full)
        assert torch.equal(plain, none)  # an object without a pixel counts as the whole photo
        assert not torch.equal(plain, part)

    def test_as_released_a_word_in_a_name_admits_its_class(self):
        vocabulary = Vocabulary.from_dict({"chair": ["leg"], "armchair": ["arm", "seat"], "lamp": ["shade"]})
        chair = vocabulary.objects.index("chair")
        found = {False: set(), True: set()}
        for seed in range(6):  # which of two classes wins in a random model is chance
            torch.manual_seed(seed)
            model = ZSSegModel(small_zsseg()).eval()
            inputs, words = model.prepare(noise((64, 64))), random_words(model, vocabulary, 3)
            for reference in found:
                model.config.reference = reference
                (maps,) = model.label_maps(inputs, words, [(64, 64)], [[chair]])
                found[reference] |= set(maps.object_map.unique().tolist())
        assert found[False] == {chair}
        assert found[True] == {chair, vocabulary.objects.index("armchair")}


def small_zsseg(**changes):
    """A configuration of some 200,000 parameters; the comma and the full stop of the letters' tokenizer."""
    clip = {
        "text_config": {
            "vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 48,
            "bos_token_id": 598, "eos_token_id": 599, "pad_token_id": 599,
        },
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 16,
        },
        "projection_dim": 24,
    }  # fmt: skip
    values = {
        "clip_config": clip,
        "backbone_config": {"embedding_size": 4, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]},
        "feature_size": 64,
        "hidden_size": 32,
        "num_heads": 4,
        "num_layers": 2,
        "feed_forward_size": 64,
        "num_queries": 6,
        "class_hidden_size": 32,
        "shortest_edge": 32,
        "longest_edge": 96,
        "crop_size": 32,
        "separator_id": 105,
        "dot_id": 107,
    }
    return ZSSegConfig.from_values({**values, **changes})


def test_each_family_stands_under_its_own_name():
    for name in FAMILIES:
        cls = family(name)
        assert cls.config_class.model_type == cls.settings_class.family == name
