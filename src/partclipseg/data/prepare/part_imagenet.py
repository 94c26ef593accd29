"""Bring PartImageNet_Seg into the layout of the PartImageNet benchmark: 40 of its 158 objects.

He et al., *PartImageNet*, ECCV 2022; choice of objects: Choi et al., NeurIPS 2024.

The published script works by deleting from the source. Here the source stays unchanged, and the chosen photos are
copied or linked. The synset in its file name gives the object of a photo, so that ImageNet's list of synset names is
not needed. ``train`` has the photos of the seen objects, ``val`` those of all 40; the source's ``test`` split is not
used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from partclipseg.data.datasets.part_imagenet import NAME, PartImageNetNames
from partclipseg.data.prepare.photo_lists import PhotoJob, SourcePhotos, find_list, kept_list
from partclipseg.data.prepare.recipe import LayoutRecipe, Outcome, PhotoMode
from partclipseg.errors import PartCLIPSegError
from partclipseg.json_file import read_json
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import Catalog, ObjectPart

SPLITS = ("train", "val")


class PartImageNetRecipe(LayoutRecipe):
    """Recipe of PartImageNet: see `LayoutRecipe`.

    Raises:
        PartCLIPSegError: an annotation file is missing or not COCO JSON with PartImageNet's categories.
    """

    name = NAME

    def __init__(self, folders: Sequence[Path], mode: PhotoMode = "copy") -> None:
        self._folders = folders
        self._mode: PhotoMode = mode
        self._contents = {split: self._read(split) for split in SPLITS}

    def jobs(self) -> list[PhotoJob]:
        """Make one job for each annotated photo of the chosen objects; raises `PartCLIPSegError` for a missing one."""
        catalog, names = Catalog.load(NAME), PartImageNetNames.load()
        seen = set(catalog.objects) - set(catalog.unseen_objects)
        classes = {pair: label for label, pair in enumerate(catalog.object_parts)}
        photos = SourcePhotos(self._folders)
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
                photo = photos.find(file, split)
                labels = (classes.get(ObjectPart(word, part)) for part in parts[image["id"]])
                jobs.append(
                    PhotoJob(
                        key=photo.stem,
                        split=split,
                        photo=photo,
                        place=f"images/{split}/{file}",
                        mode=self._mode,
                        objects=(catalog.objects.index(word),),
                        parts=tuple(sorted(label for label in labels if label is not None)),
                    )
                )
        return jobs

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write ``train.json`` and ``val.json`` with what belongs to the photos, otherwise unchanged."""
        for split, content in self._contents.items():
            keys = {outcome.key for outcome in outcomes if outcome.split == split}
            lists.text(f"{split}.json", kept_list(content, keys, str))

    def _read(self, split: str) -> dict[str, Any]:
        # The release has it in annotations/SPLIT, older copies in annotations or at the root.
        path = find_list(self._folders, split)
        if path is None:
            raise PartCLIPSegError(f"{split}.json is not in the source: add the folder of PartImageNet_Seg to --source")
        try:
            content = read_json(path)
        except PartCLIPSegError as error:
            raise PartCLIPSegError(f"{path}: it {error}") from None
        try:
            content = {key: content[key] for key in ("images", "annotations", "categories")}
            _check(content, len(PartImageNetNames.load().part_words))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise PartCLIPSegError(f"{path}: not PartImageNet's COCO JSON ({error!r}): fetch it again") from error
        return content


def _check(content: dict[str, Iterable[Any]], categories: int) -> None:
    for image in content["images"]:
        _ = hash(image["id"]), Path(image["file_name"])
    for annotation in content["annotations"]:
        _ = hash(annotation["image_id"])
        if type(annotation["category_id"]) is not int or annotation["category_id"] not in range(categories):
            raise ValueError(f"category {annotation['category_id']} is not one of 0..{categories - 1}")
