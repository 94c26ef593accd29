"""``partclipseg predict``: photos and words in, a folder of results out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from partclipseg.apps.arguments import check_no_words
from partclipseg.apps.format_option import format_option
from partclipseg.apps.instance_options import BUILT_IN_REMARK, FindInstances, InstanceOptions, LoadedInstances
from partclipseg.apps.options import (
    Ask,
    Asking,
    BatchSize,
    Device,
    Dtype,
    MaxPixels,
    MinPartProbability,
    MinScore,
    ModelOption,
    Objects,
    VocabularyOption,
    Zoom,
    check_probability,
)
from partclipseg.apps.terminal import plain_console
from partclipseg.counts import count_of, noun
from partclipseg.errors import PartCLIPSegError, UsageError, first_line
from partclipseg.formats.registry import all_formats, chosen_formats

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.apps.prediction_files import Failures
    from partclipseg.apps.written import OwnFiles
    from partclipseg.formats.format import Format
    from partclipseg.inference.result import PartResult
    from partclipseg.inference.segmenter import PartSegmenter


@dataclass(frozen=True)
class Predict:
    """Find the parts of things in photos, by your own words.

    Examples:
      partclipseg predict photo.jpg --vocabulary "dog: head, torso, leg, tail" --model partclipseg-pascal
      partclipseg predict holiday/ --vocabulary pascal-part-116 --model partclipseg-pascal --output results
    """

    photos: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...", help_behavior_hint="(required)")
    ]
    """Files, folders (the photos directly inside) or quoted patterns such as "holiday/**/*.jpg"."""
    vocabulary: VocabularyOption = None
    model: ModelOption = None
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("parts")
    """Folder for the results. Those of an earlier run are replaced, if nobody has changed them since."""
    overwrite: bool = False
    """Replace also files in that folder that somebody else made or changed."""
    formats: Annotated[tuple[str, ...], format_option(all_formats)] = ("overlay", "png", "json", "coco")
    objects: Objects = ()
    min_score: MinScore = 0.0
    min_part_probability: MinPartProbability = None
    zoom: Zoom = False
    device: Device = None
    dtype: Dtype = None
    batch_size: BatchSize = 8
    max_pixels: MaxPixels = 80_000_000
    find: FindInstances = field(default_factory=InstanceOptions)
    ask: Ask = field(default_factory=Asking)

    def run(self) -> int:
        from PIL import Image

        from partclipseg.apps.model_line import describe
        from partclipseg.apps.written import OwnFiles, make_folder
        from partclipseg.data.photo import describe_unread, find_photos, unread_pictures
        from partclipseg.files import locked, remove_temporary
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.vocabulary import Vocabulary

        console = plain_console()
        # Check the options before the model is loaded.
        formats = chosen_formats(self.formats, all_formats())
        self.find.check(self.formats, formats, self.zoom)
        check_probability(min_score=self.min_score, min_part_probability=self.min_part_probability)
        prompting = self.ask.prompting()
        vocabulary = None if self.vocabulary is None else Vocabulary.load(self.vocabulary)
        if not self.photos:
            raise UsageError("no photo is named: partclipseg predict PHOTO... --vocabulary WORDS")
        check_no_words(self.photos)
        photos = find_photos(self.photos)
        make_folder(self.output)
        with locked(self.output):
            remove_temporary(self.output, recursive=False)
            files = OwnFiles(self.output, "predict", self.overwrite)
            # Result pictures of an earlier run, in the same folder as the photos, are no photos to segment.
            photos = [photo for photo in photos if str(photo) in self.photos or not files.is_own(photo)]
            if not photos:
                raise UsageError(f"nothing but results of an earlier run is in {', '.join(self.photos)}: name a photo")
            loaded = self.find.load(self.device)
            loaded.check_photos(photos)
            segmenter = PartSegmenter.from_pretrained(self.model, self.device, self.dtype, prompting=prompting)
            words = vocabulary or segmenter.vocabulary
            chosen_formats(self.formats, all_formats(), vocabulary=words)  # told once, not with every photo
            console.print(describe(segmenter, self.model))
            if self.find.uses_built_in:
                console.print(BUILT_IN_REMARK)
            if vocabulary is not None and vocabulary.paired is None:
                words = ", ".join(vocabulary.anywhere)
                console.print(f'parts of any object: {words}; for those of one, write "dog: head, leg"')
            # Photos above the limit are reported by name; Pillow would warn about them a second time.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            failures = self._segment(segmenter, loaded, photos, vocabulary, formats, files, console)
        failures.unread = describe_unread(unread_pictures(self.photos))
        failures.tell(len(photos))
        return 1 if failures.failed or failures.kept or failures.unwritten else 0

    def _segment(
        self,
        segmenter: PartSegmenter,
        loaded: LoadedInstances,
        photos: Sequence[Path],
        vocabulary: Any,
        formats: Mapping[str, Format],
        files: OwnFiles,
        console: Console,
    ) -> Failures:
        """Write the results of all photos. Files about all photos are also written if the run ends early."""
        from rich.progress import track

        from partclipseg.apps.prediction_files import Failures, PhotoFiles, collected, output_stems
        from partclipseg.inference.photos import ahead
        from partclipseg.inference.result import PartResult
        from partclipseg.vocabulary import split_words

        failures = Failures()
        stems = output_stems(photos)
        by_path = dict(zip(map(str, photos), stems, strict=True))
        named = zip(photos, stems, strict=True)
        if short := [stem for photo, stem in named if not Path(stem).name.startswith(photo.stem)]:
            console.print(
                f"{len(short):,} of the photos' names "
                + noun(len(short), "is too long for its results", "are too long for their results")
                + f", which are called {short[0]}"
                + (" and so on" if len(short) > 1 else "")
            )

        segment = partial(
            segmenter.segment_many,
            vocabulary=vocabulary,
            objects=split_words(self.objects) or None,
            zoom=self.zoom,
            min_part_probability=self.min_part_probability,
            **loaded._asdict(),
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            keep_photo=any(kind.needs_photo for kind in formats.values()),
        )
        stream = segment_all(segment, photos, self.batch_size)
        if console.is_terminal:
            stream = track(stream, "segmenting", total=len(photos), console=console, transient=True)
        # Files are written by threads, while the model works on the next photos.
        with collected(files, formats, by_path, failures) as collection, ThreadPoolExecutor() as pool:
            finish = PhotoFiles(files, formats, failures, collection, self.min_score).finish
            numbered = enumerate(zip(stream, stems, strict=True), start=1)
            work = (pool.submit(finish, number, result, stem) for number, ((_, result), stem) in numbered)
            found = False
            for future in ahead(work, 2 * self.batch_size):
                result = future.result()
                found = found or (isinstance(result, PartResult) and bool(result))
                if not isinstance(result, PartResult):
                    failures.failed.append(result)
                elif not console.is_terminal or len(photos) <= 20:
                    console.print(_summary(result))
        if len(failures.failed) < len(photos):
            done = len(photos) - len(failures.failed)
            console.print(f"{done:,} of {count_of(len(photos), 'photo')} -> {self.output}")
            if self.model is None and not found:
                console.print("no part was found: for photos name a model, such as --model partclipseg-pascal")
            elif self.find.uses_built_in and not found:
                console.print(
                    "no part was found: for photos name a detector, such as "
                    "--instances IDEA-Research/grounding-dino-tiny"
                )
        return failures


def segment_all(
    segment: Callable[[Sequence[Path]], Iterator[tuple[Path, Any]]], photos: Sequence[Path], batch_size: int
) -> Iterator[tuple[Path, Any]]:
    """Yield each photo with its result, or with the error that prevented it.

    If the model fails on a batch, for example for lack of memory, its photos are tried one by one, so that only the
    photos at fault get no result. `segment` is `PartSegmenter.segment_many` with all arguments but the photos bound.
    """
    stream, done = segment(photos), 0
    while True:
        try:
            for answer in stream:
                yield answer
                done += 1
            return
        except PartCLIPSegError:  # wrong words: the same for all photos
            raise
        except Exception:
            alone = photos[done : done + 2 * batch_size]  # the batch at fault and the pending one before it
        for photo in alone:
            yield photo, _segment_alone(segment, photo)
        done += len(alone)
        stream = segment(photos[done:])


def _segment_alone(segment: Callable[[Sequence[Path]], Iterator[tuple[Path, Any]]], photo: Path) -> Any:
    from partclipseg.data.photo import PhotoError

    try:
        [(_, result)] = segment([photo])
    except PartCLIPSegError:
        raise
    except Exception as error:
        return PhotoError(f"{photo}: the model failed on it ({type(error).__name__}: {first_line(error)})")
    return result


def _summary(result: PartResult) -> str:
    found = sorted(result.segments(), key=lambda segment: -segment.area)
    rests = (f"rest of {'the ' if one.instance is None else ''}{one.title}" for one in result.without_part()[:4])
    words = ", ".join(segment.title for segment in found[:4]) or ", ".join(rests) or "nothing found"
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return f"  {result.name}: {words}{more}"
