"""Settings of a training run of CAT-Seg and PartCATSeg."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from partclipseg.checks import check_side, require
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
    """Names of the repairs to make: background, copies, oracle, padding, positions, divergence, outside
    (docs/partcatseg.md says what they are; CAT-Seg has neither copies nor divergence). None keeps those of the start,
    or all for a new model."""
    guidance_image_size: int | None = None
    """Height and width of the guidance tower's input, in pixels: a larger one shows it more patches. None keeps that of
    the start or of the sizes."""
    guidance_share: float = 0.01
    """Share of the learning rate at which the guidance tower learns, from above 0 to 1; published 0.01."""
    own_size: bool = False
    """Take photos at their own size, as the released code does on PartImageNet; False keeps what the start does, or, as
    published elsewhere, first resizes them to a shortest edge."""
    patch_attention: bool | None = None
    """Keep the attention of CLIP's last block, as for a CLIP whose patches were taught words; None keeps what the start
    does, or, as published, leaves it out."""
    attention_filter: bool | None = None
    """Mix the first costs by what CLIP's blocks attend to, after HOPS; None keeps what the start does, or off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.guidance_share <= 1, f"guidance_share {self.guidance_share} must lie above 0 and be at most 1"
        )
        if self.guidance_image_size is not None:
            check_side(self.guidance_image_size, "guidance_image_size")

    @property
    def towers(self) -> tuple[str, ...]:
        return ("backbone", "aggregation") if self.guidance else ("backbone", "guidance", "aggregation")

    @property
    def switches(self) -> dict[str, bool | None]:
        """Fields of the configuration that a run may switch in its start; None leaves one as it is."""
        return {"patch_attention": self.patch_attention, "attention_filter": self.attention_filter}


@dataclass(frozen=True)
class PartCATSegSettings(CATSegSettings):
    """Settings of a training run of PartCATSeg: its start, its sizes and its loss."""

    family: ClassVar[str] = "partcatseg"

    pair_affinity: bool | None = None
    """Mix the costs of object-parts by a doubly stochastic affinity, after HOPS; None keeps what the start does, or
    off."""

    @property
    def switches(self) -> dict[str, bool | None]:
        return {**super().switches, "pair_affinity": self.pair_affinity}
