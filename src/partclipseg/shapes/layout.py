"""PartShapes on disk.

    ROOT/world.json            class list, unseen objects, IDs of each split
    ROOT/images/ID.png         8-bit RGB
    ROOT/parts/ID.png          16-bit: index into object_parts, 65535 for none
    ROOT/objects/ID.png        8-bit: index into objects, 255 for none

An ID is ``train-000012``. Writing another split adds to what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.counts import count_of
from partclipseg.data.sample import PartSample
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import refusal, whole_file, write_text
from partclipseg.json_file import read_json
from partclipseg.shapes.labels import LabelTable, WordSet, choose_vocabulary
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.scene import SceneSplit
from partclipseg.shapes.world import WORLD_VERSION, partshapes_world
from partclipseg.vocabulary import ObjectPart, Vocabulary

NO_PART = 65535
NO_OBJECT = 255
_FOLDERS = ("images", "parts", "objects")


def write_layout(root: str | Path, split: SceneSplit, count: int, size: int = 128) -> None:
    """Write the first ``count`` scenes of a split.

    Raises `UsageError` for a wrong split, count or size, `PartCLIPSegError` where the folder holds another
    version of the world or cannot be written.
    """
    if count < 1:
        raise UsageError(f"cannot write {count} scenes: ask for at least 1")
    root = Path(root)
    description = _describe(root)
    description["splits"][split] = [f"{split}-{index:06d}" for index in range(count)]
    try:
        for index, name in enumerate(description["splits"][split]):
            scene = render_scene(split, index, size)
            parts = np.where(scene.parts < 0, NO_PART, scene.parts).astype(np.uint16)
            objects = np.where(scene.objects < 0, NO_OBJECT, scene.objects).astype(np.uint8)
            for folder, pixels in zip(_FOLDERS, (scene.image, parts, objects), strict=True):
                with whole_file(root / folder / f"{name}.png") as unfinished:
                    Image.fromarray(pixels).save(unfinished, "PNG")
        write_text(root / "world.json", json.dumps(description, indent=1))
    except OSError as error:
        raise PartCLIPSegError(f"PartShapes is not written: {refusal(error, root)}") from None


class PartShapesFolder:
    """A split read from disk, sample by sample."""

    def __init__(self, root: str | Path, split: str, vocabulary: WordSet = "all") -> None:
        """Open a split.

        Raises `PartCLIPSegError` for a missing or malformed ``world.json``, `UsageError` for an unknown split.
        """
        self.root = Path(root)
        description = _read_world(self.root / "world.json")
        if split not in description["splits"]:
            known = ", ".join(description["splits"]) or "none"
            raise UsageError(f"{self.root} has no split {split!r}: it has {known}")
        self.ids: tuple[str, ...] = tuple(description["splits"][split])
        pairs = [ObjectPart(*pair) for pair in description["object_parts"]]
        unseen = set(description["unseen_objects"])
        every = Vocabulary(tuple(pairs))
        self.vocabulary = choose_vocabulary(
            vocabulary, every, Vocabulary(tuple(pair for pair in pairs if pair.object not in unseen))
        )
        self._every = every
        self._table = LabelTable(every, self.vocabulary)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> PartSample:
        """Read a sample.

        Raises `PartCLIPSegError` that names a file that is missing, damaged or does not fit the others.
        """
        name = self.ids[index]
        image = self._read("images", name, "RGB")
        parts = self._labels("parts", name, "I;16", NO_PART, len(self._every), image)
        objects = self._labels("objects", name, "L", NO_OBJECT, len(self._every.objects), image)
        return PartSample(image, self._table.parts(parts), self._table.objects(objects), name)

    def __iter__(self) -> Iterator[PartSample]:
        return (self[index] for index in range(len(self)))

    def _labels(
        self, folder: str, name: str, mode: str, none: int, count: int, image: np.ndarray
    ) -> np.ndarray:
        path = self.root / folder / f"{name}.png"
        labels = self._read(folder, name, mode).astype(np.int32)
        if labels.shape != image.shape[:2]:
            raise PartCLIPSegError(
                f"{path} is {_extent(labels)} pixels, its picture {_extent(image)}: write it anew"
            )
        labels[labels == none] = -1
        if labels.max() >= count:
            raise PartCLIPSegError(
                f"{path} has the label {labels.max()}, but world.json knows {count_of(count, 'class')}"
            )
        return labels

    def _read(self, folder: str, name: str, mode: str) -> np.ndarray:
        path = self.root / folder / f"{name}.png"
        try:
            with Image.open(path) as picture:
                if picture.mode != mode:
                    raise PartCLIPSegError(
                        f"{path} is a picture of mode {picture.mode}, expected {mode}: write it anew"
                    )
                return np.array(picture)
        except FileNotFoundError:
            raise PartCLIPSegError(
                f"{path} is missing: write the split anew or take {name} out of world.json"
            ) from None
        except (OSError, SyntaxError) as error:
            raise PartCLIPSegError(f"{path} cannot be read ({error}): write it anew") from None


def _describe(root: Path) -> dict[str, Any]:
    world = partshapes_world()
    description: dict[str, Any] = {
        "version": WORLD_VERSION,
        "objects": list(world.vocabulary.objects),
        "unseen_objects": list(world.unseen_objects),
        "object_parts": [list(pair) for pair in world.vocabulary.object_parts],
        "splits": {},
    }
    if (root / "world.json").exists():
        present = _read_world(root / "world.json")
        if {**present, "splits": {}} != description:
            raise PartCLIPSegError(f"{root} holds another version of PartShapes: choose an empty folder")
        description["splits"] = present["splits"]
    return description


def _read_world(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PartCLIPSegError(f"{path} is missing: is {path.parent} a PartShapes folder?")
    try:
        content = read_json(path)
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{path} {error}") from None
    found = set(content) if isinstance(content, dict) else set()
    missing = {"version", "objects", "unseen_objects", "object_parts", "splits"} - found
    if missing:
        raise PartCLIPSegError(f"{path} lacks {', '.join(sorted(missing))}: write the folder anew")
    return content


def _extent(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
