"""Parity with tensors that the reference implementation computed (float32, CPU)."""

import torch
from torch.nn import functional as F

from partclipseg.models.clipseg_weights import foreign_names
from partclipseg.models.partclipseg.foreign import REFERENCE_PREFIX

# An independent float32 computation of the same formulas differs by 2e-6; 1e-5 leaves room for another order of
# summation (our halves of the merges are added, the reference concatenates).
TOLERANCE = {"atol": 1e-5, "rtol": 0}


def test_training_forward_pass(golden):
    model, inputs = golden.model(), golden.inputs("train")
    batch = len(inputs["pixel_values"])
    count = len(golden.vocabulary("train")) + len(golden.meta["train_objects_with_parts"])
    pairs = torch.cartesian_prod(torch.arange(batch), torch.arange(count))
    with torch.no_grad():
        output = model(inputs, golden.words(model, "train"), pairs)
    torch.testing.assert_close(
        torch.cat([output.part_logits, output.object_logits], 1), golden.tensors["train.logits"], **TOLERANCE
    )
    torch.testing.assert_close(output.object_part_logits, golden.tensors["train.part_object_logits"], **TOLERANCE)
    torch.testing.assert_close(output.attention, golden.tensors["train.attentions"].flatten(0, 1), **TOLERANCE)


def test_inference_forward_pass(golden):
    model, inputs = golden.model(), golden.inputs("test")
    with torch.no_grad():
        output = model(inputs, golden.words(model, "test"))
    torch.testing.assert_close(
        torch.cat([output.part_logits, output.object_logits], 1), golden.tensors["test.logits"], **TOLERANCE
    )
    torch.testing.assert_close(output.object_part_logits, golden.tensors["test.part_object_logits"], **TOLERANCE)


def test_inference_attention(golden):
    """The maps that the reference draws: the mean over all rows of what the part's own rows attend to."""
    model, vocabulary = golden.model(), golden.vocabulary("test")
    classes = [index for index, pair in enumerate(vocabulary.object_parts) if pair.object == "dog"]
    with torch.no_grad():
        pairs = torch.tensor([[0, index] for index in classes])
        output = model(golden.inputs("test"), golden.words(model, "test"), pairs)
    for index, attention in zip(classes, output.attention, strict=True):
        expected = golden.tensors[f"test.attention_map.avg_part_dog_{vocabulary.object_parts[index].part}"]
        labels = golden.tensors["test.part_labels"][None, None].float()
        mask = F.interpolate(F.interpolate(labels, output.part_logits.shape[-2:]), expected.shape[-2:]) == index
        rows = attention[1:, 1:] * mask.flatten()[:, None]
        torch.testing.assert_close(rows.mean(0).view_as(expected), expected, **TOLERANCE)


def test_the_intended_object_lookup_differs(golden):
    model, inputs = golden.model(), golden.inputs("test")
    model.config.reference_object_lookup = False
    with torch.no_grad():
        output = model(inputs, golden.words(model, "test"))
    expected = golden.tensors["test.part_object_logits"]
    assert (output.object_part_logits - expected).abs().max() > 1e-2
    # Only the composed classes read the object word; background does not.
    torch.testing.assert_close(output.object_part_logits[:, -1], expected[:, -1], **TOLERANCE)


def test_trained_parameters_are_the_published_ones(golden):
    model = golden.model()
    model.train_published_parameters(background=False)
    trained = {
        REFERENCE_PREFIX + theirs
        for ours, parameter in model.named_parameters()
        if parameter.requires_grad
        for theirs in foreign_names(ours, model.config)
    }
    assert trained == set(golden.meta["requires_grad"])
    model.train_published_parameters()
    assert model.background.requires_grad
