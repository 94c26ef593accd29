"""Configurations: defaults, checks with their messages."""

import pytest
from tests.models.partcatseg.small import small_config
from transformers import ResNetConfig

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.partcatseg.config import REPAIRS, CATSegConfig, PartCATSegConfig


def test_released_sizes():
    config = PartCATSegConfig()
    assert (config.grid, config.logits_edge, config.image_shape) == (24, 96, (384, 384))
    assert (config.guidance_image_size, config.guidance_dims) == (448, (384, 384, 384))
    assert len(config.templates) == 80
    baseline = CATSegConfig()
    assert (baseline.guidance_image_size, baseline.guidance_dims) == (384, (1024, 512, 256))
    with_dinov2 = CATSegConfig(guidance_config={"model_type": "dinov2"})
    assert (with_dinov2.guidance_image_size, with_dinov2.guidance_dims) == (448, (384, 384, 384))


@pytest.mark.parametrize("repairs", [None, [], ["oracle"], ["padding", "positions"]])
def test_files_keep_the_repairs(tmp_path, repairs):
    config = small_config(repairs=repairs)
    config.save_pretrained(tmp_path)
    again = PartCATSegConfig.from_pretrained(tmp_path)
    assert again.repairs == (list(REPAIRS) if repairs is None else repairs)
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 72}, "multiple of CLIP's patch of 16"),
        ({"window_size": 3}, "window_size 3 must divide the feature grid of 4"),
        ({"pooling_size": 3}, "pooling_size 3 must divide"),
        ({"num_heads": 0.5}, "num_heads must be a whole number"),
        ({"image_size": "64"}, "image_size must be a whole number from 1 to 16,384, not '64'"),
        ({"reference": "yes"}, "reference must be true or false, not 'yes'"),
        ({"templates": "a {}"}, "templates must be a list"),
        ({"repairs": "padding"}, "repairs must be a list"),
        ({"image_mean": [0.0, float("nan"), 0.0]}, "image_mean must be a list of 3"),
        ({"num_heads": 3}, "multiple of num_heads 3"),
        ({"num_layers": 0}, "num_layers must be a whole number from 1 to 256, not 0"),
        ({"shortest_edge": 0}, "shortest_edge must be a whole number from 1 to 16,384 or null, not 0"),
        ({"decoder_dims": [16, 8]}, "multiples of 16"),
        ({"decoder_dims": [16]}, "one number for each of two blocks"),
        ({"decoder_guidance_dims": [16, 8]}, "must lie between 0 and the width"),
        ({"templates": ["a photo"]}, "must have {} once"),
        ({"templates": []}, "templates is empty"),
        ({"image_std": [1.0, 0.0, 1.0]}, "image_std must be a list of 3, each a number from 1e-06 to 1000"),
        ({"guidance_mean": [1.0]}, "guidance_mean must be a list of 3"),
        ({"repairs": ["padding", "speed"]}, "partcatseg has no repair 'speed': choose from background, copies"),
        ({"reference": True, "repairs": ["padding"]}, "leave out one of reference and repairs"),
        ({"patch_attention": 1}, "patch_attention must be true or false, not 1"),
        ({"reference": True, "patch_attention": True}, "leave out one or the other"),
        ({"attention_filter": 1}, "attention_filter must be true or false, not 1"),
        ({"reference": True, "attention_filter": True}, "leave out one or the other"),
        ({"reference": True, "pair_affinity": True}, "leave out one or the other"),
        ({"guidance_image_size": 60}, "multiple of DINOv2's patch of 14"),
        ({"guidance_config": {"model_type": "resnet"}}, "PartCATSeg takes its guidance from DINOv2"),
        ({"guidance_config": {"model_type": "vit"}}, "type 'vit': give dinov2 or resnet"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(PartCLIPSegError, match=r".") as caught:
        small_config(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("changes", [{"guidance_image_size": 48}, {"guidance_config": ResNetConfig()}])
def test_bad_resnet(changes):
    with pytest.raises(PartCLIPSegError, match="three stages and an input of 64 pixels"):
        small_config(CATSegConfig, **changes)


def test_catseg_has_fewer_repairs():
    assert small_config(CATSegConfig).repairs == ["background", "oracle", "padding", "positions", "outside"]
    with pytest.raises(PartCLIPSegError, match="catseg has no repair 'divergence'"):
        small_config(CATSegConfig, repairs=["divergence"])


def test_catseg_has_no_second_stage():
    with pytest.raises(PartCLIPSegError, match="no second stage: leave pair_affinity out"):
        small_config(CATSegConfig, pair_affinity=True)


def test_unknown_repair_is_no_question():
    with pytest.raises(KeyError):
        PartCATSegConfig().repaired("speed")
