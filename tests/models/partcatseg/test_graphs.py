"""PartCATSeg's passes on a CUDA device: replayed as graphs, and many photos of Oracle-Obj in one.

What is captured is watched on CPUs in test_model.py.
"""

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


def test_named_objects_with_unequal_numbers_of_parts_have_the_maps_of_all_logits(family):
    """On a GPU photos whose counts are close are decoded together: the last class fills the shorter lists."""
    model = build(small_config(family)).to(DEVICE)
    words = Words.of(VOCABULARY, random_words(model).embeddings.to(DEVICE))
    present = [[2], [0], [], [1], [0, 1, 2], [1, 2]]
    sizes = [(40 + 7 * photo, 90 - 5 * photo) for photo in range(len(present))]
    inputs = model.prepare(random_photos(*sizes))
    counts = [int(torch.isin(words.class_to_object.cpu(), torch.tensor(named)).sum()) for named in present]
    assert len(set(counts)) >= 4, "there is something to fill"
    with torch.inference_mode():
        output = model(inputs, words)
    for with_background in (False, True):
        found = model.label_maps(inputs, words, sizes, present, with_background)
        expected = model.maps_of(output, inputs, words, sizes, present, with_background)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.label_map == theirs.label_map).float().mean() > 0.99  # other batch sizes, other kernels
            assert torch.allclose(ours.scores, theirs.scores, atol=1e-4)  # float32 with sums in another order
