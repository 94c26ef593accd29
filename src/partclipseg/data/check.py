"""Check a data set on disk: open every file once, and list what is wrong, file by file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from PIL import ExifTags, Image

from partclipseg.data.datasets.registry import dataset_specs, file_spec, open_source
from partclipseg.data.datasets.roots import MissingSplitError, has_any_of_split, has_split, refuse_other, require_split
from partclipseg.data.datasets.spec import SPLITS, DatasetSpec, OwnOptions, Split
from partclipseg.data.photo import MAX_PIXELS, photo_formats
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.source import PHOTO_IS_MISSING, Source, SourcePhoto, missing_photo, read_source_photo
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import expanded, is_file
from partclipseg.machine import usable_cores
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class SplitCounts:
    """Counts of one split."""

    split: str
    """Name that the files give it; for data that are not divided that of the annotation file, empty for folders."""
    photos: int
    """Number of photos that have labels."""
    sound: int
    """Number of those photos without a problem of their own."""
    with_parts: int
    """Number of those photos in which a part is labelled."""
    classes: tuple[int, ...]
    """Number of photos that show each class of the class list."""


@dataclass(frozen=True)
class CheckReport:
    """Counts of a data set, and its problems."""

    dataset: str
    root: Path
    splits: tuple[SplitCounts, ...]
    problems: tuple[Problem, ...]
    """Defects that have to be mended before training or evaluating."""
    notes: tuple[Problem, ...]
    """Remarks about harmless findings: stray ``._*`` files, a missing split."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def summary(self, limit: int = 20) -> str:
        """Describe the problems: how often each kind occurs, then the first `limit` problems, one a line."""
        kinds = Counter(problem.kind for problem in self.problems)
        counts = ", ".join(f"{kind}: {count}" for kind, count in kinds.items())
        lines = [f"{self.dataset} in {self.root} has problems ({counts})"]
        lines += [f"  {problem.kind}: {problem}" for problem in self.problems[:limit]]
        if len(self.problems) > limit:
            lines.append(f"  and {len(self.problems) - limit} more: partclipseg check-data lists them all")
        return "\n".join(lines)


def check_dataset(
    name: str,
    root: str | Path,
    split: Split | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    **own: Unpack[OwnOptions],
) -> CheckReport:
    """Open every photo and every label file of a data set.

    Photos are decoded to the end, JPEG at an eighth of their size, which finds truncated files as surely and sooner.

    Args:
        name: one of `datasets.DATASETS`.
        root: as for `open_dataset`.
        split: check what this split needs; every split that is there by default.
        on_progress: called with photos done and photos in all, now and then.
        **own: see `OwnOptions`.

    Raises:
        UsageError: unknown names, or a root that is not this data set's; the message proposes the right one.
    """
    root = expanded(root)
    spec = file_spec(name, split or "test", own)
    sources, problems, notes = _open(spec, root, split, own)
    total = sum(len(source.photos) for source in sources)
    counts = []
    done = 0
    with ThreadPoolExecutor(usable_cores()) as pool:
        for source in sources:
            problems += (before := [*source.defects, *source.folder_problems(), *_class_problems(source)])
            notes += source.notes()
            seen = np.zeros(len(source.object_parts), dtype=np.int64)
            sound = with_parts = 0
            of_photos: list[Problem] = []
            for found, classes in pool.map(lambda photo, source=source: _check_photo(source, photo), source.photos):
                of_photos += found
                sound += not found
                with_parts += len(classes) > 0
                seen[classes] += 1
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
            if sum(one.message == PHOTO_IS_MISSING for one in of_photos) == len(source.photos) > 1:
                remedy = "check --data" if "images" not in spec.options else "name their folder with --images"
                message = f"none of its {len(source.photos):,} photos is there: {remedy}"
                problems.append(Problem("missing photo", source.label_file, message))
            problems += of_photos
            called = source.split or (source.label_file.name if is_file(source.label_file) else "")
            of_split = f" of the split {source.split}" if source.split else ""
            counts.append(SplitCounts(called, len(source.photos), sound, with_parts, tuple(seen.tolist())))
            if not source.photos:
                problem = f"there is no labelled photo{of_split}: check --data"
                problems.append(Problem("missing photo", source.root, problem))
            elif spec.catalog is None and not with_parts and not before and sound == len(source.photos):
                problem = f"no part is labelled in any photo{of_split}: label some, or check --data"
                problems.append(Problem("empty", source.label_file, problem))
    return CheckReport(name, root, tuple(counts), *(tuple(dict.fromkeys(found)) for found in (problems, notes)))


def raise_if_broken(report: CheckReport) -> None:
    """Raise `PartCLIPSegError` with the report's summary where something is wrong."""
    if not report.ok:
        raise PartCLIPSegError(report.summary())


def check_together(
    name: str,
    root: str | Path,
    split: Split,
    processes: PartialState,
    on_progress: Callable[[int, int], None] | None = None,
    **own: Unpack[OwnOptions],
) -> None:
    """Check the files of a split in the main process of several, before they are read.

    Raises what `check_dataset` and `raise_if_broken` do, and `SystemExit` in the other processes.
    """
    from accelerate.utils import gather_object

    error = None
    if processes.is_main_process:
        try:
            raise_if_broken(check_dataset(name, root, split, on_progress=on_progress, **own))
        except PartCLIPSegError as found:
            error = found
    broken = gather_object([error is not None])  # the other processes wait here in any case
    if error is not None:
        raise error
    if any(broken):
        raise SystemExit(1)  # the main process prints the reason


def _open(
    spec: DatasetSpec, root: Path, split: Split | None, own: OwnOptions
) -> tuple[list[Source], list[Problem], list[Problem]]:
    """Return the sources to check, the errors of those that could not be opened, and what is missing.

    A source that serves as several splits is returned once, with an empty name of its split.
    """
    wanted: tuple[Split, ...] = (SPLITS if spec.trains else ("test",)) if split is None else (split,)
    if split == "test":
        wanted = spec.test_splits
    if spec.layout and not any(has_split(root, spec, one) for one in wanted):
        require_split(root, spec, "test" if split is None else split, dataset_specs())
    sources: dict[tuple[SourcePhoto, ...], Source] = {}
    problems: list[Problem] = []
    notes: list[Problem] = []
    missing: list[UsageError] = []
    for one in wanted:
        if spec.layout and not has_any_of_split(root, spec, one):
            notes.append(Problem("missing split", root, f"the {one} split is not there"))
            continue
        try:
            source = open_source(spec, root, one, own)
            sources[source.photos] = replace(source, split="") if source.photos in sources else source
        except MissingSplitError as error:
            missing.append(error)
            notes.append(Problem("missing split", root, f"the {one} split is not there"))
        except DataError as error:
            problems.append(error.problem)
        except UsageError:
            raise
        except PartCLIPSegError as error:
            problems.append(Problem("missing split", root, str(error)))
    if not any(source.photos for source in sources.values()):
        refuse_other(root, spec.name, dataset_specs())
    if missing and not sources and not problems:
        raise missing[-1]
    return list(sources.values()), problems, notes


def _class_problems(source: Source) -> list[Problem]:
    """Return the problems that keep the classes from being a vocabulary."""
    try:
        if source.object_parts or not source.defects:
            Vocabulary(source.object_parts).with_objects("a data set")
    except UsageError as error:
        return [Problem("class list", source.label_file, str(error))]
    return []


def _check_photo(source: Source, photo: SourcePhoto) -> tuple[list[Problem], np.ndarray]:
    """Return the problems of a photo and its labels, and the classes labelled in it."""
    none = np.zeros(0, dtype=np.int64)
    if not is_file(photo.path):
        return [missing_photo(photo)], none
    try:
        labels = source.read_labels(photo, _photo_size(photo))
    except DataError as error:
        return [error.problem], none
    return list(source.label_problems(photo, labels)), labels.part_classes


def _photo_size(photo: SourcePhoto) -> tuple[int, int]:
    """Decode a photo to the end, and return its height and width as `read_photo` turns it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(photo.path, formats=photo_formats())
        with image:
            width, height = image.size
            if width * height <= MAX_PIXELS and image.format == "JPEG":
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)  # by a quarter
                image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
                image.load()
                return (width, height) if turned else (height, width)
    except Exception:  # reading the photo normally reports the error
        pass
    return read_source_photo(photo).shape[:2]
