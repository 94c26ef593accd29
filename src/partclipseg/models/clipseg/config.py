"""Configuration of the CLIPSeg baseline."""

from __future__ import annotations

from partclipseg.models.clipseg_config import CLIPSegTowersConfig


class CLIPSegBaselineConfig(CLIPSegTowersConfig):
    """The shared configuration; the baseline adds nothing to it."""

    model_type = "clipseg-baseline"
