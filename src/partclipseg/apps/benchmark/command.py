"""``partclipseg benchmark``: published benchmarks that are more than one evaluation, in one command and one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from partclipseg.apps.benchmark.instructpart import InstructPartQuestions
from partclipseg.apps.benchmark.ov_parts import OVParts


@dataclass(frozen=True)
class Benchmark:
    """Score models in a published benchmark of several tasks, beside its figures.

    Examples:
      partclipseg benchmark ov-parts runs/pascal/model runs/ade20k/model --data data
      partclipseg benchmark ov-parts --few-shot runs/few-0 runs/few-1 runs/few-2 --data data/PascalPart116
      partclipseg benchmark instructpart partclipseg-pascal --data data/InstructPart
    """

    which: Annotated[
        Annotated[OVParts, tyro.conf.subcommand("ov-parts", prefix_name=False)]
        | Annotated[InstructPartQuestions, tyro.conf.subcommand("instructpart", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        return self.which.run()
