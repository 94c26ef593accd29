"""Label maps against the goldens, and against the definition written out in full."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partclipseg.maps import upsample as upsampling
from partclipseg.maps.label_maps import oracle_obj, pred_all
from partclipseg.maps.upsample import upsample
from partclipseg.models.interface import PartOutput


def reference_output(golden) -> SimpleNamespace:
    """The logits that the reference stored, cut as our models give them."""
    n_parts = len(golden.vocabulary("test").parts)
    logits = golden.tensors["test.logits"]
    return SimpleNamespace(
        part_logits=logits[:, :n_parts],
        object_logits=logits[:, n_parts:],
        object_part_logits=golden.tensors["test.part_object_logits"],
    )


def test_pred_all_is_the_reference_at_every_pixel(golden):
    vocabulary = golden.vocabulary("test")
    scores = golden.tensors["test.pred_all_scores"]
    expected = scores.argmax(0)
    expected[expected == len(vocabulary)] = -1

    (maps,) = pred_all(reference_output(golden), [tuple(golden.meta["photo_size"])], vocabulary.class_to_object)

    assert torch.equal(maps.label_map, expected)
    # 1e-6: one float32 sigmoid and one interpolation, whose order of additions may differ by version.
    torch.testing.assert_close(maps.scores, scores.amax(0), atol=1e-6, rtol=0)
    objects = golden.meta["test_objects"]
    to_reference = torch.tensor([*(objects.index(word) for word in vocabulary.objects), len(objects)])
    assert torch.equal(to_reference[maps.object_map], golden.tensors["test.object_map"])


def test_oracle_obj_is_the_reference_at_every_pixel(golden):
    vocabulary = golden.vocabulary("test")
    labels = golden.tensors["test.object_labels"].unique().tolist()
    present = [golden.meta["test_objects"][label] for label in labels if label != 255]
    indices = [vocabulary.objects.index(word) for word in present if word in vocabulary.objects]
    assert indices, "the case shows no object of the vocabulary"

    (maps,) = oracle_obj(
        reference_output(golden), [tuple(golden.meta["photo_size"])], vocabulary.class_to_object, [indices]
    )

    scores = golden.tensors["test.oracle_scores"]
    assert torch.equal(maps.label_map, scores.argmax(0))
    torch.testing.assert_close(maps.scores, scores.amax(0), atol=1e-6, rtol=0)  # as above


def test_upsampled_part_scores_are_the_reference(golden):
    scores = upsample(reference_output(golden).part_logits[0], tuple(golden.meta["photo_size"])).sigmoid()
    torch.testing.assert_close(scores, golden.tensors["test.part_scores"], atol=1e-6, rtol=0)  # as above


def random_output(seed: int, n_objects: int = 3, n_classes: int = 7, batch: int = 1, gated: bool = True):
    generator = torch.Generator().manual_seed(seed)
    class_to_object = torch.cat(
        [torch.arange(n_objects), torch.randint(n_objects, (n_classes - n_objects,), generator=generator)]
    )
    return class_to_object, SimpleNamespace(
        object_logits=torch.randn(batch, n_objects + 1, 9, 8, generator=generator) if gated else None,
        object_part_logits=torch.randn(batch, n_classes + 1, 9, 8, generator=generator),
    )


def by_definition(output, size, class_to_object):
    """method.md's Pred-All, literally: probabilities times the object gate, argmax over classes and background."""
    scores = upsample(output.object_part_logits[0], size).sigmoid()
    if output.object_logits is not None:
        objects = upsample(output.object_logits[0], size).sigmoid().argmax(0)
        n_objects = output.object_logits.shape[1] - 1
        for channel, owner in enumerate([*class_to_object.tolist(), n_objects]):
            scores[channel][objects != owner] = 0
    return scores.amax(0), scores.argmax(0)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.booleans(),
    st.sampled_from([1, 500, 10_000_000]),
)
def test_pred_all_follows_the_definition_whatever_the_size_and_the_memory(seed, size, gated, at_once):
    class_to_object, output = random_output(seed, gated=gated)
    scores, labels = by_definition(output, size, class_to_object)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsampling, "LOGITS_AT_ONCE", at_once)
        (maps,) = pred_all(output, [size], class_to_object)
    labels[labels == len(class_to_object)] = -1
    assert torch.equal(maps.label_map, labels)
    torch.testing.assert_close(maps.scores, scores, atol=1e-6, rtol=0)  # sigmoid before or after the gather
    foreground = labels >= 0
    assert torch.equal(maps.object_map[foreground], class_to_object[labels[foreground]])
    assert (maps.object_map[~foreground] == -1).all()


def test_photos_of_a_batch_do_not_see_each_other():
    class_to_object, output = random_output(1, batch=3)
    sizes = [(5, 7), (20, 11), (9, 8)]
    together = pred_all(output, sizes, class_to_object)
    for index, size in enumerate(sizes):
        alone = SimpleNamespace(
            object_logits=output.object_logits[index : index + 1],
            object_part_logits=output.object_part_logits[index : index + 1],
        )
        (maps,) = pred_all(alone, [size], class_to_object)
        assert all(torch.equal(a, b) for a, b in zip(maps, together[index], strict=True))


def test_output_that_a_gradient_is_wanted_of():
    class_to_object = np.array([0, 0, 1])
    logits = [torch.randn(1, count, 5, 4, requires_grad=True) for count in (4, 3)]
    output = PartOutput(object_part_logits=logits[0], object_logits=logits[1])
    fixed = PartOutput(*(x.detach() for x in (output.object_part_logits, output.object_logits)))
    for find in (pred_all, partial(oracle_obj, present_objects=[[0, 1]])):
        (ours,), (expected,) = (find(some, [(9, 7)], class_to_object) for some in (output, fixed))
        assert torch.equal(ours.label_map, expected.label_map)
        assert not ours.scores.requires_grad


def test_saturated_logits_keep_their_order():
    """Both probabilities are 1.0 in float32; the greater logit must still win."""
    object_part_logits = torch.tensor([30.0, 40.0, 20.0])[None, :, None, None].expand(1, 3, 4, 4)
    output = SimpleNamespace(object_logits=None, object_part_logits=object_part_logits)
    (maps,) = pred_all(output, [(4, 4)], np.array([0, 0]))
    assert (maps.label_map == 1).all()


def test_oracle_obj_without_objects_is_background():
    class_to_object, output = random_output(2)
    (maps,) = oracle_obj(output, [(6, 5)], class_to_object, [[]])
    assert (maps.label_map == -1).all()
    assert (maps.object_map == -1).all()
    assert (maps.scores == 0).all()


def test_oracle_obj_names_only_the_parts_of_the_objects_given():
    class_to_object, output = random_output(3)
    (maps,) = oracle_obj(output, [(30, 20)], class_to_object, [[0, 2]])
    assert set(class_to_object[maps.label_map].flatten().tolist()) == {0, 2}


def test_bfloat16_logits_are_upsampled_in_float32():
    class_to_object, output = random_output(4)
    rounded = SimpleNamespace(**{k: v.bfloat16() for k, v in vars(output).items()})
    exact = SimpleNamespace(**{k: v.float() for k, v in vars(rounded).items()})
    (maps,) = pred_all(rounded, [(33, 21)], class_to_object)
    (expected,) = pred_all(exact, [(33, 21)], class_to_object)
    assert maps.scores.dtype == torch.float32
    assert torch.equal(maps.label_map, expected.label_map)
