"""Structure of COCO annotation files; their masks are decoded by `coco_masks`.

Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from partclipseg.data.problem import DataError, Problem, ProblemKind
from partclipseg.data.values import entry_id, is_text, quoted, whole_number
from partclipseg.errors import PartCLIPSegError
from partclipseg.json_file import read_json


@dataclass(frozen=True)
class Annotation:
    """One mask of one photo."""

    number: Any
    """The file's own ``id``, or the place in the list, for messages."""
    category: int | str
    """Id of the category: see `values.entry_id`."""
    segmentation: Any
    """None only where boxes are read too, and the entry has none."""
    box: Any = None
    """Its ``bbox``, unchecked; read where boxes are asked for."""
    score: Any = None
    """Its ``score``, likewise."""
    owner: int | str | None = None
    """PACO's ``obj_ann_id``: the id of the annotation of the object that this one is, or is a part of."""
    crowd: bool = False
    """Whether it stands for several objects that are not told apart: its ``iscrowd``."""
    area: float | None = None
    """Its ``area`` in pixels; None where the file states none."""

    def __str__(self) -> str:
        return f"annotation {self.number if is_text(self.number) else quoted(self.number)}"


@dataclass(frozen=True)
class CocoPhoto:
    """One entry of ``images`` and its annotations, in the file's order."""

    number: int | str
    file_name: str | None
    path: str | None
    """Path that coco-annotator writes; it is not part of the format."""
    size: tuple[int | None, int | None]
    """Height and width as the file states them; None where it does not."""
    annotations: tuple[Annotation, ...]
    negative: frozenset[int | str] | None = None
    """LVIS's ``neg_category_ids``: categories that are known to be absent; None where the file does not list them."""
    not_exhaustive: frozenset[int | str] = frozenset()
    """LVIS's ``not_exhaustive_category_ids``: categories of which not everything is annotated."""


@dataclass(frozen=True)
class Category:
    """One entry of ``categories``."""

    number: int | str
    name: str
    group: str | None
    """Its ``supercategory``."""


@dataclass(frozen=True)
class CocoFile:
    """Content of a file. Malformed entries are reported in `defects`."""

    photos: tuple[CocoPhoto, ...]
    categories: tuple[Category, ...]
    defects: tuple[Problem, ...]


def read_coco(path: Path, categories: Iterable[int] | None = None, boxes: bool = False) -> CocoFile:
    """Read an annotation file.

    Args:
        path: the JSON file.
        categories: the category ids that annotations may have, where a benchmark fixes them; where None, those that
            the file lists.
        boxes: read boxes, scores and owners too; an annotation then needs no outline.

    Raises:
        DataError: the file is missing, is not JSON, or lacks ``images``, ``annotations`` or needed ``categories``.
    """
    content = _load(path, ("images", "annotations") if categories is not None else _LISTS)
    entries = _Entries(path, content)
    named = () if categories is not None else tuple(entries.categories())
    known = {category.number for category in named} if categories is None else set(categories)
    photos = tuple(entries.photos(known))
    by_photo: dict[int | str, list[Annotation]] = {photo.number: [] for photo in photos}
    for photo, annotation in entries.annotations(boxes):
        if photo not in by_photo:
            problem = f"{annotation} belongs to the photo {quoted(photo)}, which the file does not list: remove it"
            entries.report("annotation", problem)
        elif annotation.category not in known:
            problem = f"{annotation} has the category {quoted(annotation.category)}, which is not in the class list"
            entries.report("unknown label", problem)
        else:
            by_photo[photo].append(annotation)
    entries.check_owners(by_photo)
    read = (replace(photo, annotations=tuple(by_photo[photo.number])) for photo in photos)
    return CocoFile(tuple(read), named, tuple(entries.defects))


def repeated_photo(first: CocoPhoto, second: CocoPhoto, name: str, file: Path) -> Problem:
    """Report two entries of ``images`` for the same photo, of which only one would count."""
    numbers = f"{quoted(first.number)} and {quoted(second.number)}"
    problem = f"the entries {numbers} of 'images' are the same photo {name}: put their annotations under one of them"
    return Problem("repeated", file, problem)


_LARGEST_AREA = 1e10
"""Upper limit (excluded) of an area in pixels; no photo has as many."""

_LISTS = ("images", "annotations", "categories")


def _load(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    if not os.path.lexists(path):
        raise DataError(Problem("missing label", path, "the annotation file is missing"))
    try:
        content = read_json(path)
    except PartCLIPSegError as error:
        raise DataError(Problem("unreadable", path, str(error))) from None
    for key in needed:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            problem = f"is not a COCO annotation file: there is no list {key!r} in it"
            raise DataError(Problem("annotation", path, problem))
    return content


class _Entries:
    """Reader of the lists of one file. Malformed entries are reported in `defects`."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.defects: list[Problem] = []
        self._content = content

    def report(self, kind: ProblemKind, message: str) -> None:
        """Add a defect."""
        self.defects.append(Problem(kind, self.path, message))

    def categories(self) -> Iterator[Category]:
        """Return the sound entries of ``categories``, each id once."""
        if not self._content["categories"]:
            self.report("class list", "lists no category, which every annotation needs: export it with its categories")
        names: dict[int | str, str] = {}
        for place, entry in self._entries("categories", ("id", "name"), ("id",)):
            number, name, group = entry_id(entry["id"]), entry["name"], entry.get("supercategory")
            where = f"entry {place} of 'categories'"
            if number is None or not is_text(name):
                if number is not None:
                    self.report("annotation", f"{where} has the name {quoted(name)}, which is not text: name the class")
                continue
            if group is not None and group != "" and not is_text(group):
                problem = f"{where} has the supercategory {quoted(group)}, which is not text: name the object"
                self.report("annotation", problem)
                continue
            if number in names:
                problem = (
                    f"the categories {quoted(names[number])} and {quoted(name)} have the same id {quoted(number)}: "
                    "give each its own"
                )
                self.report("repeated", problem)
                continue
            names[number] = name
            yield Category(number, name, group)

    def photos(self, known: Collection[int | str]) -> Iterator[CocoPhoto]:
        """Return the sound entries of ``images``, each id once, still without annotations.

        Their lists of categories may hold those that are `known`.
        """
        names: dict[int | str, str] = {}
        for place, entry in self._entries("images", ("id",), ("id",)):
            if (number := entry_id(entry["id"])) is None:
                continue
            where = f"entry {place} of 'images'"
            for key in ("file_name", "path"):
                if entry.get(key) not in (None, "") and not is_text(entry[key]):
                    problem = f"{where} has the {key} {quoted(entry[key])}, which is not text: write the file's name"
                    self.report("annotation", problem)
            name = entry.get("file_name")
            if number in names:
                problem = (
                    f"two entries of 'images', {names[number]} and {quoted(name)}, have the same id "
                    f"{quoted(number)}: number them anew"
                )
                self.report("repeated", problem)
                continue
            names[number] = quoted(name)
            size = (self._edge(entry, "height", where), self._edge(entry, "width", where))
            negative = self._listed(entry, "neg_category_ids", where, known)
            not_exhaustive = self._listed(entry, "not_exhaustive_category_ids", where, known)
            yield CocoPhoto(
                number, _text(name), _text(entry.get("path")), size, (), negative, not_exhaustive or frozenset()
            )

    def annotations(self, boxes: bool = False) -> Iterator[tuple[int | str, Annotation]]:
        """Return the sound entries of ``annotations``, each with the id of its photo; `boxes` as in `read_coco`."""
        ids = ("image_id", "category_id")
        needed = ids if boxes else (*ids, "segmentation")
        for place, entry in self._entries("annotations", needed, ids):
            photo, category = entry_id(entry["image_id"]), entry_id(entry["category_id"])
            if photo is None or category is None:
                continue
            crowd, owner = entry.get("iscrowd", 0), entry.get("obj_ann_id")
            annotation = Annotation(
                entry.get("id", place),
                category,
                entry.get("segmentation"),
                *((entry.get("bbox"), entry.get("score")) if boxes else (None, None)),
                None if owner is None else entry_id(owner),
                crowd is True or whole_number(crowd) == 1,
                _area(entry.get("area")),
            )
            if owner is not None and annotation.owner is None:
                problem = f"{annotation} has the obj_ann_id {quoted(owner)}, which is neither a whole number nor text"
                self.report("annotation", f"{problem}: write the id of its object's annotation")
            if not isinstance(crowd, bool) and whole_number(crowd) not in (0, 1):
                problem = f"{annotation} has the iscrowd {quoted(crowd)}: write 0 or 1, or leave it out"
                self.report("annotation", problem)
            yield photo, annotation

    def check_owners(self, by_photo: Mapping[int | str, Sequence[Annotation]]) -> None:
        """Report owners that are no annotation of the same photo, and ids that say no owner since they repeat."""
        if not any(annotation.owner is not None for members in by_photo.values() for annotation in members):
            return
        places: dict[int | str | None, int | str] = {}
        for photo, members in by_photo.items():
            for annotation in members:
                number = entry_id(annotation.number)
                if number in places:
                    problem = f"two annotations have the id {quoted(annotation.number)}, so that their parts have no "
                    self.report("repeated", f"{problem}certain owner: number them anew")
                places[number] = photo
        for photo, members in by_photo.items():
            for annotation in members:
                owner = annotation.owner
                if owner is None or places.get(owner) == photo:
                    continue
                where = "belongs to another photo" if owner in places else "no annotation has"
                problem = f"{annotation} has the obj_ann_id {quoted(owner)}, which {where}"
                self.report("annotation", f"{problem}: write the id of its object's annotation, or leave it out")

    def _listed(
        self, entry: dict[str, Any], key: str, where: str, known: Collection[int | str]
    ) -> frozenset[int | str] | None:
        """Read a list of category ids; None where there is none."""
        if (value := entry.get(key)) is None:
            return None
        if not isinstance(value, list):
            problem = f"{where} has the {key} {quoted(value)}, which is not a list: write a list of category ids"
            self.report("annotation", problem)
            return None
        ids = [entry_id(one) for one in value]
        if wrong := [one for one, number in zip(value, ids, strict=True) if number not in known]:
            problem = f"{where} has {quoted(wrong[0])} in its {key}, which is not the id of a category"
            self.report("unknown label", f"{problem}: list the ids of categories")
        return frozenset(number for number in ids if number is not None and number in known)

    def _entries(self, key: str, needed: tuple[str, ...], ids: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the entries that have the needed keys; values that are no ids are reported, but still yielded."""
        for place, entry in enumerate(self._content[key]):
            if not isinstance(entry, dict):
                problem = f"entry {place} of {key!r} has no {' or '.join(needed)}: it is {quoted(entry)}, not an object"
                self.report("annotation", problem)
                continue
            if lacking := [name for name in needed if entry.get(name) is None]:
                remedy = "export the file again"
                if lacking == ["segmentation"]:
                    remedy = "outline the part, since a box alone labels no pixel, or remove the entry"
                self.report("annotation", f"entry {place} of {key!r} has no {' or '.join(lacking)}: {remedy}")
                continue
            for name in ids:
                if entry_id(entry[name]) is None:
                    problem = f"the {name} {quoted(entry[name])}, which is neither a whole number nor text"
                    self.report("annotation", f"entry {place} of {key!r} has {problem}: number the entries anew")
            yield place, entry

    def _edge(self, entry: dict[str, Any], key: str, where: str) -> int | None:
        """Read a height or width in pixels."""
        if key not in entry:
            return None
        edge = whole_number(entry[key])
        if edge is None or edge < 1:
            problem = f"{where} has the {key} {quoted(entry[key])}, which is not a number of pixels"
            self.report("annotation", f"{problem}: write the photo's own, or leave it out")
            return None
        return edge


def _area(value: Any) -> float | None:
    """Return an area in pixels; None for what is none, such as the 0 that some tools write everywhere."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LARGEST_AREA
    return float(value) if known else None


def _text(value: Any) -> str | None:
    return value if is_text(value) else None
