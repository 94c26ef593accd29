"""Options that several commands share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from partclipseg.errors import UsageError
from partclipseg.grammar import CATALOGS
from partclipseg.models.number_types import PREDICTION_TYPES, PredictionType

if TYPE_CHECKING:
    from partclipseg.models.prompting import Prompting


def optional(metavar: str, text: str | None = None) -> Any:
    """Return an option that may be left out: its text says what happens then, so no default is shown.

    `text` replaces the field's docstring.
    """
    return tyro.conf.arg(metavar=metavar, help=text, help_behavior_hint="")


def number(text: str) -> Any:
    """Return an option that takes a whole number."""
    return tyro.conf.arg(metavar="N", help=text)


VocabularyOption = Annotated[
    str | None,
    optional(
        "WORDS",
        'What to look for: text such as "dog: head, torso, leg, tail; bus: body, wheel" with all large parts, '
        '"any: handle" for a part of any object, a file (YAML, JSON, or one "dog\'s ear" a line), '
        f"or {', '.join(CATALOGS)}. Left out: the words that the model came with.",
    ),
]
_MODEL = "A name that `partclipseg models` lists, a model's directory, or its name on the Hugging Face hub"
ModelOption = Annotated[
    str | None,
    optional("NAME|DIR", f"{_MODEL}. Left out: the built-in model, which knows rendered scenes only, not photos."),
]
ModelArgument = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help=f"{_MODEL}; partshapes is the built-in model.")
]
Device = Annotated[
    str | None, optional("NAME", "cpu, cuda, cuda:1, mps and so on. Left out: CUDA, else Apple's MPS, else the CPU.")
]
Dtype = Annotated[
    PredictionType | None,
    optional(
        "|".join(PREDICTION_TYPES),
        "Number type of the model's arithmetic. Left out: bfloat16 on GPUs that have it, else float32. int8 is "
        "for CPUs.",
    ),
]
BatchSize = Annotated[int, number("Photos that go through the model together.")]
Zoom = Annotated[
    bool,
    tyro.conf.arg(
        help="Look a second time, at crops around small objects at the photo's full resolution: for small parts. "
        "Each such object takes nearly as long as a photo."
    ),
]

Objects = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="WORD...",
        help_behavior_hint="",
        help="Only if you know what is in every photo: these objects.\n"
        "Their parts then share all pixels, and there is no background.",
    ),
]
MaxPixels = Annotated[int, number("Photos with more pixels than this are refused before they are decoded.")]
MinScore = Annotated[
    float,
    tyro.conf.arg(metavar="P", help="Parts whose score, 0 to 1, is lower than this become background."),
]
MinPartProbability = Annotated[
    float | None,
    optional(
        "P",
        "A pixel whose best part has a lower probability, 0 to 1, belongs to the object without a part. Left out: 0.3, "
        "or 0 with --objects; clipseg has its --threshold instead.",
    ),
]


@dataclass(frozen=True)
class Asking:
    """Only for a CLIPSeg that was not trained on parts, such as --model clipseg:"""

    prompt: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT...", help_behavior_hint="")] = ()
    """Prompt of each object-part, such as "the {part} of the {object}"; several are averaged.
    Left out: "{object} {part}"."""
    threshold: Annotated[float | None, optional("P")] = None
    """A pixel is background where no class reaches this probability, 0 to 1. Left out: 0.5."""
    object_gate: bool = True
    """Let the object words decide first which object a pixel belongs to."""

    def prompting(self) -> Prompting | None:
        """Return the prompting that the options ask for; None if they ask for none.

        Raises `UsageError` for a wrong prompt or threshold.
        """
        from partclipseg.models.prompting import Prompting

        given: dict[str, Any] = {} if self.object_gate else {"object_gate": False}
        if self.prompt:
            given["prompts"] = self.prompt
        if self.threshold is not None:
            given["threshold"] = self.threshold
        return Prompting(**given) if given else None


Ask = Annotated[Asking, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="plain CLIPSeg")]
"""`Asking` as a field of a command: its options stand among the command's own."""


def check_probability(**options: float | None) -> None:
    """Raise `UsageError` for the first option whose value is no probability; None is not given."""
    for name, value in options.items():
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"--{name.replace('_', '-')} must be from 0 to 1, not {value}")


def check_least(**options: tuple[float | None, float]) -> None:
    """Raise `UsageError` for the first option whose value, given with its minimum, is below that; None is not given."""
    for name, (value, least) in options.items():
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")


def check_positive(**options: float) -> None:
    """Raise `UsageError` for the first option whose value is not greater than 0."""
    for name, value in options.items():
        if not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be greater than 0, not {value}")


@dataclass(frozen=True)
class OwnData:
    """Only for your own data:"""

    object: Annotated[str | None, optional("WORD")] = None
    """The object that all parts belong to, where the files do not say it, such as: car."""
    mapping: Annotated[Path | None, optional("FILE")] = None
    """YAML or JSON file with the meaning of each class: `left_ear: dog's ear`, or `dog: [ear, tail]`."""
    annotations: Annotated[Path | None, optional("FILE.json")] = None
    """coco: the annotation file, where it has no usual name."""
    images: Annotated[Path | None, optional("DIR")] = None
    """coco: the folder of the photos, if they are neither beside the annotation file nor in --data."""
    classes: Annotated[Path | None, optional("FILE")] = None
    """index-png: the class list, where it is not classes.txt, .yaml or .json in --data."""

    def given(self) -> dict[str, Any]:
        """Return the options that were set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


Own = Annotated[OwnData, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="own-data")]
"""`OwnData` as a field of a command: its options stand among the command's own."""
