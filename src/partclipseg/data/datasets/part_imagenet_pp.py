"""PartImageNet++: a hundred photos of each of the 1000 ImageNet classes, with masks of 3308 object-parts.

Li et al., *PartImageNet++ Dataset: Scaling up Part-based Models for Robust Recognition*, ECCV 2024. The release has
annotations only: ``json/SYNSET.json`` (COCO), ``including/SYNSET.txt`` with lines such as ``shell:body`` and
``discarded_data.json``; the photos are ImageNet's.

Read from the descriptions and from public code, without the files at hand: the names of the objects come from
``LOC_synset_mapping.txt`` (ImageNet's own list), from ``category_name.json`` where it maps a synset to a name, or from
the categories' supercategories. No split is published: each tenth photo of an object, by name, is for testing, unless
the root has a list ``test.txt``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from partclipseg.counts import count_of
from partclipseg.data.coco import CocoFile, CocoPhoto, read_coco, repeated_photo
from partclipseg.data.datasets.part_imagenet import PartImageNetNames
from partclipseg.data.datasets.spec import DatasetSpec, Preparation, Split
from partclipseg.data.painted import PaintedPhoto, PaintedSource, PartMask
from partclipseg.data.paths import inside
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.source import SourcePhoto
from partclipseg.data.values import is_text, quoted
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file
from partclipseg.json_file import read_json, read_text
from partclipseg.vocabulary import ObjectPart

NAME = "part-imagenet-pp"
SYNSET_LIST, CATEGORY_NAMES, DISCARDED, TEST_LIST = (
    "LOC_synset_mapping.txt", "category_name.json", "discarded_data.json", "test.txt",
)  # fmt: skip
TEST_EVERY = 10
"""Each photo of this number, of an object's photos by name, is a test photo where there is no list."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PartImageNetPP(PaintedSource):
    """One split of PartImageNet++."""

    inside: tuple[tuple[ObjectPart, ObjectPart], ...] = field(repr=False)
    """Pairs of object-parts from ``including``: the first is written before the colon, and lies in the second."""


def open_split(root: Path, split: Split) -> PartImageNetPP:
    """Open the photos of a split that ``json`` lists and ``discarded_data.json`` does not.

    Raises `DataError` for a folder without annotation files, or for objects whose names stand nowhere.
    """
    files = sorted(path for path in (root / "json").glob("*.json") if not path.name.startswith("."))
    if not files:
        raise DataError(Problem("missing label", root / "json", "has no SYNSET.json: fetch the annotations"))
    defects: list[Problem] = []
    contents = {path.stem: read_coco(path) for path in files}
    words = object_words(root, contents, defects)
    discarded, listed = _discarded(root, defects), _test_photos(root, defects)
    pairs: dict[ObjectPart, int] = {}
    photos: list[SourcePhoto] = []
    painted: dict[str, PaintedPhoto] = {}
    owners: dict[str, str] = {}
    hierarchy: list[tuple[ObjectPart, ObjectPart]] = []
    for synset, content in contents.items():
        file = root / "json" / f"{synset}.json"
        defects += content.defects
        parts = {category.number: part_word(category.name, words[synset]) for category in content.categories}
        for word in parts.values():
            pairs.setdefault(ObjectPart(words[synset], word), len(pairs))
        hierarchy += _inside(root / "including" / f"{synset}.txt", words[synset], set(parts.values()), defects)
        entries = _by_name(content, file, discarded, defects)
        for place, (name, entry) in enumerate(sorted(entries.items())):
            if owners.setdefault(name, synset) != synset:
                message = f"the photo {name} is also listed in {owners[name]}.json: keep one of the two"
                defects.append(Problem("repeated", file, message))
                continue
            tests = place % TEST_EVERY == TEST_EVERY - 1 if listed is None else name in listed
            if tests != (split == "test"):
                continue
            try:
                path = _photo(root, synset, entry, file)
            except DataError as error:
                defects.append(error.problem)
                continue
            photos.append(SourcePhoto(name, path))
            masks = (
                PartMask(pairs[ObjectPart(words[synset], parts[one.category])], one.segmentation, str(one))
                for one in entry.annotations
            )
            painted[name] = PaintedPhoto(tuple(masks), entry.size, file)
    known = discarded | {Path(photo.file_name or "").stem for c in contents.values() for photo in c.photos}
    for name in sorted((listed or frozenset()) - known):
        message = f"names {quoted(name)}, which no file of json lists: correct the line, or remove it"
        defects.append(Problem("missing photo", root / TEST_LIST, message))
    left_out = sum(Path(photo.file_name or "").stem in discarded for c in contents.values() for photo in c.photos)
    note = f"{count_of(left_out, 'photo')} of low quality, which the release discards"
    return PartImageNetPP(
        root=root,
        split=split,
        object_parts=tuple(pairs),
        objects=tuple(dict.fromkeys(pair.object for pair in pairs)),
        photos=tuple(photos),
        defects=tuple(defects),
        painted=painted,
        file=root / "json",
        inside=tuple(hierarchy),
        remarks=(Problem("left out", root / DISCARDED, note),) if left_out else (),
    )


def object_words(root: Path, contents: dict[str, CocoFile], defects: list[Problem]) -> dict[str, str]:
    """Return the word of each synset: the first of its names that no other synset has taken.

    Raises `DataError` for a synset that no list names.
    """
    listed, named = _synset_list(root / SYNSET_LIST, defects), _category_names(root / CATEGORY_NAMES, defects)
    known = {synset: word for word, synset in PartImageNetNames.load().synset_to_object.items()}
    words: dict[str, str] = {}
    for synset, content in contents.items():
        groups = [category.group for category in content.categories if category.group]
        names = listed.get(synset) or named.get(synset) or [
            word for word in groups if word.strip().lower() not in ("none", "object", synset.lower())
        ] or list(filter(None, [known.get(synset)]))
        if not names:
            for defect in defects:
                raise DataError(defect)
            message = (
                f"the object {synset} has no name: put ImageNet's list {SYNSET_LIST} into {root}, or a "
                f"{CATEGORY_NAMES} with {{\"{synset}\": \"name\"}}"
            )
            raise DataError(Problem("class list", root / "json" / f"{synset}.json", message))
        taken = {word.casefold() for word in words.values()}
        words[synset] = next((word for word in names if word.casefold() not in taken), names[0])
    return words


def part_word(category: str, word: str) -> str:
    """Return the part of a category, which may repeat the object: ``goldfish_tail``, ``goldfish:tail``, ``tail``."""
    plain = " ".join(category.replace("_", " ").replace(":", " ").lower().split())
    prefix = f"{word.lower()} "
    return plain.removeprefix(prefix) or plain


def _synset_list(path: Path, defects: list[Problem]) -> dict[str, list[str]]:
    """Read lines such as ``n01443537 goldfish, Carassius auratus``."""
    if not os.path.lexists(path):
        return {}
    names: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path, defects), start=1):
        synset, _, synonyms = line.strip().partition(" ")
        words = [word.strip() for word in synonyms.split(",") if word.strip()]
        if not synset or not words:
            message = f"line {number} is not a synset and its names, such as 'n01443537 goldfish': correct it"
            defects.append(Problem("class list", path, message))
        if names.setdefault(synset, words) != words:
            defects.append(Problem("repeated", path, f"line {number} names {synset} a second time: keep one line"))
    return names


def _category_names(path: Path, defects: list[Problem]) -> dict[str, list[str]]:
    """Read names by synset where the file has them; other forms are left aside."""
    if not os.path.lexists(path):
        return {}
    try:
        content = read_json(path)
    except PartCLIPSegError as error:
        defects.append(Problem("unreadable", path, f"is not a list of names, since it {error}"))
        return {}
    names: dict[str, list[str]] = {}
    for synset, value in content.items() if isinstance(content, dict) else ():
        name: Any = value.get("name") if isinstance(value, dict) else value
        if is_text(name):
            names[synset] = [word.strip() for word in name.replace("_", " ").split(",") if word.strip()]
    return names


def _discarded(root: Path, defects: list[Problem]) -> frozenset[str]:
    path = root / DISCARDED
    if not os.path.lexists(path):
        return frozenset()
    try:
        content = read_json(path)
    except PartCLIPSegError as error:
        defects.append(Problem("unreadable", path, f"is not a list of photos, since it {error}"))
        return frozenset()
    entries = content if isinstance(content, list) else [None]
    names: list[Any] = [entry.get("file_name") if isinstance(entry, dict) else entry for entry in entries]
    if wrong := [name for name in names if not is_text(name)]:
        message = f"lists {quoted(wrong[0])}, which is no photo: fetch the file again, or delete it to keep all photos"
        defects.append(Problem("annotation", path, message))
    return frozenset(Path(name).stem for name in names if is_text(name))


def _test_photos(root: Path, defects: list[Problem]) -> frozenset[str] | None:
    path = root / TEST_LIST
    if not os.path.lexists(path):
        return None
    return frozenset(Path(line.strip()).stem for line in _lines(path, defects) if line.strip())


def _lines(path: Path, defects: list[Problem]) -> list[str]:
    try:
        return read_text(path).splitlines()
    except PartCLIPSegError as error:
        defects.append(Problem("unreadable", path, str(error)))
        return []


def _inside(
    path: Path, word: str, parts: set[str], defects: list[Problem]
) -> list[tuple[ObjectPart, ObjectPart]]:
    """Read the lines ``PART:WHOLE`` of one object; both are its categories, and no part lies in itself."""
    pairs: list[tuple[ObjectPart, ObjectPart]] = []
    order: TopologicalSorter[ObjectPart] = TopologicalSorter()
    for number, line in enumerate(_lines(path, defects) if os.path.lexists(path) else (), start=1):
        if not line.strip():
            continue
        names = [part_word(name, word) for name in line.split(":")]
        if len(names) != 2 or not all(names):
            message = f"line {number}, {quoted(line)}, is not a part and the part that it lies in, such as 'shell:body'"
            defects.append(Problem("annotation", path, f"{message}: correct it, or delete the file"))
        elif unknown := [name for name in names if name not in parts]:
            message = f"line {number} names {quoted(unknown[0])}, which is no category of {word}"
            defects.append(Problem("unknown label", path, f"{message}: correct it, or delete the file"))
        else:
            inner, outer = (ObjectPart(word, name) for name in names)
            pairs.append((inner, outer))
            order.add(inner, outer)
    try:
        order.prepare()
    except CycleError as error:
        names = " in ".join(pair.part for pair in error.args[1])
        message = f"parts lie in each other ({names}): correct it, or delete the file"
        defects.append(Problem("annotation", path, message))
    return pairs


def _by_name(
    content: CocoFile, file: Path, discarded: frozenset[str], defects: list[Problem]
) -> dict[str, CocoPhoto]:
    entries: dict[str, CocoPhoto] = {}
    for entry in content.photos:
        name = Path(entry.file_name or "").stem
        if name in discarded:
            continue
        if (first := entries.setdefault(name, entry)) is not entry:
            defects.append(repeated_photo(first, entry, name, file))
    return entries


def _photo(root: Path, synset: str, entry: CocoPhoto, file: Path) -> Path:
    """Return the photo's path: in the folder of its object, in ``images`` or in the root."""
    name = inside(root, entry.file_name or "", file).name
    places = [root / "images" / synset / name, root / synset / name, root / "images" / name]
    return next((path for path in places if is_file(path)), places[0])


DATASET = DatasetSpec(
    name=NAME,
    summary="a benchmark",
    open_split=lambda root, split, own: open_split(root, split),
    layout={"train": ("json",), "test": ("json",)},
    raw=("PartImageNetPP*/json",),
    preparation=Preparation(
        recipe="partclipseg.data.prepare.part_imagenet_pp:PartImageNetPPRecipe",
        source="PartImageNetPP with json, including and discarded_data.json, and ImageNet's training photos",
    ),
    remark=lambda dataset: "no split of PartImageNet++ is published",
)
