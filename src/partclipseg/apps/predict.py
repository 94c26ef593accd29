"""``partclipseg predict``: photos and words in, a folder of results out."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from partclipseg.apps.options import BatchSize, Device, Dtype, MinScore, Model, Vocabulary, Zoom, check_min_score
from partclipseg.errors import PartCLIPSegError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.inference.result import PartResult
    from partclipseg.inference.segmenter import PartSegmenter

COCO_FILE = "annotations.coco.json"
"""One file for all photos, as COCO has it."""


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
    """Folder for the results. Files of an earlier run are replaced."""
    format: Annotated[
        tuple[Literal["overlay", "png", "json", "coco", "labelme"], ...],
        tyro.conf.arg(metavar="KIND...", aliases=["--formats"]),
    ] = ("overlay", "png", "json", "coco")
    """One or more kinds of result.
    overlay: the photo in colours with a legend.
    png: image of class indices; background is 255 (65535 with more than 255 classes).
    json: score, area and box of each part.
    coco: masks of all photos in annotations.coco.json.
    labelme: outlines to edit."""
    objects: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD...", help_behavior_hint="")] = ()
    """Only if you know what is in every photo: these objects.
    Their parts then share all pixels, and there is no background."""
    min_score: MinScore = 0.0
    zoom: Zoom = False
    device: Device = None
    dtype: Dtype = None
    batch_size: BatchSize = 8
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = 80_000_000
    """Photos with more pixels than this are refused before they are decoded."""

    def run(self) -> int:
        from PIL import Image
        from rich.console import Console

        from partclipseg.data.photo import find_photos
        from partclipseg.inference.result import check_formats
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.vocabulary import Vocabulary as Words

        console = Console(soft_wrap=True, highlight=False)
        # All that can be wrong with the call is looked at before the model is loaded.
        formats = check_formats(self.format)
        check_min_score(self.min_score)
        vocabulary = None if self.vocabulary is None else Words.load(self.vocabulary)
        if not self.photos:
            raise UsageError("no photo is named: partclipseg predict PHOTO... --vocabulary WORDS")
        photos = find_photos(self.photos)
        make_folder(self.output)
        segmenter = PartSegmenter.from_pretrained(self.model, self.device, self.dtype)
        console.print(describe(segmenter, self.model), markup=False)
        # Photos above the limit are reported by name; Pillow would warn about them a second time.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        failed = self._segment(segmenter, photos, vocabulary, formats, console)
        if failed:
            errors = Console(stderr=True, soft_wrap=True, highlight=False)
            errors.print(f"{len(failed)} of {len(photos)} photos could not be segmented:")
            for message in failed:
                errors.print(f"  {message}", markup=False)
        return 1 if failed else 0

    def _segment(
        self,
        segmenter: PartSegmenter,
        photos: Sequence[Path],
        vocabulary: Any,
        formats: Sequence[Any],
        console: Console,
    ) -> list[str]:
        """Write the results of all photos; returns what was wrong with those that have none."""
        from rich.progress import track

        from partclipseg.files import write_text
        from partclipseg.inference.formats import merge_coco
        from partclipseg.inference.photos import ahead
        from partclipseg.inference.result import PartResult

        own_files = [name for name in formats if name != "coco"]

        def finish(number: int, result: Any, stem: str) -> tuple[Any, dict[str, Any] | None]:
            """Write the photo's own files; returns its COCO document, if it is wanted, with ids from 1 on."""
            if not isinstance(result, PartResult):
                return result, None
            result = result.at_least(self.min_score)
            if own_files:
                result.save(self.output, stem, own_files)
            return result, result.to_coco(image_id=number) if "coco" in formats else None

        stream = segmenter.segment_many(
            photos,
            vocabulary,
            objects=self.objects or None,
            zoom=self.zoom,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
        )
        if console.is_terminal:
            stream = track(stream, "segmenting", total=len(photos), console=console, transient=True)
        failed: list[str] = []
        documents: list[dict[str, Any]] = []
        annotations = 0
        # Files are written by threads, while the model works on the next photos.
        with ThreadPoolExecutor() as pool:
            numbered = enumerate(zip(stream, output_stems(photos), strict=True), start=1)
            work = (pool.submit(finish, number, result, stem) for number, ((_, result), stem) in numbered)
            for future in ahead(work, 2 * self.batch_size):
                result, document = future.result()
                if not isinstance(result, PartResult):
                    failed.append(str(result))
                    continue
                if document is not None:
                    for annotation in document["annotations"]:
                        annotation["id"] += annotations
                    annotations += len(document["annotations"])
                    documents.append(document)
                if not console.is_terminal or len(photos) <= 20:
                    console.print(_summary(result), markup=False)
        if documents:
            write_text(self.output / COCO_FILE, json.dumps(merge_coco(documents), ensure_ascii=False) + "\n")
        if len(failed) < len(photos):
            console.print(f"{len(photos) - len(failed)} of {len(photos)} photos -> {self.output}", markup=False)
        return failed


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
    """The model's name and class, or what there is to know about the built-in one."""
    if name is None:
        return "the built-in model, which knows rendered scenes only, not photos"
    return f"{name} ({type(segmenter.model).__name__})"


def output_stems(photos: Sequence[Path]) -> list[str]:
    """A name for the results of each photo, no two alike: its stem if that is enough for all of them.

    Otherwise the photos' folders are mirrored below the output folder, and where even that leaves two alike
    (``a.jpg`` and ``a.png``) the suffixes stay. Capitals do not count, since some file systems ignore them.
    """
    stems = [photo.stem for photo in photos]
    if _all_differ(stems):
        return stems
    absolute = [os.path.abspath(photo) for photo in photos]  # noqa: PTH100  (resolve would follow links)
    root = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
    relative = [Path(path).relative_to(root) for path in absolute]
    stems = [str(path.with_suffix("")) for path in relative]
    return stems if _all_differ(stems) else [str(path) for path in relative]


def _all_differ(names: Sequence[str]) -> bool:
    return len({name.casefold() for name in names}) == len(names)


def _summary(result: PartResult) -> str:
    found = sorted(result.segments(), key=lambda segment: -segment.area)
    words = ", ".join(segment.name for segment in found[:4]) or "nothing found"
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return f"  {result.name}: {words}{more}"
