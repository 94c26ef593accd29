"""Command-line options that ask for instances: what says where objects are, and who draws their outlines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from partclipseg.apps.options import check_probability, optional
from partclipseg.errors import UsageError
from partclipseg.files import full_path, is_file
from partclipseg.kept_files import file_digest

if TYPE_CHECKING:
    from partclipseg.formats.format import Format


class LoadedInstances(NamedTuple):
    """Arguments of `PartSegmenter` about instances, with files read and models loaded."""

    instances: Any = None
    outlines: Any = None
    rest: bool = False

    def check_photos(self, photos: Iterable[str | Path]) -> None:
        """Raise `UsageError` where a file of objects has one entry for two of a run's photos."""
        if self.instances is not None:
            from partclipseg.instances.given import GivenObjects

            if isinstance(self.instances, GivenObjects):
                self.instances.check_photos(map(str, photos))


@dataclass(frozen=True)
class InstanceOptions:
    """Options that tell several objects of one kind apart:"""

    instances: Annotated[str | None, optional("components|DIR|NAME|FILE.json")] = None
    """Tell the objects apart and say whose each part is. components: connected regions are objects. Or a detector, by
    directory or hub name, such as IDEA-Research/grounding-dino-tiny; partshapes-detector is built in, for rendered
    scenes only. Or a file: COCO annotations, or boxes as {"photo.jpg": [["dog", x0, y0, x1, y1]]}. Each object takes
    about a fifth of a photo's time."""
    instance_threshold: Annotated[float | None, optional("P")] = None
    """Minimum score, 0 to 1, of what a detector finds. Left out: the detector's own."""
    outlines: Annotated[str | None, optional("DIR|NAME")] = None
    """A model that outlines objects whose boxes are known, such as facebook/sam2.1-hiera-tiny."""
    rest: bool = False
    """Keep parts that belong to no object found; with a detector or a file that costs a look at the whole photo."""

    @property
    def asked(self) -> bool:
        """Whether instances are asked for."""
        return self.instances is not None

    @property
    def uses_built_in(self) -> bool:
        """Whether the built-in detector is asked for."""
        from partclipseg.models.registry import BUILT_IN_DETECTOR, is_built_in

        return self.instances is not None and is_built_in(self.instances, BUILT_IN_DETECTOR)

    def check(self, formats: Iterable[str], known: Mapping[str, Format], zoom: bool) -> None:
        """Raise `UsageError` for options that contradict each other, and for an unknown format."""
        from partclipseg.formats.registry import chosen_formats

        chosen_formats(formats, known, self.asked)
        given = [
            name
            for name, value in (
                ("--instance-threshold", self.instance_threshold is not None),
                ("--outlines", self.outlines is not None),
                ("--rest", self.rest),
            )
            if value
        ]
        if given and not self.asked:
            raise UsageError(f"{given[0]} is for instances: say where objects are by --instances, or leave it out")
        check_probability(instance_threshold=self.instance_threshold)
        if zoom and self.asked:
            raise UsageError("--instances looks at crops already: leave --zoom out")

    def load(self, device: str | None) -> LoadedInstances:
        """Read the file or load the models that are named.

        Raises `UsageError` for a file that cannot be read, `PartCLIPSegError` for a model that cannot be loaded.
        """
        if self.instances is None:
            return LoadedInstances()
        from partclipseg.instances.sources import open_instance_source

        source = open_instance_source(self.instances, self.instance_threshold, device)
        if self.outlines is None:
            return LoadedInstances(source, None, self.rest)
        from partclipseg.instances.outlines import Outliner

        return LoadedInstances(source, Outliner.from_pretrained(self.outlines, device=device), self.rest)

    def absolute(self) -> InstanceOptions:
        """Return the options with absolute paths, for workers that run elsewhere."""
        return replace(self, instances=self._full(self.instances), outlines=self._full(self.outlines))

    def describe(self, loaded: LoadedInstances) -> dict[str, Any]:
        """Return what results depend on: names, and digests of a file's content or of a model's weights."""
        if self.instances is None:
            return {}
        named: dict[str, Any] = {"instances": self._full(self.instances), "rest": self.rest}
        if is_file(self.instances):
            named["objects_file"] = file_digest(Path(self.instances))
        if self.instance_threshold is not None:
            named["instance_threshold"] = str(self.instance_threshold)
        if self.outlines is not None:
            named["outlines"] = self._full(self.outlines)
        from partclipseg.models.fingerprint import model_fingerprint

        for key, some in (("detector_weights", loaded.instances), ("outliner_weights", loaded.outlines)):
            if (model := getattr(some, "model", None)) is not None:
                named[key] = model_fingerprint(model)
        return named

    def _full(self, name: str | None) -> str | None:
        from partclipseg.instances.components import COMPONENTS

        return name if name is None or name == COMPONENTS else full_path(name)


BUILT_IN_REMARK = "detector: the built-in one, which knows rendered scenes only, not photos"
"""Line about the detector of a run that uses the built-in one."""

FindInstances = Annotated[InstanceOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="instance")]
"""`InstanceOptions` as a field of a command: its options stand among the command's own."""
