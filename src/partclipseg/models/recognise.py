"""Tells by the names of its tensors which method a released checkpoint belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable

PARTCLIPSEG = "PartCLIPSeg"
CLIPSEG = "CLIPSeg"

_KINDS = (
    (PARTCLIPSEG, r"partclipseg_model\."),
    (CLIPSEG, r"clipseg_model\."),
    ("PartCATSeg", r"(module\.)?(sem_seg_head\.predictor\.)?transformer\.conv_proj_feat\."),
    ("ZSSeg+", r"clip_adapter\.|prompt_learner\."),
    ("CAT-Seg", r"(module\.)?sem_seg_head\.predictor\.(clip_model\.|transformer\.conv1\.)"),
    ("MaskFormer", r"sem_seg_head\.(pixel_decoder|predictor\.query_embed)\."),
)
"""Method, and the beginning of a tensor's name that only its files have; the first that matches applies."""


def recognise(names: Iterable[str]) -> str | None:
    """The method whose released files name their tensors so; None where none is known to."""
    names = list(names)
    for kind, pattern in _KINDS:
        if any(re.match(pattern, name) for name in names):
            return kind
    return None
