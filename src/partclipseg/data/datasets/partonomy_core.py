"""PARTONOMY-Core: photos of specialised objects with masks of their parts, made to score explanations by parts.

Blume, Kim et al., *PARTONOMY: Large Multimodal Models with Part-Level Visual Understanding*, NeurIPS 2025. All of it is
for testing.

Three forms are read, known from the authors' public code and not from the files: a JSON list of questions, a JSON
descriptor with ``instances``, each with ``image_path``, ``image_label`` and ``segmentations`` (part to masks), and a
folder ``masks/CONCEPT--part:PART/*.json`` with one mask a file. Masks are run lengths or ``polygon``. Objects are named
``airplanes--agricultural``; a file ``object_names_to_nl.json`` in the root gives them words, else the last word counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partclipseg.data.classes import class_indices, class_list, words_of
from partclipseg.data.datasets.roots import MissingSplitError
from partclipseg.data.datasets.spec import DatasetSpec, Split
from partclipseg.data.painted import PaintedPhoto, PaintedSource, PartMask
from partclipseg.data.paths import inside
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.source import SourcePhoto
from partclipseg.data.values import is_text, quoted
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_file
from partclipseg.json_file import read_json
from partclipseg.vocabulary import ObjectPart

NAME = "partonomy-core"
NAMES = "object_names_to_nl.json"
PART = "--part:"
"""Text between object and part in the name of a concept."""


@dataclass
class _Instance:
    """One photo with its object and, by part, its masks as they are written."""

    image: str
    label: str
    file: Path
    masks: dict[str, list[Any]] = field(default_factory=dict)


def open_split(root: Path, split: Split) -> PaintedSource:
    """Open the benchmark. Raises `MissingSplitError` for ``train``, which it has not."""
    if split == "train":
        raise MissingSplitError(f"{NAME} has test photos only: score it, and train on other data")
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder: check --data")
    defects: list[Problem] = []
    instances = _from_folder(root, defects) if (root / "masks").is_dir() else _from_files(root, defects)
    words = _object_words(root, [one.label for one in instances.values()], defects)
    meanings = [ObjectPart(words[one.label], part) for one in instances.values() for part in one.masks]
    pairs, objects = class_list(meanings)
    labels = {pair: label for pair, (label, _) in zip(meanings, class_indices(meanings, pairs, objects), strict=True)}
    photos: dict[str, SourcePhoto] = {}
    painted: dict[str, PaintedPhoto] = {}
    for one in instances.values():
        try:
            path = _photo(root, one)
        except DataError as error:
            defects.append(error.problem)
            continue
        key = path.stem if path.stem not in photos else f"{path.parent.name}-{path.stem}"
        if key in photos:
            defects.append(Problem("repeated", one.file, f"two photos have the name {key}: rename one of them"))
            continue
        photos[key] = SourcePhoto(key, path)
        masks, sizes = [], set()
        for part, found in one.masks.items():
            label = labels[ObjectPart(words[one.label], part)]
            for value in found:
                segmentation, size = _segmentation(value)
                sizes.add(size)
                masks.append(PartMask(label, segmentation, f"the mask of {part}"))
        stated = sizes.pop() if len(sizes) == 1 else (None, None)
        painted[key] = PaintedPhoto(tuple(masks), stated, one.file)
    if not photos and not defects:
        raise UsageError(f"{root} is not the root of {NAME}: no photo with part masks is listed in it")
    return PaintedSource(
        root=root,
        split="test",
        object_parts=pairs,
        objects=objects,
        photos=tuple(photos.values()),
        defects=tuple(defects),
        painted=painted,
        file=root,
    )


def _from_files(root: Path, defects: list[Problem]) -> dict[str, _Instance]:
    """Read instances from the JSON files of the root, questions or a descriptor."""
    instances: dict[str, _Instance] = {}
    files = sorted(path for path in root.glob("*.json") if path.name != NAMES and not path.name.startswith("."))
    if not files:
        raise UsageError(f"{root} is not the root of {NAME}: there is neither a JSON file nor a folder masks in it")
    for file in files:
        content = _read(file, defects)
        entries = content.get("instances") if isinstance(content, dict) else content
        if content is not None and not isinstance(entries, list):
            message = "is neither a list of questions nor a descriptor with 'instances': move it out of the folder"
            defects.append(Problem("annotation", file, message))
            continue
        for place, entry in enumerate(entries or ()):
            known: dict[str, Any] = entry if isinstance(entry, dict) else {}
            values: list[Any] = [known.get(name) for name in ("image_path", "image_label", "segmentations")]
            image, label, masks = values
            if not is_text(image) or not is_text(label) or not isinstance(masks, dict):
                message = f"entry {place} has no image_path, image_label and segmentations: fetch the file again"
                defects.append(Problem("annotation", file, message))
                continue
            one = instances.setdefault(image, _Instance(image, _object(label), file))
            if one.label != _object(label):
                message = f"entry {place} calls the object of {quoted(image)} {quoted(label)}, an earlier entry"
                defects.append(Problem("repeated", file, f"{message} {one.label}: keep one of the two"))
                continue
            for name, found in masks.items():
                # Several questions of one photo repeat its masks.
                if (part := _part(name)) and part not in one.masks:
                    one.masks[part] = _list(found, f"the part {quoted(name)} of entry {place}", file, defects)
    return instances


def _from_folder(root: Path, defects: list[Problem]) -> dict[str, _Instance]:
    """Read instances from ``masks/CONCEPT--part:PART/*.json``; masks of whole objects are left aside."""
    instances: dict[str, _Instance] = {}
    for folder in sorted(path for path in (root / "masks").iterdir() if path.is_dir() and PART in path.name):
        label, _, part = folder.name.lower().partition(PART)
        for file in sorted(folder.glob("*.json")):
            content = _read(file, defects)
            if content is None:
                continue
            image: Any = content.get("image_path") if isinstance(content, dict) else None
            if not is_text(image):
                defects.append(Problem("annotation", file, "has no image_path: fetch the file again"))
                continue
            one = instances.setdefault(image, _Instance(image, _object(label), file))
            if one.label != _object(label):
                message = f"its photo {quoted(image)} belongs to {one.label} as well: keep one of the two"
                defects.append(Problem("repeated", file, message))
                continue
            one.masks.setdefault(words_of(part), []).extend(_list([content], "the mask", file, defects))
    return instances


def _read(file: Path, defects: list[Problem]) -> Any:
    try:
        content = read_json(file)
    except PartCLIPSegError as error:
        defects.append(Problem("unreadable", file, str(error)))
        return None
    if content is None:
        defects.append(Problem("annotation", file, "holds nothing: fetch the file again"))
    return content


def _list(found: Any, what: str, file: Path, defects: list[Problem]) -> list[Any]:
    masks = found if isinstance(found, list) else [found]
    sound = [mask for mask in masks if isinstance(mask, dict) and _segmentation(mask)[0] is not None]
    if len(sound) < len(masks) or not masks:
        message = f"{what} has a mask without run lengths ('counts') or 'polygon': fetch the file again"
        defects.append(Problem("annotation", file, message))
    return sound


def _segmentation(mask: dict[str, Any]) -> tuple[Any, tuple[int | None, int | None]]:
    """Return a mask as `decode_mask` takes it, None for neither form, and the size that it states."""
    mask = mask["segmentation"] if isinstance(mask.get("segmentation"), dict) else mask
    rle = mask["rle"] if isinstance(mask.get("rle"), dict) else mask
    size = rle.get("size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
    stated = (height, width) if type(height) is int and type(width) is int else (None, None)
    if "counts" in rle:
        return {"size": size, "counts": rle["counts"]}, stated
    polygon = mask.get("polygon")
    if isinstance(polygon, list) and polygon:
        return (polygon if isinstance(polygon[0], list) else [polygon]), stated
    return None, stated


def _object(label: str) -> str:
    """Return the concept of an object, ``airplanes--agricultural``."""
    return label.split(PART)[0].removeprefix("object--").strip().lower()


def _part(name: str) -> str:
    """Return the part word of a segmentation; empty for the mask of a whole object."""
    if not is_text(name):
        return ""
    if PART not in name and "--" in name:
        return ""
    return words_of(name.split(PART)[-1].lower())


def _object_words(root: Path, labels: list[str], defects: list[Problem]) -> dict[str, str]:
    """Return the word of each concept; where two categories share a concept, the category is added."""
    listed: dict[str, str] = {}
    path = root / NAMES
    if os.path.lexists(path):
        content = _read(path, defects)
        if isinstance(content, dict) and all(map(is_text, content.values())):
            listed = {_object(key): value for key, value in content.items()}
        elif content is not None:
            defects.append(Problem("class list", path, "is no mapping from concept to words: fetch it again"))
    last = {label: words_of(label.split("--")[-1]) for label in dict.fromkeys(labels)}
    shared = {word for word in last.values() if list(last.values()).count(word) > 1}
    return {
        label: words_of(listed[label])
        if label in listed
        else f"{word} {words_of(label.split('--')[0])}" if word in shared and "--" in label else word
        for label, word in last.items()
    }


def _photo(root: Path, one: _Instance) -> Path:
    """Return the photo's path; of a path from the authors' machine the last folders count."""
    parts = [part for part in one.image.replace("\\", "/").split("/") if part not in ("", ".")]
    candidates = list(_tails(root, parts, one))
    return next((path for path in candidates if is_file(path)), candidates[0])


def _tails(root: Path, parts: list[str], one: _Instance) -> Iterator[Path]:
    for start in range(max(1, len(parts))):
        for base in (root, root / "images"):
            yield inside(base, "/".join(parts[start:]), one.file)


DATASET = DatasetSpec(
    name=NAME,
    summary="a benchmark",
    open_split=lambda root, split, own: open_split(root, split),
    trains=False,
)
