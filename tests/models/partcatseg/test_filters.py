"""The filters of costs after HOPS: goldens of its code, and what they do to both families' models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.models.partcatseg.small import build, random_photos, random_words, small_config
from transformers import CLIPConfig, CLIPModel

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.models.clip_dense import block_inputs, patch_attention
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.filters import (
    affinity,
    agreed_attention,
    divided_by_rows,
    doubly_stochastic,
    mix,
)
from partclipseg.models.partcatseg.model import PartCATSegModel
from partclipseg.models.partcatseg.settings import PartCATSegSettings
from partclipseg.models.registry import load_model

CLOSE = {"atol": 1e-6, "rtol": 0}  # float32 sums of 36 products in another order; 6e-8 was seen


@pytest.fixture(scope="module")
def tensors(shared: Path) -> dict[str, torch.Tensor]:
    return load_file(shared / "reference" / "golden" / "hops" / "dev" / "tensors.safetensors")


@pytest.fixture(scope="module")
def attention(tensors) -> torch.Tensor:
    return tensors["clip.attention"][:, :, 1:, 1:]  # [L, B, N, N], without the class token


def test_the_attention_that_blocks_agree_on_as_released(tensors, attention):
    costs = tensors["object.corr"]  # [B, P, T, g, g]
    mixed = mix(costs.flatten(1, 2), agreed_attention(attention)).view_as(costs)
    torch.testing.assert_close(mixed, tensors["object.corr_after_AFM"], **CLOSE)


def test_the_affinity_as_written(tensors, attention):
    torch.testing.assert_close(doubly_stochastic(attention.mean(0))[0], tensors["part.sinkhorn"], **CLOSE)
    costs = tensors["part.corr"]
    mixed = mix(costs.flatten(1, 2), affinity(attention[:, :1])).view_as(costs)
    torch.testing.assert_close(mixed, tensors["part.corr_after_AEM"], **CLOSE)


def test_attention_of_every_block_but_the_last(tensors):
    """HOPS runs the last block twice, and takes its attention from the second pass."""
    clip, photos = _clip(tensors), tensors["clip.image"]
    hidden = list(block_inputs(clip, photos))
    assert len(hidden) == 12
    for number, (layer, states) in enumerate(zip(clip.vision_model.encoder.layers, hidden, strict=True)):
        expected = tensors["clip.attention"][number, :, 1:, 1:]
        found = patch_attention(layer, states)
        assert torch.allclose(found, expected, atol=1e-5) == (number < 11), number


def _clip(tensors) -> CLIPModel:
    vision = {
        "hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 12, "num_attention_heads": 3,
        "image_size": 24, "patch_size": 4,
    }  # fmt: skip
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).eval()
    own = {key.removeprefix("clip.w."): value for key, value in tensors.items() if key.startswith("clip.w.")}
    names = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        **{f"pre_layrnorm.{kind}": f"ln_pre.{kind}" for kind in ("weight", "bias")},
        **{f"post_layernorm.{kind}": f"ln_post.{kind}" for kind in ("weight", "bias")},
    }
    weights = {ours: own[theirs] for ours, theirs in names.items()}
    of_block = {"out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "fc1": "mlp.c_fc",
                "fc2": "mlp.c_proj"}  # fmt: skip
    for name in clip.vision_model.state_dict():
        if name.startswith("encoder.layers."):
            number, layer, kind = name.split(".")[2], name.split(".")[-2], name.split(".")[-1]
            block = f"transformer.resblocks.{number}"
            if layer in of_block:
                weights[name] = own[f"{block}.{of_block[layer]}.{kind}"]
            else:
                third = ("q_proj", "k_proj", "v_proj").index(layer)
                weights[name] = own[f"{block}.attn.in_proj_{kind}"].chunk(3)[third]
    clip.vision_model.load_state_dict(weights, strict=False)
    return clip


@given(st.integers(1, 9), st.integers(0, 2**31))
def test_rows_and_columns_sum_to_1(places: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(6, 2, places, places, generator=generator, dtype=torch.float64) + 0.05
    filtered = divided_by_rows(agreed_attention(attention))
    torch.testing.assert_close(filtered.sum(-1), torch.ones(2, places, dtype=torch.float64))
    weights = affinity(attention)
    torch.testing.assert_close(weights, weights.mT)
    # Five rounds leave a rest, which the positive start bounds.
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, places, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_patch_without_agreed_attention_keeps_its_own_cost():
    weights = torch.tensor([[[0.0, 0.0], [0.1, 0.3]]])
    values = torch.tensor([[[[2.0, 6.0]]]])  # [1, 1, 1, 2]: two places
    assert mix(values, divided_by_rows(weights)).flatten().tolist() == [2.0, 5.0]


@pytest.mark.parametrize("config_class", [PartCATSegConfig, CATSegConfig])
def test_the_attention_filter_mixes_the_first_costs(config_class):
    plain = build(small_config(config_class))
    filtered = build(small_config(config_class, attention_filter=True))
    words, inputs = random_words(plain), plain.prepare(random_photos((70, 90), (64, 64)))
    with torch.no_grad():
        hidden = list(block_inputs(plain.clip, inputs["pixel_values"]))
        layers = plain.clip.vision_model.encoder.layers
        attention = torch.stack([patch_attention(layer, x) for layer, x in zip(layers, hidden, strict=True)])
        costs, found = (_first_costs(model, inputs, words) for model in (plain, filtered))
        expected = mix(costs, divided_by_rows(agreed_attention(attention)))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert not torch.allclose(found, costs, atol=1e-3)
        maps = filtered.label_maps(inputs, words, [(70, 90), (64, 64)])
        full = filtered.maps_of(filtered(inputs, words), inputs, words, [(70, 90), (64, 64)])
    assert all(torch.equal(one.label_map, other.label_map) for one, other in zip(maps, full, strict=True))


def _first_costs(model, inputs, words) -> torch.Tensor:
    if isinstance(model, PartCATSegModel):
        return model.volumes(inputs, words)[0].similarity
    return model.class_volume(inputs, words)[0].similarity


def test_the_affinity_mixes_the_costs_of_object_parts():
    plain, mixed = build(small_config()), build(small_config(pair_affinity=True))
    words, inputs = random_words(plain), plain.prepare(random_photos((64, 64)))
    with torch.no_grad():
        (first, second, _), (same, found, _) = (model.volumes(inputs, words) for model in (plain, mixed))
        weights = mixed.features(inputs)[0].affinity
        assert weights is not None
        assert torch.equal(first.embedding, same.embedding)
        torch.testing.assert_close(found.similarity, mix(second.similarity, weights), atol=1e-5, rtol=0)
        logits, others = (model(inputs, words).object_part_logits for model in (plain, mixed))
    assert not torch.allclose(logits, others, atol=1e-3)


def test_training_sets_them_and_files_keep_them(tmp_path: Path):
    build(small_config()).save_pretrained(tmp_path / "plain")
    settings = PartCATSegSettings(attention_filter=True, pair_affinity=True)
    model = PartCATSegModel.from_start(str(tmp_path / "plain"), settings)
    assert (model.config.attention_filter, model.config.pair_affinity) == (True, True)
    model.save_pretrained(tmp_path / "filtered")
    found = load_model(tmp_path / "filtered").config
    assert (found.attention_filter, found.pair_affinity) == (True, True)
    again = PartCATSegModel.from_start(str(tmp_path / "filtered"), replace(settings, attention_filter=None))
    assert (again.config.attention_filter, again.config.pair_affinity) == (True, True)
    off = PartCATSegModel.from_start(str(tmp_path / "filtered"), replace(settings, pair_affinity=False))
    assert (off.config.attention_filter, off.config.pair_affinity) == (True, False)


@pytest.mark.parametrize("attention_filter", [False, True])
def test_with_the_attention_of_its_last_block_clip_computes_its_own_patches(attention_filter: bool):
    model = build(small_config(patch_attention=True, attention_filter=attention_filter))
    inputs = model.prepare(random_photos((64, 64)))
    vision = model.clip.vision_model
    with torch.no_grad():
        hidden = vision(inputs["pixel_values"], interpolate_pos_encoding=True).last_hidden_state
        own = model.clip.visual_projection(vision.post_layernorm(hidden))[:, 1:]  # [B, N, D]
        own = torch.nn.functional.normalize(own, dim=-1).mT.unflatten(2, (model.config.grid, -1))
        vectors = model.features(inputs)[0].vectors
        model.config.change(patch_attention=False)
        alone = model.features(inputs)[0].vectors
    assert torch.allclose(vectors, own, atol=1e-5) == (not attention_filter)
    assert not torch.allclose(vectors, alone, atol=1e-3)


def test_training_chooses_what_guidance_sees_and_how_fast_it_learns(tmp_path: Path):
    build(small_config()).save_pretrained(tmp_path / "start")
    settings = PartCATSegSettings(guidance_image_size=70, guidance_share=0.5, patch_attention=True)
    model = PartCATSegModel.from_start(str(tmp_path / "start"), settings)
    assert (model.config.guidance_image_size, model.config.patch_attention) == (70, True)
    assert model.prepare(random_photos((64, 64)))["guidance_pixels"].shape[-1] == 70
    trained = set(model.trained_parameters(settings)) & set(model.guidance.parameters())
    rates = {group["lr"] for group in model.parameter_groups(0.1, 0.0) if trained & set(group["params"])}
    assert trained
    assert rates == {0.05}
    with pytest.raises(PartCLIPSegError, match="guidance_image_size 60 must be a multiple"):
        PartCATSegModel.from_start(str(tmp_path / "start"), replace(settings, guidance_image_size=60))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guidance_share": 0.0}, "guidance_share 0.0 must lie above 0 and be at most 1"),
        ({"guidance_share": 2.0}, "guidance_share 2.0 must lie above 0"),
        ({"guidance_image_size": 0}, "guidance_image_size must be from 1 to"),
        ({"guidance_share": float("nan")}, "guidance_share"),
    ],
)
def test_choices_that_cannot_be(change: dict, message: str):
    with pytest.raises(UsageError, match=message):
        PartCATSegSettings(**change)


def test_the_graph_filters_and_has_no_affinity():
    with pytest.raises(PartCLIPSegError, match="pair_affinity has no graph for ONNX"):
        build(small_config(pair_affinity=True)).onnx_graphs()
    model = build(small_config(attention_filter=True))
    inputs = model.prepare(random_photos((64, 64)))
    with torch.no_grad():
        vectors, *_ = model.onnx_graphs()["photo_encoder"].module(inputs["pixel_values"], inputs["guidance_pixels"])
        assert torch.equal(vectors, model.features(inputs)[0].vectors)
