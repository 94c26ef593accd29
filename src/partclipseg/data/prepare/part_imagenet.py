"""Bring PartImageNet_Seg into the layout of the PartImageNet benchmark: 40 of its 158 objects.

He et al., *PartImageNet*, ECCV 2022; choice of objects: Choi et al., NeurIPS 2024.

The published script works by deleting from the source. Here the source stays unchanged, and the chosen photos are
copied or linked. The synset in its file name gives the object of a photo, so that ImageNet's list of synset names is
not needed. ``train`` has the photos of the seen objects, ``val`` those of all 40; the source's ``test`` split is not
used.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partclipseg.data.datasets.part_imagenet import PartImageNetNames
from partclipseg.data.prepare.runner import Layout, Outcome, PhotoMode, photo_size, source_state
from partclipseg.data.prepare.source import find
from partclipseg.errors import PartCLIPSegError
from partclipseg.json_file import read_json
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import Catalog, ObjectPart

NAME = "part-imagenet"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class PartImageNetJob:
    """Job of one photo: copy or link it."""

    key: str
    split: str
    photo: Path
    object: int
    parts: tuple[int, ...]
    mode: PhotoMode

    def source(self) -> str:
        """Return the state of the source, as in `PrepareJob.source`."""
        return source_state(self.photo, self.split, self.object, *self.parts)

    def run(self, layout: Layout) -> Outcome:
        """Do the work of the photo, as in `PrepareJob.run`."""
        size = photo_size(self.photo)
        layout.place_photo(self.photo, f"images/{self.split}/{self.photo.name}", self.mode)
        return Outcome(
            key=self.key,
            split=self.split,
            parts=list(self.parts),
            objects=[self.object],
            size=size,
        )


class PartImageNetRecipe:
    """Recipe of PartImageNet: see `LayoutRecipe`.

    Raises:
        PartCLIPSegError: an annotation file is missing or not COCO JSON with PartImageNet's categories.
    """

    name = NAME

    def __init__(self, folders: Sequence[Path], mode: PhotoMode = "copy") -> None:
        self._folders = folders
        self._mode: PhotoMode = mode
        self._contents = {split: self._read(split) for split in SPLITS}

    def options(self) -> dict[str, Any]:
        """Return no options: nothing changes the result."""
        return {}

    def jobs(self) -> list[PartImageNetJob]:
        """Make one job for each annotated photo of the chosen objects; raises `PartCLIPSegError` for a missing one."""
        catalog, names = Catalog.load(NAME), PartImageNetNames.load()
        seen = set(catalog.objects) - set(catalog.unseen_objects)
        classes = {pair: label for label, pair in enumerate(catalog.object_parts)}
        photos = defaultdict(list)
        for path in find(self._folders, ".jpeg", ".jpg"):
            photos[path.name].append(path)
        jobs = []
        for split, content in self._contents.items():
            parts = defaultdict(set)
            for annotation in content["annotations"]:
                parts[annotation["image_id"]].add(names.part_words[annotation["category_id"]])
            for image in content["images"]:
                file = Path(image["file_name"]).name
                word = names.synset_to_object.get(file.split("_")[0])
                if word is None or (split == "train" and word not in seen):
                    continue
                # A photo has one name in all splits; where several folders have it, that of the split comes first.
                candidates = sorted(photos[file], key=lambda path: split not in path.parts)
                if not candidates:
                    raise PartCLIPSegError(f"the photo {file} of {split}.json is not in the source: check --source")
                labels = (classes.get(ObjectPart(word, part)) for part in parts[image["id"]])
                jobs.append(
                    PartImageNetJob(
                        key=Path(file).stem,
                        split=split,
                        photo=candidates[0],
                        object=catalog.objects.index(word),
                        parts=tuple(sorted(label for label in labels if label is not None)),
                        mode=self._mode,
                    )
                )
        return jobs

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write ``train.json`` and ``val.json`` with what belongs to the photos, otherwise unchanged."""
        for split, content in self._contents.items():
            keys = {outcome.key for outcome in outcomes if outcome.split == split}
            images = [
                {**image, "file_name": Path(image["file_name"]).name}
                for image in content["images"]
                if Path(image["file_name"]).stem in keys
            ]
            ids = {image["id"] for image in images}
            annotations = [a for a in content["annotations"] if a["image_id"] in ids]
            kept = {"images": images, "annotations": annotations, "categories": content["categories"]}
            lists.text(f"{split}.json", json.dumps(kept))

    def _read(self, split: str) -> dict[str, Any]:
        # The release has it in annotations/SPLIT, older copies in annotations or at the root.
        paths = [path for path in find(self._folders, f"{split}.json") if path.name == f"{split}.json"]
        if not paths:
            raise PartCLIPSegError(f"{split}.json is not in the source: add the folder of PartImageNet_Seg to --source")
        try:
            content = read_json(paths[0])
        except PartCLIPSegError as error:
            raise PartCLIPSegError(f"{paths[0]}: it {error}") from None
        try:
            content = {key: content[key] for key in ("images", "annotations", "categories")}
            _check(content, len(PartImageNetNames.load().part_words))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise PartCLIPSegError(f"{paths[0]}: not PartImageNet's COCO JSON ({error!r}): fetch it again") from error
        return content


def _check(content: dict[str, Iterable[Any]], categories: int) -> None:
    for image in content["images"]:
        _ = hash(image["id"]), Path(image["file_name"])
    for annotation in content["annotations"]:
        _ = hash(annotation["image_id"])
        if type(annotation["category_id"]) is not int or annotation["category_id"] not in range(categories):
            raise ValueError(f"category {annotation['category_id']} is not one of 0..{categories - 1}")
