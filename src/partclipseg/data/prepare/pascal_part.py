"""Bring PASCAL-Part's ``.mat`` annotations and VOC photos into the layout of Pascal-Part-116.

Chen et al., *Detect What You Can*, CVPR 2014; merged classes: Wei et al., *OV-PARTS*, NeurIPS 2023.

The published archive's recipe is incomplete; its gaps are filled as follows:

- Overlaps: objects are drawn in the file's order, each with its large parts first and its small parts on top.
- Split: ``val`` are the photos of an id list (``--val-list``, or VOC's ``ImageSets/Segmentation/val.txt`` in the
  source), ``train`` all others that are annotated.
- Photos whose objects have no part are kept, since their object map has labels.

An instance map beside the two label maps tells the objects of one kind apart, which the published archive does not: the
number of the object in the file's order, 255 for none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.data.datasets.pascal_part_116 import INSTANCES, NAME, OBJECTS, PARTS
from partclipseg.data.prepare.recipe import Layout, LayoutRecipe, Outcome, PhotoMode, photo_size, source_state
from partclipseg.data.prepare.source import find
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.json_file import read_text
from partclipseg.kept_files import KeptFiles
from partclipseg.machine import how_to_install
from partclipseg.vocabulary import Catalog, ObjectPart

SPLITS = ("train", "val")

_VOC_LIST = ("ImageSets", "Segmentation", "val.txt")
_NO_INSTANCE = 255


@dataclass(frozen=True)
class PascalPartJob:
    """Job of one photo: draw its two label maps."""

    key: str
    split: str
    annotation: Path
    photo: Path
    mode: PhotoMode

    def source(self) -> str:
        """Return the state of the source, as in `PrepareJob.source`."""
        return source_state(self.annotation, self.photo, self.split)

    def run(self, layout: Layout) -> Outcome:
        """Do the work of the photo, as in `PrepareJob.run`."""
        catalog = Catalog.load(NAME)
        objects = read_annotation(self.annotation)
        size = photo_size(self.photo)
        part_map = np.full(size, catalog.ignore_label, np.uint8)
        object_map, instance_map = part_map.copy(), np.full(size, _NO_INSTANCE, np.uint8)
        unknown = draw_objects(objects, part_map, object_map, instance_map, self.annotation)
        place = f"{self.split}/{self.key}"
        parts, objects, instances = (f"{folder}/{place}.png" for folder in (PARTS, OBJECTS, INSTANCES))
        layout.write_map(part_map, parts)
        layout.write_map(object_map, objects)
        layout.write_map(instance_map, instances)
        layout.place_photo(self.photo, f"images/{place}.jpg", self.mode)
        return Outcome(
            key=self.key,
            split=self.split,
            parts=layout.labels(parts, part_map, len(catalog.object_parts), catalog.ignore_label),
            objects=layout.labels(objects, object_map, len(catalog.objects), catalog.ignore_label),
            unknown=unknown,
        )


@dataclass(frozen=True)
class PascalPartRecipe(LayoutRecipe):
    """Recipe of Pascal-Part-116: see `LayoutRecipe`."""

    folders: Sequence[Path]
    val_list: Path | None
    mode: PhotoMode = "copy"

    name = NAME

    def options(self) -> dict[str, Any]:
        """Return a digest of the split, the only thing that changes the result."""
        return {"val": hashlib.sha256(" ".join(sorted(self._val_ids())).encode()).hexdigest()}

    def jobs(self) -> list[PascalPartJob]:
        """Make one job for each ``.mat`` file whose photo is there.

        Raises:
            PartCLIPSegError: scipy is not installed, or a photo is missing.
            UsageError: there is no list of validation photos.
        """
        try:
            import scipy.io  # noqa: F401
        except ImportError:
            raise PartCLIPSegError(f"reading .mat files needs scipy: {how_to_install('prepare')}") from None
        annotations = list(find(self.folders, ".mat"))
        if not annotations:
            return []  # before a list of photos is asked for that would not help
        val_ids = self._val_ids()
        photos = {path.stem: path for path in find(self.folders, ".jpg", ".jpeg")}
        jobs = []
        for annotation in annotations:
            key = annotation.stem
            if key not in photos:
                raise PartCLIPSegError(
                    f"{annotation}: its photo {key}.jpg is not in the source: add the folder or the archive of the "
                    "VOC2010 photos to --source"
                )
            split = "val" if key in val_ids else "train"
            jobs.append(PascalPartJob(key, split, annotation, photos[key], self.mode))
        return jobs

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write the label lists of both splits."""
        for split in SPLITS:
            members = [outcome for outcome in outcomes if outcome.split == split]
            for kind in ("obj", "part"):
                labels = {f"{o.key}.png": o.objects if kind == "obj" else o.parts for o in members}
                lists.text(f"{PARTS}/{split}_{kind}_label_count.json", json.dumps(labels))

    def _val_ids(self) -> frozenset[str]:
        if self.val_list is not None:
            path = self.val_list
        else:
            lists = find(self.folders, "val.txt")
            path = next((path for path in lists if path.parts[-3:] == _VOC_LIST), None)
        if path is None:
            raise UsageError(
                "which photos are for validation? Name a list, one photo id a line, with --val-list FILE, or have "
                "VOC's ImageSets/Segmentation/val.txt in the source"
            )
        try:
            # Lists of one class have a second column.
            return frozenset(line.split()[0] for line in read_text(path).splitlines() if line.strip())
        except PartCLIPSegError as error:
            raise UsageError(f"cannot read the list of validation photos {path}: it {error}") from None


@dataclass(frozen=True)
class RawObject:
    """One annotated object, in the words of the file."""

    name: str
    mask: np.ndarray
    """Mask of the object, bool `[H, W]`."""
    parts: tuple[tuple[str, np.ndarray], ...]
    """Raw name and mask, bool `[H, W]`, of each part."""


def read_annotation(path: Path) -> list[RawObject]:
    """Read the objects of a PASCAL-Part ``.mat`` file; raises `PartCLIPSegError` where it is not one."""
    from scipy.io import loadmat

    try:
        annotation = loadmat(path)["anno"][0, 0]
        return [
            RawObject(
                name=str(item["class"][0]),
                mask=item["mask"] > 0,
                parts=tuple(
                    (str(part["part_name"][0]), part["mask"] > 0)
                    for part in (item["parts"][0] if item["parts"].size else ())
                ),
            )
            for item in (annotation["objects"][0] if annotation["objects"].size else ())
        ]
    except Exception as error:  # scipy raises almost anything on damaged files
        reason = str(error) or type(error).__name__
        raise PartCLIPSegError(f"{path}: not a PASCAL-Part annotation ({reason}): fetch it again") from error


def draw_objects(
    objects: Sequence[RawObject],
    part_map: np.ndarray,
    object_map: np.ndarray,
    instance_map: np.ndarray,
    source: Path,
) -> list[str]:
    """Draw the objects into the maps, in place, and return the raw names without a class, sorted.

    Raises:
        PartCLIPSegError: a mask has another size than the maps, or there are too many objects for 8 bits.
    """
    if len(objects) > _NO_INSTANCE:
        problem = f"{source}: has {len(objects)} objects, an instance map holds {_NO_INSTANCE}"
        raise PartCLIPSegError(f"{problem}: leave the photo out")
    catalog = Catalog.load(NAME)
    classes = {pair: label for label, pair in enumerate(catalog.object_parts)}
    unknown = set()
    for number, item in enumerate(objects):
        word = _OBJECT_WORDS.get(item.name, item.name)
        if word not in catalog.objects:
            unknown.add(item.name)
            continue
        _check_size(item.mask, object_map, source)
        object_map[item.mask] = catalog.objects.index(word)
        # An earlier object keeps its parts, and with them its pixels.
        instance_map[item.mask & (part_map == catalog.ignore_label)] = number
        for raw, mask in sorted(item.parts, key=lambda part: -int(part[1].sum())):
            label = classes.get(ObjectPart(word, unified_part(word, raw)))
            if label is None:
                unknown.add(f"{item.name}: {raw}")
                continue
            _check_size(mask, part_map, source)
            part_map[mask] = label
            instance_map[mask] = number
    return sorted(unknown)


_OBJECT_WORDS = {"table": "diningtable"}
_SIDES = {"left": "side", "right": "side"}
_SHORT = {"ebrow": "eyebrow", "pa": "paw", "ho": "hoof"}


@cache
def unified_part(object_word: str, raw: str) -> str:
    """Return the part word that a raw name of PASCAL-Part stands for: *lfpa* is *paw*, *hleftside_1* is *side*."""
    name = re.sub(r"_\d+$", "", raw)
    if object_word == "person" and (arm := re.fullmatch(r"[lr]([lu])arm", name)):
        return "lower arm" if arm[1] == "l" else "upper arm"
    if object_word in {"bus", "car", "train"}:
        if side := re.fullmatch(r"[hc]?(front|left|right|back|roof)side", name):
            return _SIDES.get(side[1], side[1])
        if name.endswith("mirror"):
            return "mirror"
        if name in {"fliplate", "bliplate"}:
            return "license plate"
    # left/right, front/back, upper/lower, in this order: lflleg is the left front lower leg.
    if limb := re.fullmatch(r"[lr]?[fb]?[lu]?(wing|eye|ear|ebrow|horn|wheel|leg|pa|ho|foot|hand)", name):
        return _SHORT.get(limb[1], limb[1])
    return name


def _check_size(mask: np.ndarray, target: np.ndarray, source: Path) -> None:
    if mask.shape != target.shape:
        raise PartCLIPSegError(
            f"{source}: a mask is {mask.shape[1]}x{mask.shape[0]}, but the photo is "
            f"{target.shape[1]}x{target.shape[0]}: take the photo that was annotated"
        )
