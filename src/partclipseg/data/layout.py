"""Where each benchmark keeps its files, and what was probably meant by a root that has none of them."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from partclipseg.errors import PartCLIPSegError, UsageError

LAYOUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "pascal-part-116": {
        split: (
            f"images/{folder}",
            f"annotations_detectron2_part/{folder}",
            f"annotations_detectron2_obj/{folder}",
        )
        for split, folder in (("train", "train"), ("test", "val"))
    },
    "ade20k-part-234": {
        split: (f"images/{folder}", f"annotations_detectron2_part/{folder}", f"ade20k_instance_{short}.json")
        for split, folder, short in (("train", "training", "train"), ("test", "validation", "val"))
    },
    "part-imagenet": {
        split: (f"images/{folder}", f"{folder}.json") for split, folder in (("train", "train"), ("test", "val"))
    },
}
"""Data set: split: what must be there, relative to the root."""

_ALIASES = (
    {"train", "training"},
    {"val", "validation", "valid", "test"},
    {"annotations_detectron2_part", "annotations_part", "annotations_detectron2", "annotations", "labels"},
    {"annotations_detectron2_obj", "annotations_obj", "annotations_object"},
    {"images", "jpegimages", "photos"},
)
_RAW = {
    "pascal-part-116": ("Annotations_Part", "annotations/*.mat", "*.mat"),
    "ade20k-part-234": ("ADE20K_2021_17_01", "images/ADE", "index_ade20k.pkl"),
    "part-imagenet": ("PartImageNet_Seg", "annotations/train_whole", "LOC_synset_mapping.txt"),
}


def has_split(root: Path, dataset: str, split: str) -> bool:
    """Whether everything that the split needs is there."""
    return all((root / needed).exists() for needed in LAYOUTS[dataset][split])


def has_any_of_split(root: Path, dataset: str, split: str) -> bool:
    """Whether anything of the split is there."""
    return any((root / needed).exists() for needed in LAYOUTS[dataset][split])


def require_split(root: Path, dataset: str, split: str) -> None:
    """Do nothing where the split is there; else say what is missing and what was probably meant.

    Raises:
        UsageError: the root is not a folder, or the layout lies elsewhere.
        PartCLIPSegError: the root is right, but this split of it is not there or not complete.
    """
    if has_split(root, dataset, split):
        return
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder{_similar_folder(root)}")
    if other := next((s for s in LAYOUTS[dataset] if has_split(root, dataset, s)), None):
        raise PartCLIPSegError(f"{root} has the {other} split of {dataset}, but {_missing(root, dataset, split)}")
    for candidate in _neighbours(root):
        if has_split(candidate, dataset, split):
            raise UsageError(f"{root} is not the root of {dataset}; it is probably {candidate}: use --data {candidate}")
    for candidate in (root, *_neighbours(root)):
        for other in LAYOUTS:
            if other != dataset and any(has_split(candidate, other, s) for s in LAYOUTS[other]):
                raise UsageError(
                    f"{candidate} holds {other}, not {dataset}: name {other} as the data set, with --data {candidate}"
                )
    if any(next(root.glob(pattern), None) for pattern in _RAW[dataset]):
        raise UsageError(
            f"{root} looks like the raw source of {dataset}: bring it into its layout first, with "
            f"partclipseg prepare {dataset}"
        )
    raise UsageError(f"{root} is not the root of {dataset}: {_missing(root, dataset, split)}")


def _missing(root: Path, dataset: str, split: str) -> str:
    """What the split lacks, each with the name that stands in its place."""
    missing = [needed for needed in LAYOUTS[dataset][split] if not (root / needed).exists()]
    sentences = []
    for needed in missing:
        found = _stand_in(root, needed)
        sentences.append(f"{needed} is missing" + (f" (found {found}: rename it to {needed})" if found else ""))
    return "; ".join(sentences)


def _stand_in(root: Path, needed: str) -> str | None:
    """What lies in the place of a needed path: other capitals, another usual name, a slip of the pen."""
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
    """The one of `names` (lower case to true spelling) that was probably meant by `word`."""
    aliases = next((group for group in _ALIASES if word in group), set())
    candidates = [word.lower(), *sorted(aliases, key=len, reverse=True)]
    if match := next((names[candidate] for candidate in candidates if candidate in names), None):
        return match
    # A different split is no slip of the pen, however alike the names are.
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
    """Folders one or two levels above and below."""
    absolute = root.absolute()
    yield from absolute.parents[:2]
    children = _subfolders(root)
    yield from children
    for child in children:
        yield from _subfolders(child)


def _subfolders(folder: Path, limit: int = 100) -> list[Path]:
    """Subfolders, the first of them only: a folder of folders with photos may hold thousands."""
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
