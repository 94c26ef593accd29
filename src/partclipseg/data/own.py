"""Photos annotated by yourself: COCO JSON, or folders of index PNGs with a class list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.data.classes import Meaning, class_list, meanings_of
from partclipseg.data.coco import BrokenMaskError, CocoPhoto, paint, read_coco
from partclipseg.data.label_map import label_table, read_label_map
from partclipseg.data.paths import files_by_stem, inside
from partclipseg.data.photo import PHOTO_SUFFIXES
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.sample import UNLABELLED
from partclipseg.data.source import LabelMaps, Photo, Source, check_photo_size
from partclipseg.errors import UsageError
from partclipseg.vocabulary import ObjectPart

SPLIT_NAMES = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
"""Our split: the usual names of folders and files that hold it, the first found counts."""


class MissingSplitError(UsageError):
    """The files of a split are not where they usually are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoSource(Source):
    """One COCO annotation file and its photos."""

    file: Path
    entries: dict[str, CocoPhoto] = field(repr=False)
    """The photos' entries, by key."""
    labels: dict[Any, tuple[int, int]] = field(repr=False)
    """Category id: index into `object_parts` and into `objects`; -1 where it does not mark one."""

    @classmethod
    def open(
        cls,
        file: Path,
        root: Path,
        split: str,
        object: str | None = None,
        mapping: Path | Mapping[str, Any] | None = None,
        images: Path | None = None,
    ) -> CocoSource:
        """Open an annotation file.

        Args:
            file: the JSON file.
            root: the photos lie in this folder or below.
            split: what to call it.
            object: whose parts all categories are, where the file does not say.
            mapping: what each category stands for: see `classes.read_mapping`.
            images: where the photos lie; by default they are looked for beside the file and below the root.

        Raises:
            DataError: the file is missing or is no COCO annotation file.
            UsageError: it is not clear whose parts the categories are.
        """
        content = read_coco(file)
        groups = ((str(c["name"]), c.get("supercategory")) for c in content.categories)
        meanings = meanings_of([(n, g if isinstance(g, str) else None) for n, g in groups], file, object, mapping)
        pairs, objects = class_list(meanings)
        folders = [images] if images else _photo_folders(file, root, split)
        defects = list(content.defects)
        located = _locate(content.photos, folders, file, defects)
        keys = _keys([path.relative_to(folder) for _, folder, path in located])
        return cls(
            root=root,
            split=split,
            object_parts=pairs,
            objects=objects,
            photos=tuple(Photo(key, path) for key, (_, _, path) in zip(keys, located, strict=True)),
            defects=tuple(defects),
            file=file,
            entries={key: entry for key, (entry, _, _) in zip(keys, located, strict=True)},
            labels={
                category["id"]: _indices(meaning, pairs, objects)
                for category, meaning in zip(content.categories, meanings, strict=True)
            },
        )

    def read_labels(self, photo: Photo, size: tuple[int, int]) -> LabelMaps:
        """See `Source.read_labels`; small masks lie on top, parts over whole objects."""
        entry = self.entries[photo.key]
        check_photo_size(photo.path, self.file, entry.size, size)
        maps = []
        for kind in (0, 1):
            chosen = [a for a in entry.annotations if self.labels[a.category][kind] >= 0]
            if kind == 1:  # whole objects: those of parts follow from their parts
                chosen = [a for a in chosen if self.labels[a.category][0] < 0]
            try:
                labels = [self.labels[a.category][kind] for a in chosen]
                maps.append(paint(labels, [a.segmentation for a in chosen], size))
            except BrokenMaskError as error:
                problem = f"annotation {chosen[error.place].number} of {photo.key}: {error.message}"
                raise DataError(Problem("annotation", self.file, problem)) from None
        return LabelMaps(*maps)

    def label_problems(self, photo: Photo, labels: LabelMaps) -> Iterator[Problem]:
        """None: a photo without any part is an ordinary negative here."""
        return iter(())


def find_annotations(root: Path, split: str) -> Path:
    """The annotation file of a split, by its usual names below the root.

    Raises:
        MissingSplitError: none is there; names the JSON files that are.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder: check --root")
    patterns = (
        "{}/annotations.json",
        "{}/_annotations.coco.json",
        "{}.json",
        "annotations/{}.json",
        "annotations/instances_{}.json",
    )
    candidates = [root / pattern.format(name) for name in SPLIT_NAMES[split] for pattern in patterns]
    candidates.append(root / "annotations.json")
    if found := next((path for path in candidates if path.is_file()), None):
        return found
    files = sorted(path for pattern in ("*.json", "*/*.json") for path in root.glob(pattern))
    names = ", ".join(str(path.relative_to(root)) for path in files[:5])
    hint = f"name one of {names} with --annotations" if files else "there is no JSON file in it: check --root"
    raise MissingSplitError(f"{root}: no annotation file of the {split} split has a usual name: {hint}")


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexPngSource(Source):
    """Photos and index PNGs of the same names, in two folders."""

    label_folder: Path
    part_table: np.ndarray = field(repr=False)
    object_table: np.ndarray = field(repr=False)

    @classmethod
    def open(
        cls,
        root: Path,
        split: str,
        object: str | None = None,
        mapping: Path | Mapping[str, Any] | None = None,
        classes: Path | None = None,
    ) -> IndexPngSource:
        """Open ``images/`` and ``labels/``, or their subfolders of the split's name, and the class list.

        Args:
            root: holds the folders and ``classes.txt``, ``.yaml`` or ``.json``.
            split: ``train`` or ``test``.
            object: whose parts all classes are, where their names do not say.
            mapping: what each class stands for: see `classes.read_mapping`.
            classes: the class list, where it lies elsewhere: see `read_class_list`.

        Raises:
            UsageError: a folder or the class list is missing or unclear.
        """
        images, labels = (_split_folder(root, name, split) for name in ("images", "labels"))
        file = classes or _class_file(root)
        names = read_class_list(file)
        meanings = meanings_of([(name, None) for name in names.values()], file, object, mapping)
        pairs, objects = class_list(meanings)
        indices = [_indices(meaning, pairs, objects) for meaning in meanings]
        # What tools write where nothing is labelled; a class of that number takes its place below.
        unlabelled = {255: UNLABELLED, 65535: UNLABELLED}
        photos = files_by_stem(images, PHOTO_SUFFIXES)
        return cls(
            root=root,
            split=split,
            object_parts=pairs,
            objects=objects,
            photos=tuple(
                Photo(key, photos.get(key, images / f"{key}.jpg")) for key in files_by_stem(labels, frozenset({".png"}))
            ),
            folders=(images, labels),
            label_folder=labels,
            part_table=label_table({**unlabelled, **{n: i for n, (i, _) in zip(names, indices, strict=True)}}),
            object_table=label_table({**unlabelled, **{n: i for n, (_, i) in zip(names, indices, strict=True)}}),
        )

    def read_labels(self, photo: Photo, size: tuple[int, int]) -> LabelMaps:
        """See `Source.read_labels`."""
        path = self.label_folder / f"{photo.key}.png"
        parts, objects = (read_label_map(path, table, None, size) for table in (self.part_table, self.object_table))
        return LabelMaps(parts, objects)


def read_class_list(path: Path) -> dict[int, str]:
    """Label number: class name.

    A text file with one name a line, from 0 on; or YAML or JSON with such a list, a mapping from number to name,
    or a mapping from an object to the list of its parts, numbered through. Names are ``dog's ear``, or bare part
    words where the object is said elsewhere; ``background`` stands for no label.

    Raises:
        UsageError: an unreadable file or another form.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() not in {".yaml", ".yml", ".json"}:
            content: Any = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the class list {path}: {error}") from None
    if isinstance(content, dict) and content and all(isinstance(value, list) for value in content.values()):
        content = [(word, part) for word, parts in content.items() for part in parts]
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path}: expected a list of class names, or a mapping from label number to name")
    names = {}
    for label, name in content.items():
        if isinstance(name, list | tuple) and len(name) == 2:
            name = ObjectPart(*map(str, name)).name
        if not isinstance(name, str) or not str(label).isdigit() or int(label) >= 65535:
            raise UsageError(f"{path}: {label!r}: {name!r} is not a label number from 0 to 65534 and a class name")
        names[int(label)] = name
    return names


def _indices(meaning: Meaning, pairs: tuple[ObjectPart, ...], objects: tuple[str, ...]) -> tuple[int, int]:
    """Part index and object index of a class; -1 where it has none."""
    folded = [word.casefold() for word in objects]
    if meaning is None:
        return UNLABELLED, UNLABELLED
    if isinstance(meaning, str):
        return UNLABELLED, folded.index(meaning.casefold())
    word, part = (" ".join(text.split()).casefold() for text in meaning)
    classes = [(pair.object.casefold(), pair.part.casefold()) for pair in pairs]
    return classes.index((word, part)), folded.index(word)


def _photo_folders(file: Path, root: Path, split: str) -> list[Path]:
    """Where photos may lie, the likeliest first."""
    folders = [file.parent, file.parent / "images"]
    for base in (root if root.is_dir() else root.parent, root / "images"):
        folders += [base, *(base / name for name in SPLIT_NAMES.get(split, ()))]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _locate(
    photos: tuple[CocoPhoto, ...], folders: list[Path], file: Path, defects: list[Problem]
) -> list[tuple[CocoPhoto, Path, Path]]:
    """Each photo with the folder and path that it was found at; the first place that fits is tried first again."""
    located = []
    usual: tuple[int, Path] | None = None
    for photo in photos:
        names = [name for name in (photo.path, photo.file_name) if name]
        if not names:
            defects.append(Problem("annotation", file, f"the photo {photo.number} has neither file_name nor path"))
            continue
        try:
            places = [
                (index, folder, inside(folder, name, file)) for folder in folders for index, name in enumerate(names)
            ]
        except DataError as error:
            defects.append(error.problem)
            continue
        places.sort(key=lambda place: (place[0], place[1]) != usual)
        index, folder, path = next((place for place in places if place[2].is_file()), places[-1])
        if path.is_file():
            usual = (index, folder)
        located.append((photo, folder, path))
    return located


def _keys(paths: list[Path]) -> list[str]:
    """Short names that are unique and fit for files."""
    stems = Counter(path.stem for path in paths)
    longer = [path.stem if stems[path.stem] == 1 else "-".join(path.with_suffix("").parts) for path in paths]
    repeats = Counter(longer)
    return [key if repeats[key] == 1 else f"{key}-{place}" for place, key in enumerate(longer)]


def _split_folder(root: Path, name: str, split: str) -> Path:
    """The folder of a split, or the folder of all where the splits are not told apart."""
    folders = {
        one: [root / pair for word in words for pair in (f"{name}/{word}", f"{word}/{name}") if (root / pair).is_dir()]
        for one, words in SPLIT_NAMES.items()
    }
    if folders[split]:
        return folders[split][0]
    if any(folders.values()):
        raise MissingSplitError(f"{root}: there is no folder {name}/{split} of the {split} split")
    if (root / name).is_dir():
        return root / name
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder: check --root")
    other = next((entry.name for entry in root.iterdir() if entry.name.lower() == name), None)
    hint = f" (found {other}: rename it)" if other else ""
    raise UsageError(f"{root}: there is no folder {name}{hint}: own index PNGs lie in images and labels")


def _class_file(root: Path) -> Path:
    candidates = [root / f"classes{suffix}" for suffix in (".txt", ".yaml", ".yml", ".json")]
    if found := next((path for path in candidates if path.is_file()), None):
        return found
    raise UsageError(f"{root}: there is no class list classes.txt, .yaml or .json: add one, or name it with --classes")

