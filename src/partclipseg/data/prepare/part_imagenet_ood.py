"""Bring PartImageNet_OOD into one layout: ``train.json``, ``val.json``, ``test.json`` and ``SPLIT/SYNSET/PHOTO``.

He et al., *PartImageNet*, ECCV 2022. The release is an archive of archives, and its copies arrange the files in several
ways; photos are found by their names, which are unique.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partclipseg.data.coco import CocoFile, read_coco
from partclipseg.data.datasets.part_imagenet import PartImageNetNames
from partclipseg.data.datasets.part_imagenet_ood import NAME, part_of
from partclipseg.data.prepare.runner import Layout, Outcome, PhotoMode, photo_size, source_state
from partclipseg.data.prepare.source import find
from partclipseg.errors import PartCLIPSegError
from partclipseg.json_file import read_json
from partclipseg.kept_files import KeptFiles

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class PartImageNetOODJob:
    """Job of one photo: copy or link it."""

    key: str
    split: str
    photo: Path
    parts: tuple[int, ...]
    mode: PhotoMode

    def source(self) -> str:
        """Return the state of the source, as in `PrepareJob.source`."""
        return source_state(self.photo, self.split, *self.parts)

    def run(self, layout: Layout) -> Outcome:
        """Do the work of the photo, as in `PrepareJob.run`."""
        size = photo_size(self.photo)
        synset = self.photo.stem.split("_")[0]
        layout.place_photo(self.photo, f"{self.split}/{synset}/{self.photo.name}", self.mode)
        return Outcome(self.key, self.split, parts=list(self.parts), size=size)


class PartImageNetOODRecipe:
    """Recipe of PartImageNet's OOD split: see `LayoutRecipe`.

    Raises:
        PartCLIPSegError: an annotation file is missing or not COCO JSON with PartImageNet's categories.
    """

    name = NAME

    def __init__(self, folders: Sequence[Path], mode: PhotoMode = "copy") -> None:
        self._folders = folders
        self._mode: PhotoMode = mode
        self._files = {split: self._find(split) for split in SPLITS}
        self._contents = {split: _read(path) for split, path in self._files.items() if path is not None}

    def options(self) -> dict[str, Any]:
        """Return no options: nothing changes the result."""
        return {}

    def jobs(self) -> list[PartImageNetOODJob]:
        """Make one job for each listed photo; raises `PartCLIPSegError` for one that is not in the source."""
        index = {part_of(name): label for label, name in enumerate(PartImageNetNames.load().part_categories)}
        photos: dict[str, list[Path]] = defaultdict(list)
        for path in find(self._folders, ".jpeg", ".jpg"):
            photos[path.name].append(path)
        jobs = []
        for split, content in self._contents.items():
            labels = {category.number: index.get(part_of(category.name), -1) for category in content.categories}
            for entry in content.photos:
                name = Path(entry.file_name or "").name
                # A photo that lies in several folders is taken from that of the split.
                candidates = sorted(photos[name], key=lambda path: split not in path.parts)
                if not candidates:
                    raise PartCLIPSegError(f"the photo {name} of {split}.json is not in the source: check --source")
                parts = {labels[annotation.category] for annotation in entry.annotations}
                found = tuple(sorted(label for label in parts if label >= 0))
                jobs.append(PartImageNetOODJob(f"{split}/{Path(name).stem}", split, candidates[0], found, self._mode))
        return jobs

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write the annotation files with what belongs to the photos, otherwise unchanged."""
        for split, path in self._files.items():
            if path is None:
                continue
            keys = {outcome.key for outcome in outcomes if outcome.split == split}
            content = read_json(path)
            images = [
                {**image, "file_name": Path(image["file_name"]).name}
                for image in content["images"]
                if f"{split}/{Path(image['file_name']).stem}" in keys
            ]
            ids = {image["id"] for image in images}
            annotations = [entry for entry in content["annotations"] if entry["image_id"] in ids]
            kept = {"images": images, "annotations": annotations, "categories": content["categories"]}
            lists.text(f"{split}.json", json.dumps(kept))

    def _find(self, split: str) -> Path | None:
        """Return the annotation file of a split; ``val``, which no reader needs, may be missing."""
        paths = [path for path in find(self._folders, f"{split}.json") if path.name == f"{split}.json"]
        if not paths and split != "val":
            raise PartCLIPSegError(f"{split}.json is not in the source: add the folder of PartImageNet_OOD to --source")
        return paths[0] if paths else None


def _read(path: Path) -> CocoFile:
    content = read_coco(path)
    for defect in content.defects:
        raise PartCLIPSegError(f"{defect}: fetch it again")
    return content
