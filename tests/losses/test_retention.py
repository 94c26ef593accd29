"""Word retention: zero at the start, a pull back after a move, and gradients to the fine-tuned model only."""

import pytest
import torch

from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.training.retention import WordRetention
from partclipseg.training.words import Tokens

TOKENS = torch.tensor([[598, 5, 599], [598, 9, 599], [598, 17, 599]])


@pytest.fixture
def pair(config):
    config = CLIPSegBaselineConfig(**{**config.to_dict(), "visual_adapter_ratio": 0.0})
    teacher, student = CLIPSegBaseline(config), CLIPSegBaseline(config)
    student.load_state_dict(teacher.state_dict())
    return WordRetention(teacher, Tokens(TOKENS, torch.ones_like(TOKENS)), count=2), student


def test_nothing_to_retain_before_training(pair):
    retention, student = pair
    photos = {"pixel_values": torch.randn(2, 3, 64, 64)}
    loss = retention(student, photos, photos, torch.tensor([0, 2]))
    assert loss.item() == pytest.approx(0, abs=1e-6)  # a difference of two equal float32 sums


def test_it_pulls_the_model_back(pair):
    retention, student = pair
    photos, rows = {"pixel_values": torch.randn(2, 3, 64, 64)}, torch.tensor([0, 2])
    with torch.no_grad():
        student.decoder.upsample[-1].bias += 1
    optimizer = torch.optim.Adam(student.decoder.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(retention(student, photos, photos, rows))
        losses[-1].backward()
        optimizer.step()
    assert 0 <= losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is None for parameter in retention.teacher.parameters())


def test_draws_are_different_words(pair):
    retention, _ = pair
    drawn = [retention.draw(torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(len(set(rows.tolist())) == 2 for rows in drawn)
    assert {row for rows in drawn for row in rows.tolist()} == {0, 1, 2}
