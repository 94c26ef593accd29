"""Numbers and their nouns."""

from __future__ import annotations

import numpy as np
import pytest

from partclipseg.counts import count_of, noun


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ["photo"], "0 photos"),
        (1, ["photo"], "1 photo"),
        (2000, ["photo"], "2,000 photos"),
        (np.int64(1), ["class"], "1 class"),
        (np.int64(12345), ["class"], "12,345 classes"),
        (1, ["category", "categories"], "1 category"),
        (3, ["category", "categories"], "3 categories"),
        (1.0, ["second"], "1 second"),
        (60.0, ["second"], "60 seconds"),
        (0.5, ["second"], "0.5 seconds"),
        (float("inf"), ["second"], "inf seconds"),
        (1, ["file is", "files are"], "1 file is"),
        (2, ["file is", "files are"], "2 files are"),
    ],
)
def test_number_and_noun_agree(number: float, words: list[str], said: str) -> None:
    assert count_of(number, *words) == said
    assert said.endswith(f" {noun(number, *words)}")
