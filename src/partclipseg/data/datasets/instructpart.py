"""InstructPart: 2400 photos, each with the mask of one part and instructions that ask for it in words.

Wan et al., *InstructPart: Task-Oriented Part Segmentation with Instruction Reasoning*, ACL 2025. A split is a folder of
``images/BASE-OBJECT-PART.jpg``, ``masks/BASE-OBJECT-PART.png`` (0 outside the part, anything else inside; of a JPEG
file, which blurs, from half of white on) and ``data_SPLIT.json``, which lists the parts of each photo with six
phrasings. ``train`` is ``train/train1800``, or the largest folder of its kind that is there.

Its own scores ask one question a photo: see `evaluation.referring`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.data.classes import class_indices, class_list, words_of
from partclipseg.data.datasets.roots import MissingSplitError
from partclipseg.data.datasets.spec import DatasetSpec, Split
from partclipseg.data.paths import files_by_stem, inside
from partclipseg.data.photo import PHOTO_SUFFIXES, photo_formats
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.sample import UNLABELLED
from partclipseg.data.source import Source, SourceLabels, SourcePhoto
from partclipseg.data.values import is_text, quoted
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_file
from partclipseg.json_file import read_json
from partclipseg.vocabulary import ObjectPart

NAME = "instructpart"
PHRASINGS = (
    "a task, as a person wrote it",
    "a task, as a language model wrote it",
    "a sentence with part and object",
    "a sentence with part, object and affordance",
    "part and object",
    "part, object and affordance",
)
"""Meaning of the entries of ``instruction``, in the file's order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InstructPart(Source):
    """One split of InstructPart. Its photos are the pairs of photo and part that the list names."""

    file: Path
    masks: dict[str, Path] = field(repr=False)
    """Mask pictures by their names without suffix."""
    labels: dict[str, int] = field(repr=False)
    """Index into `object_parts` of each photo's part, by key."""
    instructions: dict[str, tuple[str, ...]] = field(repr=False)
    """Phrasings of the question of each photo, by key; see `PHRASINGS`."""

    @classmethod
    def open(cls, folder: Path, split: str) -> InstructPart:
        """Open the folder of a split."""
        file = _list_file(folder, split)
        entries = _read(file)
        defects: list[Problem] = []
        found: dict[str, tuple[ObjectPart, Path, tuple[str, ...]]] = {}
        photos, masks = (files_by_stem(folder / name, PHOTO_SUFFIXES, defects) for name in ("images", "masks"))
        for place, entry in enumerate(entries):
            for key, pair, base, texts in _parts_of(entry, place, file, defects):
                if key in found:
                    message = f"entry {place} names {pair.name} of {base} twice: keep one of the two"
                    defects.append(Problem("repeated", file, message))
                    continue
                try:
                    path = inside(folder / "images", f"{key}.jpg", file)
                except DataError as error:
                    defects.append(error.problem)
                    continue
                found[key] = pair, photos.get(key, photos.get(base, path)), texts
        meanings = [pair for pair, _, _ in found.values()]
        pairs, objects = class_list(meanings)
        indices = class_indices(meanings, pairs, objects)
        return cls(
            root=folder,
            split=split,
            object_parts=pairs,
            objects=objects,
            photos=tuple(SourcePhoto(key, path) for key, (_, path, _) in found.items()),
            folders=(folder / "images", folder / "masks"),
            defects=tuple(defects),
            file=file,
            masks=masks,
            labels={key: label for key, (label, _) in zip(found, indices, strict=True)},
            instructions={key: texts for key, (_, _, texts) in found.items()},
        )

    @property
    def label_file(self) -> Path:
        """See `Source.label_file`."""
        return self.file

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """See `Source.read_labels`."""
        path = self.masks.get(photo.key, self.folders[1] / f"{photo.key}.png")
        parts = np.where(_read_mask(path, size), np.int32(self.labels[photo.key]), np.int32(UNLABELLED))
        return SourceLabels(parts, np.full_like(parts, UNLABELLED))

    def folder_problems(self) -> Iterator[Problem]:
        """Yield photos and masks that the list does not name."""
        used = {photo.path for photo in self.photos}
        for folder in self.folders:
            for key, path in files_by_stem(folder, PHOTO_SUFFIXES).items():
                if key not in self.labels and path not in used:
                    message = f"is not named in {self.file.name}: add it, or remove the file"
                    yield Problem("missing label", path, message)


def _parts_of(
    entry: Any, place: int, file: Path, defects: list[Problem]
) -> Iterator[tuple[str, ObjectPart, str, tuple[str, ...]]]:
    """Yield key, part, photo name and phrasings of each part of one entry."""
    name: Any = entry.get("image_path") if isinstance(entry, dict) else None
    parts: Any = entry.get("part_list") if isinstance(entry, dict) else None
    if not is_text(name) or not isinstance(parts, list):
        message = f"entry {place} has no image_path with a part_list: fetch the file again"
        defects.append(Problem("annotation", file, message))
        return
    base = re.split(r"[/\\]", name)[-1]
    base = base.rsplit(".", 1)[0] if "." in base[1:] else base
    for part in parts:
        words: list[Any] = [part.get(key) if isinstance(part, dict) else None for key in ("object", "part")]
        if not all(map(is_text, words)):
            message = f"entry {place} has a part without an object and a part word: it is {quoted(part)}"
            defects.append(Problem("annotation", file, f"{message}; write both"))
            continue
        texts = part.get("instruction", [])
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(map(is_text, texts)):
            message = f"entry {place} has the instruction {quoted(texts)}, which is no list of sentences"
            defects.append(Problem("annotation", file, f"{message}: write them, or leave it out"))
            texts = []
        written = [word.strip().replace(" ", "_") for word in words]
        pair = ObjectPart(*map(words_of, words))
        yield "-".join([base, *written]), pair, base, tuple(texts)


def _list_file(folder: Path, split: str) -> Path:
    named = folder / f"data_{split}.json"
    return named if is_file(named) else next(iter(sorted(folder.glob("data*.json"))), named)


def _read(file: Path) -> list[Any]:
    if not is_file(file):
        raise DataError(Problem("missing label", file, "the list of parts is missing"))
    try:
        content = read_json(file)
    except PartCLIPSegError as error:
        raise DataError(Problem("unreadable", file, str(error))) from None
    if not isinstance(content, list):
        raise DataError(Problem("annotation", file, "is not InstructPart's list of photos: fetch it again"))
    return content


def _read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask picture as bool `[H, W]`: a pixel is inside where any of its colours is not 0, in JPEG above 127."""
    if not is_file(path):
        raise DataError(Problem("missing label", path, "the mask is missing: restore it or remove its photo"))
    try:
        with Image.open(path, formats=photo_formats()) as image:
            found = (image.height, image.width)
            if found == size:
                bands = image if image.mode == "P" else image.convert("RGB")
                values = np.asarray(bands)
    except Exception as error:  # decoders raise almost anything on damaged data
        reason = str(error) or type(error).__name__
        raise DataError(Problem("unreadable", path, f"cannot be read ({reason}): replace it")) from None
    if found != size:
        problem = f"is {found[1]}x{found[0]}, but its photo is {size[1]}x{size[0]}: one of them was resized"
        raise DataError(Problem("size", path, problem))
    least = 127 if path.suffix.lower() in (".jpg", ".jpeg") else 0
    return np.any(values.reshape(*size, -1) > least, axis=2)


def _folder(root: Path, split: Split) -> Path:
    """Return the folder of a split; of the training folders of several sizes the largest."""
    for base in (root, root / "InstructPart", root / "instructpart_part" / "InstructPart"):
        folder = base / split
        if split == "train" and folder.is_dir():
            sizes = [path for path in folder.iterdir() if re.fullmatch(r"train[0-9]+", path.name) and path.is_dir()]
            if sizes:
                return max(sizes, key=lambda path: int(path.name[5:]))
        if _is_own(folder, split):
            return folder
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder: check --data")
    missing = f"{root} has no folder {split} of InstructPart, with images, masks and data_{split}.json"
    above = root.absolute().parent
    if _is_own(above / split, split):
        missing += f"; {above} has: use --data {above}"
    raise MissingSplitError(missing)


def _is_own(folder: Path, split: str) -> bool:
    """Whether a folder looks like a split of InstructPart, complete or not."""
    return is_file(_list_file(folder, split)) or (folder / "masks").is_dir()


DATASET = DatasetSpec(
    name=NAME,
    summary="a benchmark",
    open_split=lambda root, split, own: InstructPart.open(_folder(root, split), split),
    remark=lambda dataset: "each photo has one labelled part; the benchmark's own scores are those of "
    "`partclipseg benchmark instructpart`",
)
