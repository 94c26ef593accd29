"""PartCATSeg's passes replayed as CUDA graphs. What is captured is watched on CPUs in test_model.py."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tests.models.partcatseg.small import VOCABULARY, build, random_photos, random_words, small_config

from partclipseg.models.interface import Words
from partclipseg.models.partcatseg.config import PartCATSegConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda"
SIZES = [(40, 90), (83, 50)]
QUESTIONS = [(None, False), ([[0], [2, 1]], True)]


def test_replayed_maps_equal_computed_ones(family, monkeypatch):
    """Photos and questions in turn, other filters, then weights that change and move: all is as computed anew."""
    model = build(small_config(family)).to(DEVICE)
    compute, passes = model.class_volume, []

    def counted(*arguments):
        passes.append(1)
        return compute(*arguments)

    monkeypatch.setattr(model, "class_volume", counted)

    def compare(rounds: int = 4) -> list[int]:
        """Ask in turn, and return the number of passes that each round of captured questions ran."""
        words = Words.of(VOCABULARY, random_words(model).embeddings.to(DEVICE))
        ran = []
        for turn in range(rounds):
            inputs = model.prepare([photo // (turn + 1) for photo in random_photos(*SIZES)])
            with monkeypatch.context() as patch:
                patch.setattr(type(model), "graphs", lambda self: None)
                expected = [model.label_maps(inputs, words, SIZES, *question) for question in QUESTIONS]
            passes.clear()
            found = [model.label_maps(inputs, words, SIZES, *question) for question in QUESTIONS]
            ran.append(len(passes))
            for ours, theirs in zip(chain(*found), chain(*expected), strict=True):
                # The same kernels; at borders a class may win by the last digit, of 8 bits in bfloat16.
                exact = model.dtype == torch.float32
                assert (ours.label_map == theirs.label_map).float().mean() > (0.99 if exact else 0.9)
                close = (ours.scores - theirs.scores).abs() < (1e-4 if exact else 3e-2)
                assert close.float().mean() > 0.99
        return ran

    def change_weights():
        with torch.no_grad():
            model.aggregator.head.weight.neg_()

    ran = compare()
    assert ran[0] == len(QUESTIONS), "computed as they are at first"
    assert ran[1] > ran[0], "captured when they come again"
    assert ran[2:] == [0, 0], "replayed from then on"
    model.config.change(attention_filter=True, pair_affinity=family is PartCATSegConfig)
    assert compare()[-1] == 0
    for change in (change_weights, model.bfloat16, lambda: model.cpu().to(DEVICE)):
        change()
        assert compare(2)[0] > 0, "old graphs are dropped"
