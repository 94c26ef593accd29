"""Check whether a root holds the files of a data set, and propose the right root if it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from partclipseg.data.datasets.spec import DatasetSpec, Split
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.json_file import read_json

_ALIASES = (
    {"train", "training"},
    {"val", "validation", "valid", "test"},
    {"annotations_detectron2_part", "annotations_part", "annotations_detectron2", "annotations", "labels"},
    {"annotations_detectron2_obj", "annotations_obj", "annotations_object"},
    {"images", "jpegimages", "photos"},
)


_LOOKED_AT, _LARGEST_LABELME = 20, 50_000_000
"""Number of files, and size of a file in bytes, that are looked at to tell the tool that wrote them."""


class MissingSplitError(UsageError):
    """The files of a split are not where they usually are."""


def has_split(root: Path, spec: DatasetSpec, split: Split) -> bool:
    """Return whether everything that the split needs is there."""
    return all((root / needed).exists() for needed in spec.layout[split])


def has_any_of_split(root: Path, spec: DatasetSpec, split: Split) -> bool:
    """Return whether anything of the split is there."""
    return any((root / needed).exists() for needed in spec.layout[split])


def require_split(root: Path, spec: DatasetSpec, split: Split, others: Iterable[DatasetSpec] = ()) -> None:
    """Raise an error that says what is missing and what was probably meant, unless the split is there.

    Args:
        root: the folder that was named.
        spec: a data set with a layout.
        split: the split that is needed.
        others: data sets that may be proposed instead; read only if the split is missing.

    Raises:
        UsageError: the root is not a folder, or the layout lies elsewhere.
        PartCLIPSegError: the root is right, but the split is missing or incomplete.
    """
    if has_split(root, spec, split):
        return
    name = spec.name
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder{_similar_folder(root)}")
    if other := next((s for s in spec.layout if has_split(root, spec, s)), None):
        raise PartCLIPSegError(f"{root} has the {other} split of {name}, but {_missing(root, spec, split)}")
    for candidate in _neighbours(root):
        if has_split(candidate, spec, split):
            raise UsageError(f"{root} is not the root of {name}; it is probably {candidate}: use --data {candidate}")
    rivals = list(others)
    for candidate in (root, *_neighbours(root)):
        refuse_other(candidate, name, rivals)
    if spec.preparation is not None and any(next(root.glob(pattern), None) for pattern in spec.raw):
        raise UsageError(
            f"{root} looks like the raw source of {name}: bring it into its layout first, with "
            f"partclipseg prepare {name}"
        )
    raise UsageError(f"{root} is not the root of {name}: {_missing(root, spec, split)}")


def refuse_other(root: Path, name: str, others: Iterable[DatasetSpec]) -> None:
    """Raise `UsageError` that proposes another data set than `name` if `root` has the layout of one."""
    for other in others:
        if other.name != name and any(has_split(root, other, split) for split in other.layout):
            raise UsageError(
                f"{root} holds {other.name}, not {name}: name {other.name} as the data set, with --data {root}"
            )


def form_of_another_tool(root: Path) -> str | None:
    """Say that a folder holds annotations in a form that is not read, with the remedy; None for any other folder."""
    files = sorted(path for pattern in ("*.json", "*/*.json") for path in islice(root.glob(pattern), _LOOKED_AT))
    if any(_is_labelme(path) for path in files[:_LOOKED_AT]):
        return "these are files of labelme, one a photo: convert them to COCO JSON (labelme2coco) or label pictures"
    if files:  # one of them may be a COCO JSON of another name
        return None
    texts = islice(root.rglob("*.txt"), _LOOKED_AT)
    if (root / "data.yaml").is_file() or any("labels" in path.relative_to(root).parts[:-1] for path in texts):
        return "these are labels of YOLO, which are not read as data: export COCO JSON or label pictures of them"
    if any((root / name).is_dir() for name in ("gtFine", "leftImg8bit")):
        return "this is the layout of Cityscapes: put photos and label pictures of equal names into images and labels"
    if (root / "SegmentationClass").is_dir():
        return "this is the layout of VOC: rename JPEGImages to images and SegmentationClass to labels"
    return None


def _is_labelme(path: Path) -> bool:
    try:
        content = read_json(path) if path.stat().st_size < _LARGEST_LABELME else None
    except (PartCLIPSegError, OSError):
        return False
    return isinstance(content, dict) and "shapes" in content and "images" not in content


def _missing(root: Path, spec: DatasetSpec, split: Split) -> str:
    """Return the missing paths of the split, each with the similar name found instead."""
    missing = [needed for needed in spec.layout[split] if not (root / needed).exists()]
    sentences = []
    for needed in missing:
        found = _stand_in(root, needed)
        sentences.append(f"{needed} is missing" + (f" (found {found}: rename it to {needed})" if found else ""))
    return "; ".join(sentences)


def _stand_in(root: Path, needed: str) -> str | None:
    """Find a similar name in place of a needed path: other capitals, another usual name, a misspelling."""
    folder, found = root, []
    for word in Path(needed).parts:
        if not folder.is_dir():
            return None
        names = {entry.name.lower(): entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
        name = word if (folder / word).exists() else _similar(word, names)
        if name is None:
            return None
        found.append(name)
        folder = folder / name
    return "/".join(found)


def _similar(word: str, names: dict[str, str]) -> str | None:
    """Return which of `names` (lower case to true spelling) was probably meant by `word`."""
    aliases = next((group for group in _ALIASES if word in group), set())
    candidates = [word.lower(), *sorted(aliases, key=len, reverse=True)]
    if match := next((names[candidate] for candidate in candidates if candidate in names), None):
        return match
    # A different split is no misspelling, however alike the names are.
    close = get_close_matches(word.lower(), names, n=1, cutoff=0.85)
    return names[close[0]] if close else None


def _similar_folder(root: Path) -> str:
    names = {}
    if root.parent.is_dir():
        names = {entry.name.lower(): entry.name for entry in root.parent.iterdir() if entry.is_dir()}
    if close := get_close_matches(root.name.lower(), names, n=1, cutoff=0.6):
        return f"; did you mean {root.parent / names[close[0]]}?"
    return f"; {root.parent} is not there either" if not root.parent.is_dir() else ": check --data"


def _neighbours(root: Path) -> Iterator[Path]:
    """Yield the folders one or two levels above and below."""
    absolute = root.absolute()
    yield from absolute.parents[:2]
    children = _subfolders(root)
    yield from children
    for child in children:
        yield from _subfolders(child)


def _subfolders(folder: Path, limit: int = 100) -> list[Path]:
    """List at most `limit` subfolders: a folder may hold thousands."""
    found = []
    try:
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.name.startswith("."):
                found.append(entry)
            if len(found) == limit:
                break
    except OSError:
        return found
    return sorted(found)
