"""Bring PartImageNet_OOD into one layout: ``train.json``, ``val.json``, ``test.json`` and ``SPLIT/SYNSET/PHOTO``.

He et al., *PartImageNet*, ECCV 2022. The release is an archive of archives, and its copies arrange the files in several
ways; photos are found by their names, which are unique.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from partclipseg.data.coco import CocoFile, read_coco
from partclipseg.data.datasets.part_imagenet import PartImageNetNames
from partclipseg.data.datasets.part_imagenet_ood import NAME, part_of
from partclipseg.data.prepare.photo_lists import PhotoJob, SourcePhotos, find_list, kept_list
from partclipseg.data.prepare.recipe import LayoutRecipe, Outcome, PhotoMode
from partclipseg.errors import PartCLIPSegError
from partclipseg.json_file import read_json
from partclipseg.kept_files import KeptFiles

SPLITS = ("train", "val", "test")


class PartImageNetOODRecipe(LayoutRecipe):
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

    def jobs(self) -> list[PhotoJob]:
        """Make one job for each listed photo; raises `PartCLIPSegError` for one that is not in the source."""
        index = {part_of(name): label for label, name in enumerate(PartImageNetNames.load().part_categories)}
        photos = SourcePhotos(self._folders)
        jobs = []
        for split, content in self._contents.items():
            labels = {category.number: index.get(part_of(category.name), -1) for category in content.categories}
            for entry in content.photos:
                name = Path(entry.file_name or "").name
                photo = photos.find(name, split)
                parts = {labels[annotation.category] for annotation in entry.annotations}
                jobs.append(
                    PhotoJob(
                        key=f"{split}/{photo.stem}",
                        split=split,
                        photo=photo,
                        place=f"{split}/{photo.stem.split('_')[0]}/{name}",
                        mode=self._mode,
                        parts=tuple(sorted(label for label in parts if label >= 0)),
                    )
                )
        return jobs

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write the annotation files with what belongs to the photos, otherwise unchanged."""
        for split, path in self._files.items():
            if path is None:
                continue
            keys = {outcome.key for outcome in outcomes if outcome.split == split}
            lists.text(f"{split}.json", kept_list(read_json(path), keys, f"{split}/{{}}".format))

    def _find(self, split: str) -> Path | None:
        """Return the annotation file of a split; ``val``, which no reader needs, may be missing."""
        path = find_list(self._folders, split)
        if path is None and split != "val":
            raise PartCLIPSegError(f"{split}.json is not in the source: add the folder of PartImageNet_OOD to --source")
        return path


def _read(path: Path) -> CocoFile:
    content = read_coco(path)
    for defect in content.defects:
        raise PartCLIPSegError(f"{defect}: fetch it again")
    return content
