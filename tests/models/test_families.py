"""Every family of the registry, by the tests that all of them share."""

from __future__ import annotations

import pytest
import torch
from tests.models.partcatseg.small import build, small_config
from tests.models.tester import FamilyTester
from torch.nn import functional as F

from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import FAMILIES, family


class TestPartCLIPSeg(FamilyTester):
    @pytest.fixture
    def model(self, config):
        return PartCLIPSegModel(config).eval()


class TestPartCLIPSegWithTheReferenceLookup(FamilyTester):
    @pytest.fixture
    def model(self, config):
        config.reference_object_lookup, config.conditional_layer = True, 1
        return PartCLIPSegModel(config).eval()


class TestCLIPSegBaseline(FamilyTester):
    @pytest.fixture
    def model(self, config):
        return CLIPSegBaseline(CLIPSegBaseline.config_class.from_values(config.to_dict())).eval()


def resized_probabilities(logits, size):
    return F.interpolate(logits[None].sigmoid(), size, mode="bilinear", align_corners=False)[0]


class CostAggregationTester(FamilyTester):
    """Labels by the greatest probability after resizing, of all classes and background at once."""

    values = staticmethod(resized_probabilities)
    gated = False

    @pytest.fixture
    def model(self):
        # Training photos come at the model's own size: without a first resizing they are prepared as any others.
        return build(small_config(self.config_class, shortest_edge=None))

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


def test_each_family_stands_under_its_own_name():
    for name in FAMILIES:
        cls = family(name)
        assert cls.config_class.model_type == cls.settings_class.family == name
