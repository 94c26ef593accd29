"""Settings of a training run of CAT-Seg and PartCATSeg."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from partclipseg.models.settings import MethodSettings


@dataclass(frozen=True)
class CATSegSettings(MethodSettings):
    """Settings of a training run of CAT-Seg: its start, its sizes and its loss."""

    family: ClassVar[str] = "catseg"

    guidance: str = ""
    """DINOv2 weights to start from: a directory or hub name such as "facebook/dinov2-small", or the `.pth` file of
    facebookresearch/dinov2; "" takes those of the start, where it has them."""
    sizes: Literal["released", "tiny"] = "released"
    """Sizes of a new model: the released ones, or tiny ones for the towers of PartShapes. A start of the same method
    brings its own."""
    reference: bool = False
    """Train as released, defects included."""
    repairs: tuple[str, ...] | None = None
    """Names of the repairs to make, see `config.REPAIRS`; None keeps those of the start, or all for a new model."""
    attention_filter: bool | None = None
    """Mix the first costs by what CLIP's blocks attend to, after HOPS; None keeps what the start does, or off."""

    @property
    def needs_guidance(self) -> bool:
        return not self.guidance


@dataclass(frozen=True)
class PartCATSegSettings(CATSegSettings):
    """Settings of a training run of PartCATSeg: its start, its sizes and its loss."""

    family: ClassVar[str] = "partcatseg"

    pair_affinity: bool | None = None
    """Mix the costs of object-parts by a doubly stochastic affinity, after HOPS; None as for attention_filter."""
