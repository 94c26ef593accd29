"""Shared by recipes whose source lists its photos in COCO JSON, a file a split, and whose photos stay as they are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partclipseg.data.prepare.recipe import Layout, Outcome, PhotoMode, photo_size, source_state
from partclipseg.data.prepare.source import find
from partclipseg.errors import PartCLIPSegError


@dataclass(frozen=True)
class PhotoJob:
    """Job of one photo: copy or link it."""

    key: str
    split: str
    photo: Path
    place: str
    """Path of the photo below the output folder."""
    mode: PhotoMode
    objects: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    """Labels that occur in the photo, sorted."""

    def source(self) -> str:
        """Return the state of the source, as in `PrepareJob.source`."""
        return source_state(self.photo, self.split, *self.objects, *self.parts)

    def run(self, layout: Layout) -> Outcome:
        """Do the work of the photo, as in `PrepareJob.run`."""
        size = photo_size(self.photo)
        layout.place_photo(self.photo, self.place, self.mode)
        return Outcome(self.key, self.split, parts=list(self.parts), objects=list(self.objects), size=size)


class SourcePhotos:
    """The photos of a source, found by name; a photo has one name in all splits."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._paths: dict[str, list[Path]] = defaultdict(list)
        for path in find(folders, ".jpeg", ".jpg"):
            self._paths[path.name].append(path)

    def find(self, name: str, split: str) -> Path:
        """Return the photo; of one that lies in several folders, that of the split.

        Raises `PartCLIPSegError` if there is none.
        """
        if not (paths := self._paths.get(name)):
            raise PartCLIPSegError(f"the photo {name} of {split}.json is not in the source: check --source")
        return min(paths, key=lambda path: split not in path.parts)  # the first, where several are alike


def find_list(folders: Sequence[Path], split: str) -> Path | None:
    """Return ``SPLIT.json``, in whichever folder it is; None if there is none."""
    return next((path for path in find(folders, f"{split}.json") if path.name == f"{split}.json"), None)


def kept_list(content: Mapping[str, Any], keys: Container[str], key_of: Callable[[str], str]) -> str:
    """Return an annotation file as JSON with what belongs to the photos of `keys`, otherwise unchanged.

    `key_of` makes the key of a photo of the stem of its file name; file names lose their folders.
    """
    images = [
        {**image, "file_name": Path(image["file_name"]).name}
        for image in content["images"]
        if key_of(Path(image["file_name"]).stem) in keys
    ]
    ids = {image["id"] for image in images}
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    return json.dumps({"images": images, "annotations": annotations, "categories": content["categories"]})
