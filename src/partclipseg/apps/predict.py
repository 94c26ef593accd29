"""``partclipseg predict``: photos and words in, a folder of results out."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from partclipseg.apps.options import (
    Ask,
    Asking,
    BatchSize,
    Device,
    Dtype,
    MinPartProbability,
    MinScore,
    Model,
    Vocabulary,
    Zoom,
    check_min_part_probability,
    check_min_score,
)
from partclipseg.errors import PartCLIPSegError, UsageError, first_line

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.apps.written import OwnFiles
    from partclipseg.inference.result import PartResult
    from partclipseg.inference.segmenter import PartSegmenter

COCO_FILE = "annotations.coco.json"
"""One file for all photos, as COCO has it."""

MAX_NAME = 255 - len(".labelme.json")
"""Most bytes of a result's name without its suffix: file systems take 255 in all."""


@dataclass(frozen=True)
class Predict:
    """Find the parts of things in photos, by your own words.

    Examples:
      partclipseg predict photo.jpg --vocabulary "dog: ear, tail; bus: wheel" --model models/pascal
      partclipseg predict holiday/ --vocabulary pascal-part-116 --model models/pascal --output results
    """

    photos: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...", help_behavior_hint="(required)")
    ]
    """Files, folders (the photos directly inside) or quoted patterns such as "holiday/**/*.jpg"."""
    vocabulary: Vocabulary = None
    model: Model = None
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("parts")
    """Folder for the results. Those of an earlier run are replaced, if nobody has changed them since."""
    overwrite: bool = False
    """Replace also files in that folder that somebody else made or changed."""
    format: Annotated[
        tuple[Literal["overlay", "png", "json", "coco", "labelme"], ...],
        tyro.conf.arg(metavar="KIND...", aliases=["--formats"]),
    ] = ("overlay", "png", "json", "coco")
    """One or more kinds of result.
    overlay: the photo in colours with a legend.
    png: image of class indices; background is 255 (65535 with more than 255 classes).
    json: score, area and box of each part, in a .parts.json file.
    coco: masks of all photos in annotations.coco.json.
    labelme: outlines to edit."""
    objects: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD...", help_behavior_hint="")] = ()
    """Only if you know what is in every photo: these objects.
    Their parts then share all pixels, and there is no background."""
    min_score: MinScore = 0.0
    min_part_probability: MinPartProbability = None
    zoom: Zoom = False
    device: Device = None
    dtype: Dtype = None
    batch_size: BatchSize = 8
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = 80_000_000
    """Photos with more pixels than this are refused before they are decoded."""
    ask: Ask = field(default_factory=Asking)

    def run(self) -> int:
        from PIL import Image
        from rich.console import Console

        from partclipseg.apps.written import OwnFiles
        from partclipseg.data.photo import describe_unread, find_photos, unread_pictures
        from partclipseg.files import locked, remove_temporary
        from partclipseg.inference.result import check_formats
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.vocabulary import Vocabulary as Words

        console = Console(soft_wrap=True, highlight=False)
        # All that can be wrong with the call is looked at before the model is loaded.
        formats = check_formats(self.format)
        check_min_score(self.min_score)
        check_min_part_probability(self.min_part_probability)
        prompting = self.ask.prompting()
        vocabulary = None if self.vocabulary is None else Words.load(self.vocabulary)
        if not self.photos:
            raise UsageError("no photo is named: partclipseg predict PHOTO... --vocabulary WORDS")
        photos = find_photos(self.photos)
        make_folder(self.output)
        with locked(self.output):
            remove_temporary(self.output, recursive=False)
            files = OwnFiles(self.output, "predict", self.overwrite)
            # Pictures of an earlier run, where the results lie beside the photos, are no photos to segment.
            photos = [photo for photo in photos if str(photo) in self.photos or not files.is_own(photo)]
            if not photos:
                raise UsageError(f"nothing but results of an earlier run is in {', '.join(self.photos)}: name a photo")
            segmenter = PartSegmenter.from_pretrained(self.model, self.device, self.dtype, prompting=prompting)
            console.print(describe(segmenter, self.model), markup=False)
            # Photos above the limit are reported by name; Pillow would warn about them a second time.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            outcome = self._segment(segmenter, photos, vocabulary, formats, files, console)
        outcome.unread = describe_unread(unread_pictures(self.photos))
        outcome.tell(len(photos))
        return 1 if outcome.failed or outcome.kept else 0

    def _segment(
        self,
        segmenter: PartSegmenter,
        photos: Sequence[Path],
        vocabulary: Any,
        formats: Sequence[Any],
        files: OwnFiles,
        console: Console,
    ) -> _Outcome:
        """Write the results of all photos. What was done is kept in COCO's file too, however the run ends."""
        from rich.progress import track

        from partclipseg.apps.written import KeptError
        from partclipseg.files import is_disk_full, refusal
        from partclipseg.inference.photos import ahead
        from partclipseg.inference.result import FORMAT_SUFFIXES, PartResult
        from partclipseg.vocabulary import split_words

        outcome = _Outcome()
        stems = output_stems(photos)
        named = zip(photos, stems, strict=True)
        if short := [stem for photo, stem in named if not Path(stem).name.startswith(photo.stem)]:
            console.print(
                f"{len(short)} of the photos' names are too long for their results, which are called {short[0]}"
                + (" and so on" if len(short) > 1 else ""),
                markup=False,
            )

        def finish(number: int, result: Any, stem: str) -> Any:
            """Write the photo's own files; returns the result, or a sentence that says why there is none."""
            if not isinstance(result, PartResult):
                return str(result)
            try:
                result = result.at_least(self.min_score)
                for name in formats:
                    if name != "coco":
                        place = f"{stem}{FORMAT_SUFFIXES[name]}"
                        try:
                            files.write(place, result.content(name, (self.output / place).parent))
                        except KeptError as error:
                            outcome.kept.append(str(error))
                if "coco" in formats:
                    annotations.add(result.to_coco(image_id=number))
            except OSError as error:
                if is_disk_full(error):  # which the next photo would meet as well
                    raise PartCLIPSegError(refusal(error, self.output)) from error
                return f"{result.name}: {refusal(error, self.output)}"
            except Exception as error:  # whatever is wrong with one result is said, and the others are made
                return f"{result.name}: {type(error).__name__}: {first_line(error)}"
            return result

        stream = segmenter.segment_many(
            photos,
            vocabulary,
            objects=split_words(self.objects) or None,
            zoom=self.zoom,
            min_part_probability=self.min_part_probability,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
        )
        if console.is_terminal:
            stream = track(stream, "segmenting", total=len(photos), console=console, transient=True)
        # Files are written by threads, while the model works on the next photos.
        with collected(files, outcome) as annotations, ThreadPoolExecutor() as pool:
            numbered = enumerate(zip(stream, stems, strict=True), start=1)
            work = (pool.submit(finish, number, result, stem) for number, ((_, result), stem) in numbered)
            for future in ahead(work, 2 * self.batch_size):
                result = future.result()
                if not isinstance(result, PartResult):
                    outcome.failed.append(result)
                elif not console.is_terminal or len(photos) <= 20:
                    console.print(_summary(result), markup=False)
        if len(outcome.failed) < len(photos):
            done = len(photos) - len(outcome.failed)
            console.print(f"{done} of {len(photos)} photos -> {self.output}", markup=False)
        return outcome


@dataclass
class _Outcome:
    """What is to be said at the end."""

    failed: list[str] = field(default_factory=list)
    """What was wrong with the photos that have no results."""
    kept: list[str] = field(default_factory=list)
    """Files of somebody else that stand where results should be."""
    unread: str | None = None

    def tell(self, count: int) -> None:
        """Say on the error stream what was not done for `count` photos."""
        from rich.console import Console

        from partclipseg.apps.written import kept_sentence

        errors = Console(stderr=True, soft_wrap=True, highlight=False)
        if self.failed:
            errors.print(f"{len(self.failed)} of {count} photos could not be segmented:")
            for message in self.failed:
                errors.print(f"  {message}", markup=False)
        if self.kept:
            errors.print(kept_sentence(self.kept), markup=False)
        if self.unread:
            errors.print(self.unread, markup=False)


class _Annotations:
    """COCO documents of single photos, kept on the disk as they come. Thread-safe."""

    def __init__(self, path: Path) -> None:
        from partclipseg.journal import Journal

        path.unlink(missing_ok=True)  # of a run that was killed
        self._journal = Journal(path)
        self._lock = Lock()

    def add(self, document: dict[str, Any]) -> None:
        with self._lock:
            self._journal.append([document])

    def merged(self) -> dict[str, Any] | None:
        """One document of all, by the photos' numbers, with annotation ids from 1 on; None of none."""
        from partclipseg.inference.formats import merge_coco

        documents = sorted(self._journal.read(damaged="skip"), key=lambda document: document["images"][0]["id"])
        if not documents:
            return None
        merged = merge_coco(documents)
        for number, annotation in enumerate(merged["annotations"], start=1):
            annotation["id"] = number
        return merged


@contextmanager
def collected(files: OwnFiles, outcome: _Outcome) -> Iterator[_Annotations]:
    """Collect annotations, and write `COCO_FILE` of those that came when the block ends, by an error too."""
    from partclipseg.apps.written import FOLDER, KeptError
    from partclipseg.journal import json_text

    path = files.folder / FOLDER / "annotations.jsonl"
    annotations = _Annotations(path)

    def write() -> None:
        if (merged := annotations.merged()) is not None:
            try:
                files.write(COCO_FILE, f"{json_text(merged)}\n".encode())
            except KeptError as error:
                outcome.kept.append(str(error))
        path.unlink(missing_ok=True)

    try:
        yield annotations
    except BaseException:
        with suppress(OSError):  # a full disk has been said already
            write()
        raise
    write()


def make_folder(path: Path) -> None:
    """Make the folder for the results; raises `PartCLIPSegError` where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartCLIPSegError(
            f"cannot write to {path} ({error.strerror}): name another folder with --output"
        ) from None


def describe(segmenter: PartSegmenter, name: str | None) -> str:
    """One line: which model, where it runs, and in what number type."""
    dtype = str(segmenter.model.dtype).removeprefix("torch.")
    return f"model: {model_title(segmenter, name)}; {segmenter.device}, {dtype}"


def model_title(segmenter: PartSegmenter, name: str | None) -> str:
    """The model's name and what it is, or what there is to know about the built-in one."""
    if name is None:
        return "the built-in model, which knows rendered scenes only, not photos"
    return f"{name} ({segmenter.model.title})"


def output_stems(photos: Sequence[Path]) -> list[str]:
    """A name for the results of each photo, no two alike: its stem if that is enough for all of them.

    Otherwise the photos' folders are mirrored below the output folder, and where even that leaves two alike
    (``a.jpg`` and ``a.png``) the suffixes stay. Capitals do not count, since some file systems ignore them. A name too
    long for its results is cut and gets a digest of the whole.
    """
    stems = [photo.stem for photo in photos]
    if not _all_differ(stems):
        absolute = [os.path.abspath(photo) for photo in photos]  # noqa: PTH100  (resolve would follow links)
        root = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
        relative = [Path(path).relative_to(root) for path in absolute]
        stems = [str(path.with_suffix("")) for path in relative]
        if not _all_differ(stems):
            stems = [str(path) for path in relative]
    return [str(Path(stem).with_name(_short_name(Path(stem).name))) for stem in stems]


def _short_name(name: str) -> str:
    encoded = os.fsencode(name)
    if len(encoded) <= MAX_NAME:
        return name
    return f"{encoded[:60].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _all_differ(names: Sequence[str]) -> bool:
    return len({name.casefold() for name in names}) == len(names)


def _summary(result: PartResult) -> str:
    found = sorted(result.segments(), key=lambda segment: -segment.area)
    words = ", ".join(segment.name for segment in found[:4]) or "nothing found"
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return f"  {result.name}: {words}{more}"
