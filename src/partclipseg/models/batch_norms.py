"""Backbones whose batch norms are not trained."""

from __future__ import annotations

from typing import Self

from torch import nn


class FixedBatchNorms(nn.Module):
    """Base class of modules whose batch norms keep their statistics, in training too, as published backbones do."""

    def batch_norms(self) -> list[nn.BatchNorm2d]:
        """List the batch norms."""
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def freeze_batch_norms(self) -> None:
        """Fix the batch norms' scales and shifts; `train` keeps their statistics fixed."""
        for norm in self.batch_norms():
            norm.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but the batch norms."""
        super().train(mode)
        for norm in self.batch_norms():
            norm.eval()
        return self
