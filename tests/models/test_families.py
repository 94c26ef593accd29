"""Every family of the registry, by the tests that all of them share."""

from __future__ import annotations

import pytest
from tests.models.tester import FamilyTester

from partclipseg.models.clipseg.model import CLIPSegBaseline
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


def test_each_family_stands_under_its_own_name():
    for name in FAMILIES:
        cls = family(name)
        assert cls.config_class.model_type == cls.settings_class.family == name
