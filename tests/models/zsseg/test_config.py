"""Configurations of ZSSeg+ that no model can be built from are refused with a sentence."""

from __future__ import annotations

import pytest
from tests.models.test_families import small_zsseg

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.zsseg.config import REPAIRS, ZSSegConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_size": 48}, "feature_size 48 must be a multiple of 32"),
        ({"num_heads": 3}, "hidden_size 32 must be a multiple of twice the num_heads 3"),
        ({"crop_size": 40}, "crop_size 40 must be a multiple of CLIP's patch of 16"),
        ({"prompt_lengths": [4]}, "give two numbers"),
        ({"prompt_lengths": [0, 4]}, "prompt_lengths"),
        ({"backbone_config": {"hidden_sizes": [16, 16, 32], "depths": [1, 1, 1]}}, "four stages"),
        ({"separator_id": 600}, "separator_id is 600, no token of the 600"),
        ({"image_std": [1, 1, 0]}, "image_std"),
        ({"repairs": ["E1"]}, "zsseg has no repair 'E1': choose from attention, object_vector, oracle"),
        ({"reference": True, "repairs": ["oracle"]}, "leave out one of reference and repairs"),
        ({"num_layers": -1}, "num_layers"),
        ({"clip_config": 3}, "clip_config"),
        ({"crop_scale": "wide"}, "crop_scale"),
    ],
)
def test_wrong_values(changes: dict, message: str) -> None:
    with pytest.raises(PartCLIPSegError, match=message):
        small_zsseg(**changes)


def test_repairs_are_made_by_default_and_kept_apart() -> None:
    assert all(ZSSegConfig().repaired(name) for name in REPAIRS)
    assert not any(ZSSegConfig(reference=True).repaired(name) for name in REPAIRS)
    one = ZSSegConfig(repairs=["oracle"])
    assert [name for name in REPAIRS if one.repaired(name)] == ["oracle"]
    assert ZSSegConfig.from_values(one.to_dict()).to_dict() == one.to_dict()
