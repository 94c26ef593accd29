"""Few-shot splits: a few training photos of every object, drawn by a seed or named by a list.

OV-PARTS (Wei et al., NeurIPS 2023) trains on 16 shots by a list of its own, which names photos by their paths. Its rule
is not published; the one here is seeded: for each object, photos that show one of its parts, and at least one photo for
each object-part. Lists are exchanged by the last part of the paths, without its suffix.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.checks import check_fields, require, require_not_negative
from partclipseg.counts import count_of, noun
from partclipseg.data.source import FileDataset
from partclipseg.data.values import is_text, quoted
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import expanded, is_directory
from partclipseg.json_file import read_json
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import ObjectPart

log = logging.getLogger(__name__)

_FOLDERS = {"pascal-part-116": "PascalPart116", "ade20k-part-234": "ADE20KPart234"}
"""Names of the data sets' folders in OV-PARTS' paths."""

RULE = "photos of an object"
SPLIT_FILE = "few-shot.json"


@dataclass(frozen=True)
class FewShot:
    """Choice of a few-shot split, for a recipe."""

    shots: int = 0
    """Number of training photos of each object; 0 trains on all photos. A few-shot run learns all classes of a
    benchmark, not the seen ones alone."""
    shot_seed: int = 0
    """Seed of the choice of these photos; the same seed chooses the same photos on every machine."""
    shot_list: str = ""
    """Train on the photos of this list instead: the few-shot.json of another run, or OV-PARTS' train_16shot.json."""

    def __post_init__(self) -> None:
        check_fields(self, "few-shot")
        require_not_negative(self, "shots", "shot_seed")
        require(not (self.shots and self.shot_list), "give either shots or a shot_list, not both")
        require(not self.shot_seed or bool(self.shots), "shot_seed chooses photos for shots: give shots too")

    @property
    def wanted(self) -> bool:
        """Whether there is a few-shot split."""
        return bool(self.shots or self.shot_list)

    def choose(self, dataset: FileDataset) -> FewShotSplit:
        """Draw the split from a training split with one record a photo, or read it.

        Raises `UsageError` for a list that is no such list or that names none of the photos, and `DataError` for labels
        that cannot be read.
        """
        keys = [record.photo.key for record in dataset.records]
        if self.shot_list:
            return self.read(keys, dataset.name)
        classes = {record.photo.key: set(record.source.part_labels(record.photo)) for record in dataset.records}
        return self.draw(classes, dataset.records[0].source.object_parts)

    def read(self, keys: Collection[str], name: str) -> FewShotSplit:
        """Read the split from the list, and name photos in it that are not there in the log.

        Raises `UsageError` for a list that names none of the photos `keys` of `name`.
        """
        split = FewShotSplit.read(expanded(self.shot_list))
        absent = sorted(set(split.files) - set(keys))
        if len(absent) == len(split.files):
            raise UsageError(f"{self.shot_list} names none of the photos of {name}: name another list")
        if absent:
            log.warning(
                "%s: %d of its %s %s of %s, such as %s: the others are taken",
                self.shot_list, len(absent), count_of(len(split.files), "photo"),
                noun(len(absent), "is no training photo", "are no training photos"), name, absent[0],
            )  # fmt: skip
        return split

    def draw(self, classes: Mapping[str, set[int]], pairs: Sequence[ObjectPart]) -> FewShotSplit:
        """Draw the split from photos, by key, with the indices into `pairs` of the parts that each shows.

        Objects with fewer photos than `shots`, all of whose photos are taken, are counted in the log.
        """
        photos = Counter(word for labels in classes.values() for word in {pairs[label].object for label in labels})
        numbers = {pair.object: photos[pair.object] for pair in pairs}
        if few := sorted((number, word) for word, number in numbers.items() if number < self.shots):
            log.warning(
                "shots %d: %d of the %s %s fewer photos, such as %s with %d: all of theirs are taken",
                self.shots, len(few), count_of(len(numbers), "object"), noun(len(few), "has", "have"), few[0][1],
                few[0][0],
            )  # fmt: skip
        return FewShotSplit(tuple(draw_photos(classes, pairs, self.shots, self.shot_seed)), self.shots, self.shot_seed)


@dataclass(frozen=True)
class FewShotSplit:
    """Training photos of a few-shot split."""

    files: tuple[str, ...]
    """Keys of the photos, sorted."""
    shots: int | None = None
    """Number of photos of each object; None for a list that does not say it."""
    seed: int | None = None

    @classmethod
    def read(cls, path: Path) -> FewShotSplit:
        """Read a list as `write` writes it, or OV-PARTS' own. Raises `UsageError` for anything else."""
        try:
            content = read_json(path)
        except PartCLIPSegError as error:
            raise UsageError(f"cannot read the list of few-shot photos {path}: it {error}") from None
        shots = seed = None
        if isinstance(content, dict):
            shots, seed = (content.get(key) for key in ("shots", "seed"))
            content = content.get("files")
        entries: list[Any] = content if isinstance(content, list) else []
        names: list[Any] = [entry.get("file_name") if isinstance(entry, dict) else entry for entry in entries]
        wrong = [entry for entry, name in zip(entries, names, strict=True) if not is_text(name) or not _key(name)]
        if wrong or not names:
            found = f"{quoted(wrong[0])} is no photo" if wrong else "it lists no photo"
            form = '{"files": ["2008_000009"]} or a list of objects with "file_name"'
            raise UsageError(f"{path}: {found}: expected {form}")
        plain = (value if type(value) is int else None for value in (shots, seed))
        return cls(tuple(sorted({_key(name) for name in names})), *plain)

    def to_json(self) -> str:
        """Return the text of ``few-shot.json``, which `read` takes."""
        content = {"seed": self.seed, "shots": self.shots, "rule": RULE if self.seed is not None else "a list"}
        return json.dumps({**content, "files": list(self.files)}, indent=1) + "\n"

    def write(self, files: KeptFiles, paths: Sequence[str]) -> None:
        """Write ``few-shot.json``, and ``train_16shot.json`` (of 16 shots) with `paths` in OV-PARTS' form.

        Raises `PartCLIPSegError` if one cannot be written.
        """
        files.text(SPLIT_FILE, self.to_json())
        name = f"train_{self.shots or 'few_'}shot.json"
        files.text(name, json.dumps([{"file_name": path} for path in paths], indent=1) + "\n")
        files.raise_failed()


def split_of_model(model: str) -> FewShotSplit | None:
    """Return the split that a few-shot model was trained on, where the list lies in its folder or beside it; else None.

    Raises `UsageError` for a list that cannot be read.
    """
    for folder in (Path(model), Path(model).parent) if is_directory(model) else ():
        if os.path.lexists(folder / SPLIT_FILE):  # a folder or a link to nowhere is no list, and not absent
            return FewShotSplit.read(folder / SPLIT_FILE)
    return None


def draw_photos(classes: Mapping[str, set[int]], pairs: Sequence[ObjectPart], shots: int, seed: int) -> list[str]:
    """Choose photos, sorted: `shots` of every object with parts, and at least one of each object-part.

    Objects are taken in ascending number of their photos (ties by name). An object counts the photos that are chosen
    already, then takes others in an order of its own, from one generator, until `shots` or all are in. Last, each
    object-part that no chosen photo shows adds the first photo of its object's order that does.

    Args:
        classes: indices into `pairs` of the parts in each photo, by the photo's key.
        pairs: the object-parts, in label order.
        shots: number of photos of each object.
        seed: seed of the generator.
    """
    generator = np.random.default_rng(seed)
    photos: dict[str, list[str]] = {}
    for key in sorted(classes):
        for word in {pairs[label].object for label in classes[key]}:
            photos.setdefault(word, []).append(key)
    chosen: set[str] = set()
    orders: dict[str, list[str]] = {}
    for word in sorted(photos, key=lambda word: (len(photos[word]), word)):
        taken = [key for key in photos[word] if key in chosen]
        others = [key for key in photos[word] if key not in chosen]
        order = [others[place] for place in generator.permutation(len(others))]
        orders[word] = [*taken, *order]
        chosen.update(order[: max(0, shots - len(taken))])
    shown = {label for key in chosen for label in classes[key]}
    for label, pair in enumerate(pairs):
        if label not in shown:
            added = next((key for key in orders.get(pair.object, ()) if label in classes[key]), None)
            if added is not None:
                chosen.add(added)
                shown |= classes[added]
    return sorted(chosen)


def interchange_path(photo: Path, root: Path, dataset: str) -> str:
    """Return a photo's path as OV-PARTS writes it, ``datasets/PascalPart116/images/train/ID.jpg``."""
    inside = photo.relative_to(root).parts if photo.is_relative_to(root) else (photo.name,)
    return "/".join(("datasets", _FOLDERS.get(dataset, root.name), *inside))


def _key(name: str) -> str:
    """Return the last part of a path without its suffix."""
    last = re.split(r"[/\\]", name.strip())[-1]
    return re.sub(r"\.(jpe?g|png|bmp|webp|tiff?)$", "", last, flags=re.IGNORECASE)
