"""Configurations of the CLIPSeg baseline and of CLIPSeg without training."""

from __future__ import annotations

from partclipseg.models.clipseg_config import CLIPSegTowersConfig


class CLIPSegBaselineConfig(CLIPSegTowersConfig):
    """The shared configuration; the baseline adds nothing to it."""

    model_type = "clipseg-baseline"


class PlainCLIPSegConfig(CLIPSegTowersConfig):
    """The configuration of transformers' CLIPSeg, with the size and normalisation of photos of its processor."""

    model_type = "clipseg"
