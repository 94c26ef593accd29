"""Settings of a training run of ZSSeg+: there are none, since only released files are run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from partclipseg.models.settings import MethodSettings


@dataclass(frozen=True)
class ZSSegSettings(MethodSettings):
    """Name of the family; ZSSeg+ is not trained here."""

    family: ClassVar[str] = "zsseg"
