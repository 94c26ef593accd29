"""Behaviour of PartCATSeg and CAT-Seg that needs no golden tensors."""

import copy
from contextlib import nullcontext
from itertools import chain

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.partcatseg.small import (
    VOCABULARY,
    build,
    random_photos,
    random_words,
    resized_probabilities,
    small_config,
)
from tests.waiting import NoWaiting
from torch.nn import functional as F

from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.errors import PartCLIPSegError
from partclipseg.models.partcatseg import aggregator
from partclipseg.models.partcatseg.config import REPAIRS, CATSegConfig, PartCATSegConfig
from partclipseg.models.partcatseg.loss import CATSegLoss
from partclipseg.models.partcatseg.photos import first_size
from partclipseg.models.partcatseg.towers import DINOGuidance

SIZES = [(40, 90), (83, 50), (64, 64)]
LARGE = range(len(VOCABULARY))


@pytest.fixture
def model(family):
    return build(small_config(family))


def test_batch_equals_photos_one_by_one(model):
    """Photos of unequal sizes; also as released, where padding must not depend on the neighbours."""
    words, photos = random_words(model), random_photos(*SIZES)
    together = model.label_maps(model.prepare(photos), words, SIZES)
    with torch.no_grad():
        logits = model(model.prepare(photos), words).object_part_logits
    for index, (photo, size) in enumerate(zip(photos, SIZES, strict=True)):
        alone = model.prepare([photo])
        with torch.no_grad():
            # Kernels sum in another order for another batch: measured 4e-6 of 10.
            torch.testing.assert_close(logits[index], model(alone, words).object_part_logits[0], atol=2e-5, rtol=0)
        (expected,) = model.label_maps(alone, words, [size])
        assert together[index].label_map.shape == size
        torch.testing.assert_close(together[index].scores, expected.scores, atol=1e-5, rtol=0)


def test_oracle_decodes_exactly_what_the_full_logits_say(model):
    words, photos = random_words(model), random_photos(*SIZES)
    inputs = model.prepare(photos)
    present = [[0], [2, 1], []]
    for with_background in (False, True):
        found = model.label_maps(inputs, words, SIZES, present, with_background)
        with torch.no_grad():
            logits = model(inputs, words).object_part_logits
        for index, size in enumerate(SIZES):
            allowed = [c for c in LARGE if VOCABULARY.class_to_object[c] in present[index]]
            allowed += [len(VOCABULARY)] * with_background
            scores = F.interpolate(logits[index : index + 1].sigmoid(), size, mode="bilinear")[0]
            if not allowed:
                assert (found[index].label_map == -1).all()
                continue
            best = torch.tensor(allowed)[scores[allowed].argmax(0)]
            label_map = torch.where(best < len(VOCABULARY), best, -1)
            assert (found[index].label_map != label_map).float().mean() < 1e-3  # rounding at borders
            owners = torch.from_numpy(np.append(VOCABULARY.class_to_object, -1))
            assert torch.equal(found[index].object_map, owners[found[index].label_map])


def test_chunks_change_nothing(model, monkeypatch):
    words, inputs = random_words(model), model.prepare(random_photos(*SIZES))
    with torch.no_grad():
        whole = model(inputs, words).object_part_logits
    expected = model.label_maps(inputs, words, SIZES)
    monkeypatch.setattr(aggregator, "CLASSES_AT_ONCE", 2)
    monkeypatch.setattr(aggregator, "SCORES_AT_ONCE", 1)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs, words).object_part_logits, whole, atol=2e-5, rtol=0)
    for found, before in zip(model.label_maps(inputs, words, SIZES), expected, strict=True):
        torch.testing.assert_close(found.scores, before.scores, atol=1e-5, rtol=0)


class CapturedTwice:
    """Stands for CUDA graphs on the CPU: every pass is repeated while operations that wait for a GPU are refused."""

    def __init__(self):
        self.lock, self.keys = nullcontext(), []

    def __call__(self, function, key, *inputs):
        self.keys.append((key, *(tensor.shape for tensor in inputs)))
        function(*inputs)  # the first run may make what is kept
        with NoWaiting():
            return function(*inputs)


def test_captured_passes_do_not_wait_for_the_device(family, monkeypatch):
    """A GPU captures passes, so they are functions of tensors, and settings that change them change their key."""
    filters = {"attention_filter": True, "pair_affinity": family is PartCATSegConfig}
    for changes in ({}, filters):
        model, graphs = build(small_config(family, **changes)), CapturedTwice()
        words, inputs = random_words(model), model.prepare(random_photos(*SIZES))
        asked = [(None, False), ([[0], [2, 1], []], True)]
        expected = [model.label_maps(inputs, words, SIZES, *question) for question in asked]
        monkeypatch.setattr(model, "graphs", lambda graphs=graphs: graphs)
        found = [model.label_maps(inputs, words, SIZES, *question) for question in asked]
        for one, other in zip(chain(*found), chain(*expected), strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
        assert len(set(graphs.keys)) == len(graphs.keys) == 2
        model.config.change(attention_filter=not model.config.attention_filter)
        model.label_maps(inputs, words, SIZES)
        assert len(set(graphs.keys)) == 3
        model.config.change(patch_attention=True)
        model.label_maps(inputs, words, SIZES)
        assert len(set(graphs.keys)) == 4


@pytest.mark.parametrize("filters", [{}, {"attention_filter": True, "pair_affinity": True}], ids=["", "filters"])
def test_of_large_batches_the_towers_alone_are_captured(filters, monkeypatch):
    model, graphs = build(small_config(**filters)), CapturedTwice()
    words, inputs = random_words(model), model.prepare(random_photos(*SIZES))
    asked = [(None, False), ([[0], [2, 1], []], True)]
    expected = [model.label_maps(inputs, words, SIZES, *question) for question in asked]
    monkeypatch.setattr(model, "graphs", lambda: graphs)
    monkeypatch.setattr("partclipseg.models.partcatseg.maps.CAPTURED_PAIRS", 3)
    found = [model.label_maps(inputs, words, SIZES, *question) for question in asked]
    for one, other in zip(chain(*found), chain(*expected), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    shapes = [inputs[name].shape for name in ("pixel_values", "guidance_pixels")]
    assert [[*given] for _, *given in graphs.keys] == [shapes] * 2, "photos without words"
    model.config.change(attention_filter=not model.config.attention_filter)
    model.label_maps(inputs, words, SIZES)
    assert len(set(graphs.keys)) == 2


def test_of_equal_classes_the_first_wins(model, monkeypatch):
    monkeypatch.setattr(aggregator, "CLASSES_AT_ONCE", 2)
    torch.nn.init.zeros_(model.aggregator.head.weight)
    words, inputs = random_words(model), model.prepare(random_photos((40, 90)))
    assert (model.label_maps(inputs, words, [(40, 90)])[0].label_map == 0).all()
    (found,) = model.label_maps(inputs, words, [(40, 90)], [[1]])
    assert (found.label_map == VOCABULARY.class_to_object.tolist().index(1)).all()


def test_a_directory_without_background_is_refused(tmp_path):
    model = build(small_config())
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["background"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(PartCLIPSegError, match="missing: background"):
        type(model).from_pretrained(tmp_path)


def test_recomputing_changes_no_gradient(family, monkeypatch):
    gradients = []
    for recompute in (False, True):
        model = build(small_config(family))
        model.recompute(recompute)
        monkeypatch.setattr(aggregator, "CLASSES_AT_ONCE", 4 if recompute else 64)
        _, trained = step(model, *labels())
        gradients.append([parameter.grad for parameter in trained])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)  # sums over the chunks of the decoder


def test_directory_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config.repairs == model.config.repairs
    assert again.config.guidance_dims == model.config.guidance_dims
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    words, inputs = random_words(model), model.prepare(random_photos((50, 60)))
    with torch.no_grad():
        assert torch.equal(again(inputs, words).object_part_logits, model(inputs, words).object_part_logits)


def labels(seed=0, size=(32, 40)):
    """Label maps of two photos with every kind of pixel."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randint(0, len(VOCABULARY), (2, *size), generator=generator)
    objects = torch.from_numpy(VOCABULARY.class_to_object)[parts]
    parts[:, :10], objects[:, :5], objects[:, 5:8] = UNLABELLED, UNLABELLED, OUTSIDE
    return parts, objects


def step(model, parts, objects):
    words = random_words(model)
    model.train()
    trained = model.trained_parameters()
    output = model(
        model.prepare(torch.from_numpy(np.stack(random_photos((64, 64), (64, 64)))).permute(0, 3, 1, 2)), words
    )
    terms = model.build_loss()(output, parts, objects, words.class_to_part, words.class_to_object)
    terms["total"].backward()
    return terms, trained


def test_gradient_reaches_every_trained_parameter(model):
    _, trained = step(model, *labels())
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    silent = [named[id(parameter)] for parameter in trained if parameter.grad is None or not parameter.grad.any()]
    assert silent == []
    assert all(parameter.grad is None for parameter in model.clip.parameters())
    assert model.background.grad is not None


def test_statistics_of_resnet_stay():
    model = build(small_config(CATSegConfig))
    before = copy.deepcopy(dict(model.guidance.named_buffers()))
    step(model, *labels())
    assert all(torch.equal(before[name], buffer) for name, buffer in model.guidance.named_buffers())
    assert not any(norm.weight.requires_grad for norm in model.guidance.batch_norms())


def changed(name):
    """What a repair changes: two values that differ with and without it."""
    results = []
    for repairs in ([], [name]):
        model = build(small_config(repairs=repairs))
        words, parts_objects = random_words(model), labels()
        if name == "background":
            results.append(model.trained_parameters()[0] is not None and model.background.requires_grad)
        elif name in ("outside", "divergence"):
            results.append(step(model, *parts_objects)[0]["total"].item())
        elif name == "oracle":
            inputs = model.prepare(random_photos((40, 90)))
            (found,) = model.label_maps(inputs, words, [(40, 90)], [[words.vocabulary.objects.index("chair")]])
            results.append(set(found.object_map.unique().tolist()) <= {words.vocabulary.objects.index("chair")})
        elif name == "padding":
            results.append(model.prepare(random_photos((40, 90)))["pixel_values"].sum().item())
        elif name == "positions":
            results.append(model.guidance.positions(4, 4).sum().item())
    return results


@pytest.mark.parametrize("name", [name for name in REPAIRS if name != "copies"])
def test_each_repair_changes_what_it_should(name):
    before, after = changed(name)
    assert before != after
    if isinstance(before, bool):
        assert after


def test_repairs_are_all_or_none_by_default():
    assert PartCATSegConfig().repairs == list(REPAIRS)
    assert PartCATSegConfig(reference=True).repairs == []


def test_untrained_background_is_as_released():
    model = build(small_config(reference=True))
    _, trained = step(model, *labels())
    assert model.background.grad is None
    assert all(parameter is not model.background for parameter in trained)


def test_new_second_stage_is_a_copy_of_the_first():
    model = build(small_config())
    fresh = type(model)(small_config())
    for name, value in fresh.aggregator.pair_layers.state_dict().items():
        assert torch.equal(value, fresh.aggregator.layers.state_dict()[name])
    assert torch.equal(fresh.aggregator.pair_cost_embedding.weight, fresh.aggregator.cost_embedding.weight)


def test_losses_of_shares_add_up(family):
    model = build(small_config(family, repairs=["padding", "outside"]))
    words, (parts, objects), loss = random_words(model), labels(), model.build_loss()
    with torch.no_grad():
        output = model(model.prepare(random_photos((64, 64), (50, 64))), words)
    arrays = words.class_to_part, words.class_to_object
    whole = loss(output, parts, objects, *arrays)["total"]
    counts = [loss.counts(parts[i : i + 1], objects[i : i + 1], None, (16, 16)) for i in range(2)]
    over = type(counts[0])(*(sum(values) for values in zip(*counts, strict=True)))
    parted = sum(
        loss(
            type(output)(**{k: v[i : i + 1] for k, v in output.items()}),
            parts[i : i + 1],
            objects[i : i + 1],
            *arrays,
            counts=over,
        )["total"]
        for i in range(2)
    )
    torch.testing.assert_close(parted, whole, atol=1e-6, rtol=1e-6)


def test_pixels_outside_the_vocabulary():
    """Repaired, they change nothing; as released, they are background."""
    model = build(small_config(CATSegConfig))
    words, (parts, objects) = random_words(model), labels()
    with torch.no_grad():
        output = model(model.prepare(random_photos((64, 64), (50, 64))), words)
    elsewhere = objects != OUTSIDE
    repaired, released = (CATSegLoss(small_config(CATSegConfig, repairs=repairs)) for repairs in (["outside"], []))
    logits = F.interpolate(output.object_part_logits, parts.shape[-2:], mode="bilinear")
    targets = torch.stack([*(parts == c for c in LARGE), parts < 0], 1).float()
    weights = torch.ones(len(VOCABULARY) + 1)
    weights[-1] = 0.05
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weights[:, None, None]
    torch.testing.assert_close(released(output, parts, objects)["total"], each.mean())
    torch.testing.assert_close(repaired(output, parts, objects)["total"], each.movedim(1, -1)[elsewhere].mean())


def test_empty_terms_have_no_gradient():
    model = build(small_config(reference=True))
    parts, objects = labels()
    terms, _ = step(model, torch.full_like(parts, UNLABELLED), torch.full_like(objects, UNLABELLED))
    assert terms["part"] == 0
    assert terms["object_part"] == 0
    assert terms["total"].isfinite()


def test_texts_are_unit_vectors_whatever_the_chunk(model, monkeypatch):
    from partclipseg.models.partcatseg import towers

    ids = torch.randint(1, 590, (7, 12))
    ids[:, -1] = 599
    ids[2, 5:] = 599
    mask = torch.ones_like(ids)
    mask[2, 6:] = 0
    with torch.no_grad():
        whole = model.encode_text(ids, mask)
        monkeypatch.setattr(towers, "PROMPTS_AT_ONCE", 3)
        torch.testing.assert_close(model.encode_text(ids, mask), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(7))
    with pytest.raises(TypeError, match="input_ids"):
        model.encode_text(None, None)


def test_half_precision(model):
    model.to(torch.bfloat16)
    words, inputs = random_words(model), model.prepare(random_photos((50, 60)))
    assert inputs["pixel_values"].dtype == torch.bfloat16
    (found,) = model.label_maps(inputs, words, [(50, 60)])
    assert found.scores.dtype == torch.float32
    assert found.scores.isfinite().all()


def test_attention_is_refused(model):
    with pytest.raises(TypeError, match="attention"):
        model(model.prepare(random_photos((50, 60))), random_words(model), attention_pairs=torch.zeros(1, 2).long())


@pytest.mark.parametrize(
    ("size", "edges", "expected"),
    [
        ((375, 500), (640, 768), (576, 768)),
        ((500, 333), (640, 768), (768, 511)),
        ((480, 480), (640, 768), (640, 640)),
        ((1000, 100), (640, 768), (768, 77)),
        ((100, 5000), (640, 768), (15, 768)),
        ((1, 5000), (640, 768), (1, 768)),
        ((375, 500), (None, 768), (375, 500)),
    ],
)
def test_first_size(size, edges, expected):
    config = small_config(shortest_edge=edges[0], longest_edge=edges[1])
    assert first_size(size, config) == expected


def test_padding_as_released():
    """Zeros after normalisation, at the right and the bottom, up to a multiple of 32."""
    config = {"shortest_edge": None, "image_size": 64}
    released, repaired = (build(small_config(repairs=repairs, **config)) for repairs in ([], ["padding"]))
    (photo,) = random_photos((64, 40))
    pixels = released.prepare([photo])["pixel_values"][0]
    assert released.prepare([photo])["photo_sizes"].tolist() == [[64, 40]]
    assert (pixels[..., 41:] == 0).all()
    mean, std = column(released.config.image_mean), column(released.config.image_std)
    normalised = (torch.from_numpy(photo).permute(2, 0, 1) - mean) / std
    torch.testing.assert_close(pixels[..., :40], normalised.float(), atol=1e-5, rtol=0)
    stretched = F.interpolate(normalised[None].float(), (64, 64), mode="bilinear")[0]
    torch.testing.assert_close(repaired.prepare([photo])["pixel_values"][0], stretched, atol=1e-5, rtol=0)


def test_small_photos_are_cut_as_released():
    """A photo of fewer pixels than the logits is taken for their first pixels, beside one that is not."""
    model = build(small_config(reference=True, shortest_edge=None))
    sizes = [(10, 14), (40, 90)]
    words, inputs = random_words(model), model.prepare(random_photos(*sizes))
    with torch.no_grad():
        output = model(inputs, words)
    found = model.label_maps(inputs, words, sizes)
    for logits, size, of_rows, whole in zip(
        output.object_part_logits, sizes, found, model.maps_of(output, inputs, words, sizes), strict=True
    ):
        expected, uncut = (resized_probabilities(logits, size, seen).max(0).values for seen in (size, None))
        for scores in (of_rows.scores, whole.scores):
            torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
        assert torch.allclose(expected, uncut) == (size == (40, 90))


def test_training_photos_keep_their_size():
    """A tensor of photos passes as it is: uint8, and the same in 0..1."""
    model = build(small_config())
    photos = torch.from_numpy(np.stack(random_photos((64, 64), (64, 64)))).permute(0, 3, 1, 2)
    inputs, scaled = model.prepare(photos), model.prepare(photos / 255)
    mean, std = column(model.config.image_mean), column(model.config.image_std)
    torch.testing.assert_close(inputs["pixel_values"], ((photos - mean) / std).float(), atol=1e-5, rtol=0)
    for name, value in inputs.items():
        torch.testing.assert_close(scaled[name], value, atol=1e-5, rtol=0)


def test_positions_of_the_trained_size_are_untouched():
    guidance = build(small_config(reference=True)).guidance
    assert isinstance(guidance, DINOGuidance)
    assert guidance.positions(3, 3) is guidance.tower.embeddings.position_embeddings


def test_repeated_layers_all_run(model):
    ran = []
    for layer in model.repeated_layers():
        layer.register_forward_hook(lambda layer, *_: ran.append(layer))
    with torch.no_grad():
        model(model.prepare(random_photos((50, 60))), random_words(model))
    assert set(ran) == set(model.repeated_layers())


def column(values):
    return torch.tensor(values).view(3, 1, 1)
