"""Photos that you annotated yourself: COCO JSON, or folders of index PNGs with a class list."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.data.classes import class_indices, class_list, meanings_of
from partclipseg.data.datasets.coco_source import SPLIT_NAMES, CocoSource
from partclipseg.data.datasets.roots import MissingSplitError, form_of_another_tool
from partclipseg.data.datasets.spec import DatasetSpec, OwnOptions, Split
from partclipseg.data.label_map import label_table, read_label_map
from partclipseg.data.paths import alike, files_by_stem
from partclipseg.data.photo import photo_suffixes, pictures_by_stem
from partclipseg.data.problem import Problem
from partclipseg.data.sample import UNLABELLED
from partclipseg.data.source import Source, SourceLabels, SourcePhoto
from partclipseg.data.values import is_text, quoted, whole_number
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import expanded
from partclipseg.json_file import read_json_or_yaml, read_text
from partclipseg.vocabulary import ObjectPart


def find_annotations(root: Path, split: str) -> Path:
    """Find the annotation file of a split by its usual names below the root.

    Raises:
        MissingSplitError: none is there; names the JSON files that are.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder: check --data")
    patterns = (
        "{}/annotations.json",
        "{}/_annotations.coco.json",
        "{}.json",
        "annotations/{}.json",
        "annotations/instances_{}.json",
    )
    candidates = [root / pattern.format(name) for name in SPLIT_NAMES[split] for pattern in patterns]
    candidates += [root / "annotations.json", root / "annotations.coco.json"]  # the latter of `partclipseg label`
    if found := next((path for path in candidates if os.path.lexists(path)), None):
        return found
    if other := form_of_another_tool(root):
        raise UsageError(f"{root}: there is no COCO JSON in it: {other}")
    files = sorted(path for pattern in ("*.json", "*/*.json") for path in root.glob(pattern))
    names = ", ".join(str(path.relative_to(root)) for path in files[:5])
    if not files:
        raise MissingSplitError(f"{root}: there is no COCO JSON in it, such as {split}.json: check --data")
    raise MissingSplitError(
        f"{root}: none of its files has a usual name for the annotations of {split}, such as {split}.json: name one of "
        f"{names} with --annotations"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexPngSource(Source):
    """Photos and index PNGs of the same names, in two folders."""

    label_paths: dict[str, Path] = field(repr=False)
    """Index PNG of each photo, by its key."""
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
        meanings = meanings_of(names.values(), file, object, mapping)
        pairs, objects = class_list(meanings)
        indices = class_indices(meanings, pairs, objects)
        # Tools write these values for unlabelled pixels; a class of that number replaces it below.
        unlabelled = {255: UNLABELLED, 65535: UNLABELLED}
        defects: list[Problem] = []
        photos = files_by_stem(images, photo_suffixes(), defects)
        maps = files_by_stem(labels, frozenset({".png"}), defects)
        spellings = {alike(key): path for key, path in {**pictures_by_stem(images), **photos}.items()}
        return cls(
            root=root,
            split=split,
            object_parts=pairs,
            objects=objects,
            photos=tuple(
                SourcePhoto(key, photos[key])
                if key in photos
                else SourcePhoto(key, images / f"{key}.jpg", spellings.get(alike(key)))
                for key in maps
            ),
            folders=(images, labels),
            defects=tuple(defects),
            label_paths=maps,
            part_table=label_table({**unlabelled, **{n: i for n, (i, _) in zip(names, indices, strict=True)}}),
            object_table=label_table({**unlabelled, **{n: i for n, (_, i) in zip(names, indices, strict=True)}}),
        )

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """Read as `Source.read_labels`."""
        path = self.label_paths[photo.key]
        parts, objects = (read_label_map(path, table, None, size) for table in (self.part_table, self.object_table))
        return SourceLabels(parts, objects)


def read_class_list(path: Path) -> dict[int, tuple[str, str | None]]:
    """Read the class name of each label number, and the object if the file names it apart.

    A text file with one name a line, from 0 on, no line empty; or YAML or JSON with such a list, a mapping from
    number to name, or a mapping from an object to the list of its parts, numbered through. Names are
    ``dog's ear``, pairs of object and part, or bare part words where the object is said elsewhere; ``background``
    stands for no label.

    Raises:
        UsageError: an unreadable file or another form.
    """
    try:
        if path.suffix.lower() in {".yaml", ".yml", ".json"}:
            content: Any = read_json_or_yaml(path)
        else:
            content = _class_lines(read_text(path))
    except PartCLIPSegError as error:
        raise UsageError(f"cannot read the class list {path}: it {error}") from None
    if isinstance(content, dict) and content and all(isinstance(value, list) for value in content.values()):
        content = [(word, part) for word, parts in content.items() for part in parts]
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path}: expected a list of class names, or a mapping from label number to name")
    names: dict[int, tuple[str, str | None]] = {}
    for key, value in content.items():
        label, word = whole_number(key), None
        name = value
        if isinstance(value, list | tuple) and len(value) == 2 and all(map(is_text, value)):
            word, part = value
            name = ObjectPart(word, part).name
        if label is None or not 0 <= label < 65535 or not is_text(name):
            shown = f"{quoted(key)}: {quoted(value)}"
            raise UsageError(f"{path}: {shown} is not a label number from 0 to 65534 and a class name")
        if label in names:
            raise UsageError(f"{path}: the label number {label} stands in it twice: keep one of the two")
        names[label] = (name, word)
    return names


def _class_lines(text: str) -> list[str]:
    """Return the lines of a text file; the line's place is the label number, so none may be skipped."""
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text.rstrip())]
    if lines[0] == "__ignore__":
        raise PartCLIPSegError(
            "is a list for labelme, whose first line '__ignore__' stands for unlabelled pixels: delete that line, so "
            "that the next name is label 0"
        )
    if lines != [""] and "" in lines:
        number = lines.index("") + 1
        raise PartCLIPSegError(
            f"has an empty line {number}, and a line's place is the label number: write 'background' there if label "
            f"{number - 1} is no class, or delete the line if the next name is label {number - 1}"
        )
    return [line for line in lines if line]


def _split_folder(root: Path, name: str, split: str) -> Path:
    """Find the folder of a split, or the folder of all photos if splits are not told apart."""
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
        raise UsageError(f"{root}: no such folder: check --data")
    other = next((entry for entry in root.iterdir() if entry.name.lower() == name), None)
    remedy = "rename it" if other and other.is_dir() else "it is no folder: move it away"
    hint = f" (found {other.name}: {remedy})" if other else ""
    if other is None and (form := form_of_another_tool(root)):
        raise UsageError(f"{root}: there is no folder {name}: {form}")
    raise UsageError(f"{root}: there is no folder {name}{hint}: own index PNGs lie in images and labels")


def _class_file(root: Path) -> Path:
    candidates = [root / f"classes{suffix}" for suffix in (".txt", ".yaml", ".yml", ".json")]
    if found := next((path for path in candidates if os.path.lexists(path)), None):
        return found
    if form := form_of_another_tool(root):
        raise UsageError(f"{root}: there is no class list: {form}")
    raise UsageError(f"{root}: there is no class list classes.txt, .yaml or .json: add one, or name it with --classes")


def _open_coco(root: Path, split: Split, own: OwnOptions) -> CocoSource:
    file = _path(own.get("annotations")) or find_annotations(root, split)
    return CocoSource.open(file, root, split, own.get("object"), _mapping(own), _path(own.get("images")))


def _open_index_png(root: Path, split: Split, own: OwnOptions) -> IndexPngSource:
    return IndexPngSource.open(root, split, own.get("object"), _mapping(own), _path(own.get("classes")))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else expanded(path)


def _mapping(own: OwnOptions) -> Path | Mapping[str, Any] | None:
    mapping = own.get("mapping")
    return mapping if mapping is None or isinstance(mapping, Mapping) else Path(mapping)


COCO = DatasetSpec(
    name="coco",
    summary="your own photos, with annotations as COCO JSON",
    open_split=_open_coco,
    options=frozenset({"object", "mapping", "annotations", "images"}),
)
INDEX_PNG = DatasetSpec(
    name="index-png",
    summary="your own photos, with label pictures and a class list",
    open_split=_open_index_png,
    options=frozenset({"object", "mapping", "classes"}),
)
