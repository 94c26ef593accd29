"""``partclipseg predict``: photos and words in, a folder of results out."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from partclipseg.apps.format_option import format_option
from partclipseg.apps.instance_options import FindInstances, InstanceOptions, LoadedInstances
from partclipseg.apps.options import (
    Ask,
    Asking,
    BatchSize,
    Device,
    Dtype,
    MinPartProbability,
    MinScore,
    ModelOption,
    VocabularyOption,
    Zoom,
    check_min_part_probability,
    check_min_score,
)
from partclipseg.errors import PartCLIPSegError, UsageError, first_line
from partclipseg.formats.registry import all_formats, chosen_formats, single_formats

if TYPE_CHECKING:
    from rich.console import Console

    from partclipseg.apps.written import OwnFiles
    from partclipseg.formats.format import Format, Record
    from partclipseg.inference.result import PartResult
    from partclipseg.inference.segmenter import PartSegmenter
    from partclipseg.vocabulary import Vocabulary

_LONGEST_NAME = 255
"""Maximum length of a file name in bytes on most file systems."""


@dataclass(frozen=True)
class Predict:
    """Find the parts of things in photos, by your own words.

    Examples:
      partclipseg predict photo.jpg --vocabulary "dog: head, torso, leg, tail; bus: body, wheel" --model models/pascal
      partclipseg predict holiday/ --vocabulary pascal-part-116 --model models/pascal --output results
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
    format: Annotated[tuple[str, ...], format_option(all_formats, "--formats")] = ("overlay", "png", "json", "coco")
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
    find: FindInstances = field(default_factory=InstanceOptions)
    ask: Ask = field(default_factory=Asking)

    def run(self) -> int:
        from PIL import Image
        from rich.console import Console

        from partclipseg.apps.written import OwnFiles
        from partclipseg.data.photo import describe_unread, find_photos, unread_pictures
        from partclipseg.files import locked, remove_temporary
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.vocabulary import Vocabulary

        console = Console(soft_wrap=True, highlight=False)
        # Check the options before the model is loaded.
        formats = chosen_formats(self.format, all_formats())
        self.find.check(self.format, formats, self.zoom)
        check_min_score(self.min_score)
        check_min_part_probability(self.min_part_probability)
        prompting = self.ask.prompting()
        vocabulary = None if self.vocabulary is None else Vocabulary.load(self.vocabulary)
        if not self.photos:
            raise UsageError("no photo is named: partclipseg predict PHOTO... --vocabulary WORDS")
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
            segmenter = PartSegmenter.from_pretrained(self.model, self.device, self.dtype, prompting=prompting)
            console.print(describe(segmenter, self.model), markup=False)
            # Photos above the limit are reported by name; Pillow would warn about them a second time.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            outcome = self._segment(segmenter, loaded, photos, vocabulary, formats, files, console)
        outcome.unread = describe_unread(unread_pictures(self.photos))
        outcome.tell(len(photos))
        return 1 if outcome.failed or outcome.kept or outcome.unwritten else 0

    def _segment(
        self,
        segmenter: PartSegmenter,
        loaded: LoadedInstances,
        photos: Sequence[Path],
        vocabulary: Any,
        formats: Mapping[str, Format],
        files: OwnFiles,
        console: Console,
    ) -> _Outcome:
        """Write the results of all photos. Files about all photos are also written if the run ends early."""
        from rich.progress import track

        from partclipseg.files import is_disk_full, refusal
        from partclipseg.inference.photos import ahead
        from partclipseg.inference.result import PartResult
        from partclipseg.vocabulary import split_words

        outcome = _Outcome()
        stems = output_stems(photos)
        by_path = dict(zip(map(str, photos), stems, strict=True))
        named = zip(photos, stems, strict=True)
        if short := [stem for photo, stem in named if not Path(stem).name.startswith(photo.stem)]:
            console.print(
                f"{len(short)} of the photos' names are too long for their results, which are called {short[0]}"
                + (" and so on" if len(short) > 1 else ""),
                markup=False,
            )

        def finish(number: int, result: Any, stem: str) -> Any:
            """Write the photo's own files; return the result, or a sentence with the reason why there is none."""
            if not isinstance(result, PartResult):
                return str(result)
            try:
                result = result.at_least(self.min_score)
                refused: OSError | None = None
                for name, kind in formats.items():
                    if not kind.is_collected:
                        made = result.files([name], stem, (self.output / stem).parent)
                        for file, content in made.items():
                            try:
                                outcome.write(files, file, content)
                            except OSError as error:
                                if is_disk_full(error):
                                    raise
                                refused = refused or error  # one file in the way is no reason to leave others out
                        if kind.make_many is not None:
                            files.remove_others(f"{stem}{kind.suffix}", made)
                if refused is not None:
                    raise refused
                collection.add(number, result)
            except OSError as error:
                if is_disk_full(error):  # the next photo would fail likewise
                    raise PartCLIPSegError(refusal(error, self.output)) from error
                return f"{result.name}: {refusal(error, self.output)}"
            except Exception as error:  # report the failure, go on with the others
                return f"{result.name}: {type(error).__name__}: {first_line(error)}"
            return result

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
        with collected(files, formats, by_path, outcome) as collection, ThreadPoolExecutor() as pool:
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


@dataclass
class _Outcome:
    """Failures to report at the end."""

    failed: list[str] = field(default_factory=list)
    """Reasons for the photos that have no results."""
    kept: list[str] = field(default_factory=list)
    """Files of somebody else that are in the place of results."""
    unwritten: list[str] = field(default_factory=list)
    """Reasons for the files about all photos that could not be written."""
    unread: str | None = None

    def write(self, files: OwnFiles, name: str, content: bytes) -> None:
        """Write a file, or note that a file of somebody else is in its place."""
        from partclipseg.apps.written import KeptError

        try:
            files.write(name, content)
        except KeptError as error:
            self.kept.append(str(error))

    def write_shared(self, files: OwnFiles, name: str, content: bytes) -> None:
        """Write a file about all photos, or note why the system refuses it. Raises `OSError` for a full disk."""
        from partclipseg.files import is_disk_full, refusal

        try:
            self.write(files, name, content)
        except OSError as error:
            if is_disk_full(error):
                raise
            self.unwritten.append(refusal(error, files.folder / name))

    def tell(self, count: int) -> None:
        """Report the failures among `count` photos on standard error."""
        from rich.console import Console

        from partclipseg.apps.written import kept_sentence

        errors = Console(stderr=True, soft_wrap=True, highlight=False)
        if self.failed:
            errors.print(f"{len(self.failed)} of {count} photos could not be segmented:")
            for message in self.failed:
                errors.print(f"  {message}", markup=False)
        if self.unwritten:
            errors.print("files about all photos that could not be written:")
            for message in self.unwritten:
                errors.print(f"  {message}", markup=False)
        if self.kept:
            errors.print(kept_sentence(self.kept), markup=False)
        if self.unread:
            errors.print(self.unread, markup=False)


class _Collection:
    """Records of the photos, spooled to disk, for the files about all photos. Thread-safe."""

    def __init__(self, path: Path, wanted: bool) -> None:
        from partclipseg.journal import Journal

        path.unlink(missing_ok=True)  # left by a killed run
        self.vocabulary: Vocabulary | None = None
        """Vocabulary of the photos; None before the first one."""
        self._wanted = wanted
        self._journal = Journal(path)
        self._lock = Lock()

    def add(self, number: int, result: PartResult) -> None:
        """Keep the record of a photo, under its index among all photos."""
        if self._wanted:
            record = result.labelled.record
            with self._lock:
                self._journal.append([{"number": number, "record": record}])
        self.vocabulary = result.vocabulary

    def records(self) -> list[tuple[int, Record]]:
        """Return the records with the indices of their photos."""
        entries = self._journal.read(damaged="skip")
        return sorted(((entry["number"], entry["record"]) for entry in entries), key=lambda entry: entry[0])


@contextmanager
def collected(
    files: OwnFiles, formats: Mapping[str, Format], stems: Mapping[str, str], outcome: _Outcome
) -> Iterator[_Collection]:
    """Collect records; write the files about all photos when the block ends, also after an error.

    `stems` maps the path of each photo to the name of its results.
    """
    from partclipseg.apps.written import FOLDER
    from partclipseg.formats.format import DataSet, encoded_text

    path = files.folder / FOLDER / "annotations.jsonl"
    kinds = list(formats.values())
    collection = _Collection(path, any(kind.is_collected for kind in kinds))

    def write() -> None:
        if collection.vocabulary is not None:
            data_set = DataSet(
                collection.vocabulary, Path(), collection.records(), stems.__getitem__, lambda *_: iter(())
            )
            for kind in kinds:
                for name, text in kind.shared(data_set.vocabulary) if kind.shared else ():
                    outcome.write_shared(files, name, text.encode())
                for name, content in kind.collect(data_set) if kind.collect and kind.is_collected else ():
                    if not isinstance(content, Path):  # not a link to the photos: they may be in several folders
                        encoded = content if isinstance(content, bytes) else encoded_text("".join(content))
                        outcome.write_shared(files, name, encoded)
        path.unlink(missing_ok=True)

    try:
        yield collection
    except BaseException:
        with suppress(OSError):  # a full disk was reported already
            write()
        raise
    write()


def make_folder(path: Path) -> None:
    """Make the folder for the results; raises `PartCLIPSegError` if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartCLIPSegError(
            f"cannot write to {path} ({error.strerror}): name another folder with --output"
        ) from None


def describe(segmenter: PartSegmenter, name: str | None) -> str:
    """Describe the model, its device and its number type in one line."""
    return f"model: {model_title(segmenter, name)}; {segmenter.device}, {segmenter.model.number_type}"


def model_title(segmenter: PartSegmenter, name: str | None) -> str:
    """Return the model's name and what it is, or a description of the built-in model."""
    if name is None:
        return "the built-in model, which knows rendered scenes only, not photos"
    return f"{name} ({segmenter.model.title})"


def output_stems(photos: Sequence[Path]) -> list[str]:
    """Return a unique name for the results of each photo: its stem if the stems are unique.

    Otherwise the photos' folders are mirrored below the output folder, and photos whose names are still equal
    (``a.jpg`` and ``a.png``) keep their suffixes. Capitals do not count, since some file systems ignore them. A name
    too long for its results is shortened and gets a digest of the whole.
    """
    stems = [_without_suffix(photo).name for photo in photos]
    if not _all_differ(stems):
        absolute = [os.path.abspath(photo) for photo in photos]  # noqa: PTH100  (resolve would follow links)
        root = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
        relative = [Path(path).relative_to(root) for path in absolute]
        stems = [str(_without_suffix(path)) for path in relative]
        if not _all_differ(stems):
            stems = [str(path) for path in relative]
    return [str(Path(stem).with_name(_short_name(Path(stem).name))) for stem in stems]


def _without_suffix(path: Path) -> Path:
    """Return the path without its suffix, unless nothing but dots would be left, as of ``..jpg``."""
    return path.with_name(path.stem) if path.stem.strip(".") else path


def _short_name(name: str) -> str:
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME - max(len(kind.suffix) for kind in single_formats().values()):
        return name
    return f"{encoded[:60].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _all_differ(names: Sequence[str]) -> bool:
    return len({name.casefold() for name in names}) == len(names)


def _summary(result: PartResult) -> str:
    found = sorted(result.segments(), key=lambda segment: -segment.area)
    words = ", ".join(segment.title for segment in found[:4]) or "nothing found"
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return f"  {result.name}: {words}{more}"
