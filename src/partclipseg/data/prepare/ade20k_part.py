"""Bring ADE20K (full, release 2021_17_01) into the layout of ADE20K-Part-234.

Zhou et al., *Semantic Understanding of Scenes through the ADE20K Dataset*, IJCV 2019; merged classes: Wei et al.,
*OV-PARTS*, NeurIPS 2023.

The published archive's recipe is incomplete; its gaps are filled as follows:

- Names: an ADE20K name lists synonyms, the first of which counts. `SAME_OBJECT` and `SAME_PART` hold the
  raw names that were merged into another word.
- An object is an instance of level 0, and its mask the visible part (value 255). A part belongs to the object at the
  top of its chain: the window of a car's door is the car's window. It is drawn with its whole mask. An object that
  is hidden altogether is no instance.
- Overlaps: large parts first, small parts on top.
- Photos without any of the 234 object-parts are left out, as most of ADE20K's photos are in the archive.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.data.coco_masks import encode_mask, rle
from partclipseg.data.datasets.ade20k_part_234 import INSTANCES, NAME, PARTS
from partclipseg.data.paths import inside
from partclipseg.data.photo import photo_formats
from partclipseg.data.prepare.recipe import Layout, LayoutRecipe, Outcome, PhotoMode, photo_size, source_state
from partclipseg.data.prepare.source import find
from partclipseg.data.values import is_text
from partclipseg.errors import PartCLIPSegError
from partclipseg.json_file import distinct_keys
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import Catalog, ObjectPart

SAME_OBJECT = {"double door": "door", "closet": "wardrobe"}
"""Object that stands for each raw object."""

_CONTROLS = {"button": "button panel", "buttons": "button panel", "screen": "button panel"}
_WINDOWS = {"windshield": "window"}
SAME_PART = {
    "person": {f"{side} {part}": part for side in ("left", "right") for part in ("arm", "foot", "hand", "leg")},
    "door": {"door": "panel"},
    "cabinet": {"double door": "door"},
    "stool": {"pedestal": "leg"},
    "pool table": {"corner pocket": "pocket", "side pocket": "pocket"},
    "car": _WINDOWS,
    "bus": _WINDOWS,
    "van": _WINDOWS,
    "truck": _WINDOWS,
    "oven": _CONTROLS,
    "microwave": _CONTROLS,
    "washer": _CONTROLS,
    "cooking stove": {"screen": "button panel"},
    "dishwasher": {"buttons": "button panel"},
}
"""Part that stands for each raw part, by object."""

_VISIBLE = 255
"""Value of visible pixels in an instance mask; 128 is hidden behind another object, 0 outside."""


@dataclass(frozen=True)
class ADE20KPartJob:
    """Job of one photo: draw its part map and list its object instances."""

    key: str
    split: str
    annotation: Path
    mode: PhotoMode

    def source(self) -> str:
        """Return the state of the source, as in `PrepareJob.source`."""
        masks = sorted(self.annotation.with_suffix("").glob("*"))
        return source_state(self.annotation, self.annotation.with_suffix(".jpg"), *masks, self.split)

    def run(self, layout: Layout) -> Outcome:
        """Do the work of the photo, as in `PrepareJob.run`."""
        catalog = Catalog.load(NAME)
        source = self.annotation.with_suffix(".jpg")
        items = _read(self.annotation)
        size = photo_size(source)
        part_map, unknown = self._part_map(items, size, catalog)
        if (part_map == catalog.ignore_label).all():
            return Outcome(self.key, self.split, unknown=unknown)
        instances = self._instances(items, size, catalog)
        name = f"{PARTS}/{self.split}/{self.key}.png"
        layout.write_map(part_map, name)
        layout.place_photo(source, f"images/{self.split}/{self.key}.jpg", self.mode)
        return Outcome(
            key=self.key,
            split=self.split,
            parts=layout.labels(name, part_map, len(catalog.object_parts), catalog.ignore_label),
            objects=sorted({instance["category_id"] for instance in instances}),
            unknown=unknown,
            size=size,
            instances=instances,
        )

    def _part_map(
        self, items: dict[int, dict[str, Any]], size: tuple[int, int], catalog: Catalog
    ) -> tuple[np.ndarray, list[str]]:
        classes = {pair: label for label, pair in enumerate(catalog.object_parts)}
        masks, unknown = [], set()
        for item in items.values():
            if (owner := self._owner(item, items)) is item:
                continue
            word = _object_word(owner)
            if word not in catalog.objects:
                continue
            raw = _first_name(item)
            label = classes.get(ObjectPart(word, SAME_PART.get(word, {}).get(raw, raw)))
            if label is None:
                unknown.add(f"{word}: {raw}")
            else:
                masks.append((self._mask(item, size) > 0, label))
        part_map = np.full(size, catalog.ignore_label, np.uint16)
        for mask, label in sorted(masks, key=lambda pair: -int(pair[0].sum())):
            part_map[mask] = label
        return part_map, sorted(unknown)

    def _instances(
        self, items: dict[int, dict[str, Any]], size: tuple[int, int], catalog: Catalog
    ) -> list[dict[str, Any]]:
        instances = []
        for item in items.values():
            word = _object_word(item)
            if self._owner(item, items) is not item or word not in catalog.objects:
                continue
            visible = self._mask(item, size) == _VISIBLE
            if not visible.any():
                continue
            runs = encode_mask(visible)
            instances.append(
                {
                    "category_id": catalog.objects.index(word),
                    "iscrowd": 0,
                    "segmentation": runs,
                    "area": int(visible.sum()),
                    "bbox": rle.toBbox(runs).tolist(),
                }
            )
        return instances

    def _owner(self, item: dict[str, Any], items: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """Return the object at the top of a part's chain; an object is its own owner."""
        for _ in items:
            above = item["parts"]["ispartof"]
            if not isinstance(above, int):
                return item
            if above not in items:
                raise PartCLIPSegError(
                    f"{self.annotation}: object {item['id']} is part of {above}, which is not there: fetch it again"
                )
            item = items[above]
        raise PartCLIPSegError(f"{self.annotation}: object {item['id']} is a part of itself: fetch the file again")

    def _mask(self, item: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        """Read an instance mask, uint8 `[H, W]`."""
        path = inside(self.annotation.parent, item["instance_mask"], self.annotation)
        try:
            with Image.open(path, formats=photo_formats()) as image:
                mask = np.asarray(image.convert("L"))
        except Exception as error:  # decoders raise almost anything on damaged data
            raise PartCLIPSegError(f"{path}: cannot be read ({error}): fetch it again") from error
        if mask.shape != size:
            raise PartCLIPSegError(
                f"{path}: is {mask.shape[1]}x{mask.shape[0]}, but its photo is {size[1]}x{size[0]}: "
                "take both from the full release"
            )
        return mask


@dataclass(frozen=True)
class ADE20KPartRecipe(LayoutRecipe):
    """Recipe of ADE20K-Part-234: see `LayoutRecipe`."""

    folders: Sequence[Path]
    mode: PhotoMode = "copy"

    name = NAME

    def jobs(self) -> list[ADE20KPartJob]:
        """Make one job for each annotation file below a folder ``training`` or ``validation`` whose photo is there."""
        jobs = []
        for path in find(self.folders, ".json"):
            split = next((folder for folder in INSTANCES if folder in path.parts), None)
            if split is not None and path.with_suffix(".jpg").is_file():
                jobs.append(ADE20KPartJob(path.stem, split, path, self.mode))
        return jobs

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write the instance files of the splits that have photos; ids count from 1."""
        categories = [{"id": i, "name": word} for i, word in enumerate(Catalog.load(NAME).objects)]
        for split, file in INSTANCES.items():
            images, annotations = [], []
            for outcome in outcomes:
                if outcome.split != split or outcome.size is None:
                    continue
                height, width = outcome.size
                image = len(images) + 1
                images.append({"id": image, "file_name": f"{outcome.key}.jpg", "height": height, "width": width})
                for instance in outcome.instances:
                    annotations.append({"id": len(annotations) + 1, "image_id": image, **instance})
            if images:
                content = {"images": images, "annotations": annotations, "categories": categories}
                lists.text(file, json.dumps(content))


def _read(path: Path) -> dict[int, dict[str, Any]]:
    """Read the annotated objects and parts, by id, in the file's order."""
    content = path.read_bytes()
    try:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:  # a few files of the release hold Latin-1
            text = content.decode("latin-1")
        objects = json.loads(text, object_pairs_hook=distinct_keys)["annotation"]["object"]
        items = {item["id"]: item for item in objects}
        for item in items.values():
            if not is_text(item["instance_mask"]):
                raise TypeError(f"instance_mask of object {item['id']}")
            _ = item["name"], item["parts"]["ispartof"]
        return items
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PartCLIPSegError(f"{path}: not an ADE20K annotation ({error!r}): fetch it again") from error


def _first_name(item: dict[str, Any]) -> str:
    return str(item["name"]).split(",")[0].strip()


def _object_word(item: dict[str, Any]) -> str:
    return SAME_OBJECT.get(_first_name(item), _first_name(item))
