"""Scores of answers to InstructPart's questions: means by hand, with empty parts and answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg import open_dataset
from partclipseg.evaluation.referring import score_questions
from partclipseg.inference.segmenter import PromptTooLongError

PHOTOS = (
    # pixels of ten that are the part, and that the answer is; None: the question is too long
    ((0, 4), (0, 4)),
    ((0, 4), (2, 6)),
    ((0, 4), (0, 0)),
    ((0, 0), (0, 0)),
    ((0, 0), (0, 2)),
    ((0, 2), None),
    ((0, 0), None),
)


def write(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / "test" / folder).mkdir(parents=True)
    entries = []
    for place, ((start, end), _) in enumerate(PHOTOS):
        mask = np.zeros((1, 10), np.uint8)
        mask[0, start:end] = 255
        Image.fromarray(mask).save(root / f"test/masks/p{place}-kettle-lid.png")
        Image.new("RGB", (10, 1), (place, 0, 0)).save(root / f"test/images/p{place}-kettle-lid.png")
        entries.append({"image_path": f"p{place}.jpg", "part_list": [{"object": "kettle", "part": "lid"}]})
    (root / "test" / "data_test.json").write_text(json.dumps(entries))


def answer(image: np.ndarray, words: Any) -> Any:
    found = PHOTOS[int(image[0, 0, 0])][1]
    if found is None:
        raise PromptTooLongError("'lid' is 90 tokens long, more than 77: use a shorter word")
    labels = np.full((1, 10), -1)
    labels[0, slice(*found)] = 0
    return SimpleNamespace(label_map=labels)


def test_empty_answers_to_empty_parts_are_right_as_in_lisa(tmp_path: Path) -> None:
    write(tmp_path)
    asker: Any = answer
    scores = score_questions(asker, open_dataset("instructpart", tmp_path))
    assert (scores.questions, scores.too_long) == (5, 2)
    assert scores.giou == pytest.approx(100 * (1 + 2 / 6 + 0 + 1 + 0 + 0 + 0) / 7)
    assert scores.ciou == pytest.approx(100 * 6 / (4 + 6 + 4 + 0 + 2 + 2 + 0))
    assert scores.precision_50 == pytest.approx(100 * 2 / 7)


@pytest.mark.parametrize(("letters", "too_long"), [(200, 0), (201, 7)])
def test_a_sentence_is_asked_whole_or_not_at_all(tmp_path: Path, letters: int, too_long: int) -> None:
    write(tmp_path)
    path, sentence = tmp_path / "test" / "data_test.json", "How do I lift it? ".ljust(letters, "x")
    entries = json.loads(path.read_text())
    for entry in entries:
        entry["part_list"][0]["instruction"] = [sentence]
    path.write_text(json.dumps(entries))
    asked = []

    def asker(image: np.ndarray, words: Any) -> Any:
        asked.extend(words.parts)
        return SimpleNamespace(label_map=np.full((1, 10), -1))

    model: Any = asker
    scores = score_questions(model, open_dataset("instructpart", tmp_path), "instruction")
    assert (scores.questions, scores.too_long) == (7 - too_long, too_long)
    assert set(asked) <= {sentence}
