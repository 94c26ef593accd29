"""Description of a labelling run: photos, batches, options and output files.

A batch is the unit of work and always holds the same photos, so that a continued run makes the same files to the
byte: the last digits of the arithmetic may depend on the photos in a batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from partclipseg.apps.instance_options import InstanceOptions, LoadedInstances
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.files import full_path
from partclipseg.formats.format import Place
from partclipseg.formats.registry import data_set_formats
from partclipseg.inference.options import SegmentOptions
from partclipseg.models.prompting import Prompting
from partclipseg.vocabulary import Vocabulary

BulkFormat = str
"""Name of one of `data_set_formats`."""

OwnFile = str
"""One of a photo's own files: its format, and for one of several the file's name too: ``soft-masks/dog_ear.png``."""

MANIFEST, OPTIONS = "manifest.jsonl", "options.json"
"""State of a run in the output folder, beside the folder `WRITTEN` with the digests of other files."""

PhotoBatch = list[LabelPhoto]

ManifestRecord = dict[str, Any]
"""A line of the manifest: photo, status, and either error or width, height, segments with RLE masks, and files.

`files` has the digest of each file of the photo as it was written; `corrected` names the format of a person's file
that the record was made from; `content` is the digest of the photo's file; `warning` holds warnings of the photo
reader, such as that it is nearly black.
"""


@dataclass(frozen=True)
class BulkJob:
    """Options of a labelling run; workers on other machines receive them unchanged."""

    folder: Path
    output: Path
    vocabulary: Vocabulary
    formats: tuple[BulkFormat, ...]
    model: str | None = None
    objects: tuple[str, ...] = ()
    zoom: bool = False
    min_score: float = 0.0
    min_part_probability: float | None = None
    prompting: Prompting | None = None
    """Prompts and threshold of a plain CLIPSeg."""
    dtype: str = "float32"
    batch_size: int = 8
    max_pixels: int = 80_000_000
    fast_reading: bool = False
    """Decode large JPEG files at a reduced size, and resize by a faster filter."""
    overwrite: bool = False
    """Replace files that a person made or changed."""
    find: InstanceOptions = field(default_factory=InstanceOptions)
    """Options about instances; None if they are not asked for."""

    def own_files(self, photo: LabelPhoto) -> dict[BulkFormat, Path]:
        """Return the path of the photo's own file in each format that has a single one."""
        return {
            name: self.output / kind.folder / f"{photo.stem}{kind.extension}"
            for name, kind in data_set_formats().items()
            if kind.folder is not None and kind.class_files is None and name in self.formats
        }

    @cached_property
    def class_files(self) -> dict[BulkFormat, tuple[str, ...]]:
        """Return the name of each class's file in the formats that have a folder for each photo."""
        return {
            name: tuple(kind.class_files(self.vocabulary))
            for name, kind in data_set_formats().items()
            if kind.class_files is not None and name in self.formats
        }

    def own_folders(self, photo: LabelPhoto) -> dict[BulkFormat, Path]:
        """Return the photo's own folder in each format of `class_files`."""
        return {name: self.output / str(data_set_formats()[name].folder) / photo.stem for name in self.class_files}

    def class_paths(self, photo: LabelPhoto, classes: Iterable[int]) -> dict[OwnFile, Path]:
        """Return the paths of the files of some classes, by index, in the photo's own folders, in label order."""
        return {
            f"{name}/{self.class_files[name][index]}": folder / self.class_files[name][index]
            for name, folder in self.own_folders(photo).items()
            for index in sorted(set(classes))
        }

    def place(self, name: BulkFormat, photo: LabelPhoto) -> Place:
        """Return the place of the photo's own file in the format `name`."""
        return Place(self.own_files(photo)[name].parent, self.folder / photo.path, self.folder)

    def segment_options(self, instances: LoadedInstances) -> SegmentOptions:
        """Return the options of `PartSegmenter.segment_many`; `instances` is what `find` names, loaded."""
        return {
            "objects": self.objects or None,
            "zoom": self.zoom,
            "min_part_probability": self.min_part_probability,
            "instances": instances.instances,
            "outlines": instances.outlines,
            "rest": instances.rest,
            "batch_size": self.batch_size,
            "max_pixels": self.max_pixels,
            "keep_photo": False,  # no format of a labelled data set shows it; `report` reads those of its sample anew
            "fast_reading": self.fast_reading,
        }

    def options(self, weights: str, instances: LoadedInstances) -> dict[str, Any]:
        """Return everything that the results depend on.

        `weights` is a fingerprint of the model's weights, `instances` what `find` names, loaded.
        """
        from partclipseg.models.registry import is_built_in

        return {
            "folder": str(self.folder.resolve()),
            "model": "the built-in model" if self.model is None or is_built_in(self.model) else full_path(self.model),
            "weights": weights,
            "vocabulary": list(self.vocabulary.names),
            "objects": list(self.objects),
            "zoom": self.zoom,
            "min_score": self.min_score,
            "min_part_probability": "default" if self.min_part_probability is None else str(self.min_part_probability),
            **({} if self.prompting is None else {"prompting": str(self.prompting)}),
            **self.find.describe(instances),
            "formats": list(self.formats),
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "max_pixels": self.max_pixels,
            **({"fast_reading": True} if self.fast_reading else {}),
        }
