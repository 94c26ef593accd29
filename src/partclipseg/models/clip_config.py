"""Configuration that all families on CLIP's own towers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from transformers import CLIPConfig, PreTrainedConfig

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clip_ranges import CLIP
from partclipseg.models.clipseg_ranges import Range, check_values, known_values
from partclipseg.models.reading import library_errors


class CLIPTowersConfig(PreTrainedConfig):
    """Configuration of a method on CLIP's two towers whose released code has faults that are repaired by name.

    `clip_config` may be a dictionary. Raises `PartCLIPSegError` for values that no model can be built from.
    """

    clip_config: Any = None
    """Configuration of CLIP's two towers, `transformers.CLIPConfig`."""
    reference: bool = False
    """Compute as released, faults included: no repair is made."""
    repairs: list[str] | tuple[str, ...] | None = None
    """Names from the family's `REPAIRS` of the repairs to make; None: all of them, or none with `reference`."""

    applicable: ClassVar[tuple[str, ...]] = ()
    """Names of the repairs that concern the method."""

    def __post_init__(self, **kwargs: Any) -> None:
        ranges = self.ranges()
        check_values({name: getattr(self, name) for name in ranges if name not in self.sub_configs}, ranges)
        self.clip_config = clip_config(self.clip_config)
        if self.repairs is None:
            self.repairs = () if self.reference else self.applicable
        self.repairs = list(self.repairs)  # as it comes back from a file
        self._complete()
        super().__post_init__(**kwargs)
        self._check()
        if unknown := [name for name in self.repairs if name not in self.applicable]:
            raise PartCLIPSegError(
                f"{self.model_type} has no repair {unknown[0]!r}: choose from {', '.join(self.applicable)}"
            )
        if self.reference and self.repairs:
            raise PartCLIPSegError("reference means without repairs: leave out one of reference and repairs")

    @classmethod
    def ranges(cls) -> Mapping[str, Range]:
        """Return the range of each field."""
        raise TypeError(f"{cls.__name__} does not define ranges")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Make a configuration from a file's content; entries that no model here reads are left out.

        Raises `PartCLIPSegError` that says of each value out of its range what it must be.
        """
        known = {name: value for name, value in values.items() if name in cls.ranges()}
        check_values(known, cls.ranges())
        if isinstance(clip := known.get("clip_config"), Mapping):
            known["clip_config"] = known_values(clip, CLIP)
            check_values(known["clip_config"], CLIP)
        known |= cls._known_towers(known)
        # Transformers has errors of its own, such as for a whole number in place of a fraction.
        with library_errors("the configuration cannot be used"):
            return cls(**known)

    @property
    def text_config(self) -> Any:
        """Configuration of the text tower."""
        return self.clip_config.text_config

    @property
    def vision_config(self) -> Any:
        """Configuration of CLIP's photo tower."""
        return self.clip_config.vision_config

    def repaired(self, name: str) -> bool:
        """Whether the fault of the repair `name` is repaired. Raises `KeyError` for one that is not `applicable`."""
        if name not in self.applicable:
            raise KeyError(name)
        return not self.reference and name in (self.repairs or ())

    # -- what a family defines --------------------------------------------------------------------------------

    @classmethod
    def _known_towers(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of a file's towers beside CLIP that the model reads, after checking their ranges."""
        return {}

    def _complete(self) -> None:
        """Make the configurations of the other towers, and fill in the values that depend on them."""

    def _check(self) -> None:
        """Raise `PartCLIPSegError` for values that do not fit each other."""


def clip_config(value: CLIPConfig | Mapping[str, Any] | None) -> CLIPConfig:
    """Return a configuration of CLIP from what a field holds; None is ViT-B/16."""
    if isinstance(value, CLIPConfig):
        return value
    # transformers' own default is ViT-B/32
    values: dict[str, Any] = {"vision_config": {"patch_size": 16}} if value is None else given_values(value)
    return CLIPConfig(**values)


def given_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the entries that transformers writes and derives again when a configuration is made."""
    derived = ("model_type", "stage_names", "out_features", "out_indices")
    return {key: value for key, value in values.items() if key not in derived}
