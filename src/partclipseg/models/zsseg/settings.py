"""Settings of a training run of ZSSeg+."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from partclipseg.losses.config import SetLossConfig
from partclipseg.models.settings import MethodSettings


@dataclass(frozen=True)
class ZSSegSettings(MethodSettings):
    """Settings of a training run of ZSSeg+: its sizes, its repairs and its loss."""

    family: ClassVar[str] = "zsseg"

    sizes: Literal["released", "tiny"] = "released"
    """Sizes of a new model: the released ones, or tiny ones for the towers of PartShapes. A start of the same method
    brings its own."""
    maskformer: str = ""
    """Weights for stage 1 to start from: a `.pth` file of detectron2's MaskFormer with ResNet-50. A new model of the
    released sizes needs one, since the statistics of its batch norms are not trained."""
    reference: bool = False
    """Train as released, faults included."""
    repairs: tuple[str, ...] | None = None
    """Names of the repairs to make: attention, object_vector, oracle (docs/zsseg.md says what they are). None keeps
    those of the start, or all for a new model."""
    loss: SetLossConfig = field(default_factory=SetLossConfig)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Weights of the loss terms."""
