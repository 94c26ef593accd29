"""Held-out scores: those of full decoding, and nothing of the run changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from partclipseg.data.sample import objects_in
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.maps.label_maps import LabelMaps, oracle_obj, pred_all
from partclipseg.models.registry import load_tokenizer
from partclipseg.training.evaluate import score_held_out
from partclipseg.training.recipe import Recipe, as_baseline
from partclipseg.training.start import build_model
from partclipseg.training.words import PromptTokens


@pytest.fixture(params=["partclipseg", "clipseg-baseline"])
def model(request: pytest.FixtureRequest, recipe: Recipe) -> Any:
    model = build_model(recipe if request.param == "partclipseg" else as_baseline(recipe)).train()
    with torch.no_grad():  # regions, as trained models give them, in place of specks
        for layer in model.decoder.modules():
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight.copy_(5 * layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    return model


def full_decoding(model: Any, words: PromptTokens, dataset: Any, mixed: bool) -> dict[str, list[torch.Tensor]]:
    """The label maps of every class decoded, photo by photo in one batch."""
    samples = [dataset[index] for index in range(len(dataset))]
    sizes = [sample.part_labels.shape for sample in samples]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        output = model(model.prepare([sample.image for sample in samples]), words.encode(model))
        present = [objects_in(sample.object_labels) for sample in samples]
        maps: dict[str, list[LabelMaps]] = {
            "pred_all": pred_all(output, sizes, words.class_to_object),
            "oracle_obj": oracle_obj(output, sizes, words.class_to_object, present),
        }
    return {protocol: [found.label_map for found in of_protocol] for protocol, of_protocol in maps.items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_and_labels_are_those_of_full_decoding(
    precision: str, model: Any, recipe: Recipe, squares_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(recipe.start)
    words = PromptTokens.tokenise(model, tokenizer, squares_dataset.vocabulary)
    expected = full_decoding(model.eval(), words, squares_dataset, precision == "bfloat16")
    model.train()
    seen: dict[str, list[torch.Tensor]] = {"pred_all": [], "oracle_obj": []}
    update = Evaluator.update

    def recorded(self: Evaluator, prediction: torch.Tensor, *rest: Any, **options: Any) -> bool:
        seen[self.protocol].append(prediction)
        return update(self, prediction, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "update", recorded)
        scores = score_held_out(
            model, tokenizer, words, squares_dataset, batch_size=len(squares_dataset), precision=precision
        )
    for protocol, maps in expected.items():
        for ours, theirs in zip(seen[protocol], maps, strict=True):
            assert torch.equal(ours, theirs), protocol
        evaluator = Evaluator(squares_dataset.vocabulary, protocol=protocol, boundary=None)  # pyright: ignore
        for index, label_map in enumerate(maps):
            evaluator.update(label_map, squares_dataset[index].part_labels, key=str(index))
        assert getattr(scores, protocol) == evaluator.running_iou()
    assert len({int(label) for maps in expected.values() for found in maps for label in found.unique()}) > 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scoring_leaves_the_run_as_it_is(precision: str, model: Any, recipe: Recipe, squares_dataset: Any) -> None:
    tokenizer = load_tokenizer(recipe.start)
    words = PromptTokens.tokenise(model, tokenizer, squares_dataset.vocabulary)
    state = torch.get_rng_state()
    score_held_out(model, tokenizer, words, squares_dataset, batch_size=4, precision=precision)
    assert torch.equal(torch.get_rng_state(), state), "random numbers of the run are not drawn"
    assert model.training
    loss = model(model.prepare([squares_dataset[0].image]), words.encode(model)).object_part_logits.sum()
    loss.backward()  # inference tensors that were kept would fail here
