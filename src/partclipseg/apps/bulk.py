"""Labelling a folder of photos: batches, what becomes of each photo, and a manifest that a run goes on from.

A batch is the unit of work and always holds the same photos, so that a run which was stopped and taken up again
makes the same files to the byte: arithmetic may differ in its last digits between batches of different make-up.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args
from urllib.parse import quote

from PIL import Image

from partclipseg.data.photo import PhotoError, find_photos
from partclipseg.errors import UsageError
from partclipseg.files import whole_file, write_text
from partclipseg.inference.result import PartResult
from partclipseg.journal import json_text
from partclipseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter

BulkFormat = Literal["coco", "yolo", "labelme", "png", "jsonl", "label-studio"]
BULK_FORMATS: tuple[BulkFormat, ...] = get_args(BulkFormat)

OWN_FILES: dict[BulkFormat, tuple[str, str]] = {
    "png": ("labels", ".png"),
    "labelme": ("labelme", ".json"),
    "yolo": ("yolo/labels", ".txt"),
    "label-studio": ("label_studio", ".json"),
}
"""Formats with a file for each photo: its folder and suffix. The others are made of the manifest at the end."""

MANIFEST, OPTIONS = "manifest.jsonl", "options.json"

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the output folder that the next photo would meet as well."""

Record = dict[str, Any]
"""A line of the manifest: photo, status, and either error or width, height and segments with RLE masks."""


class Photo(NamedTuple):
    """One photo of the folder."""

    path: str
    """Relative to the folder, with forward slashes: its name in every file."""
    stem: str
    """What its own files are called, without their suffix."""


Batch = list[Photo]


@dataclass(frozen=True)
class BulkJob:
    """What is to be done; workers on other machines get it as it is."""

    folder: Path
    output: Path
    vocabulary: Vocabulary
    formats: tuple[BulkFormat, ...]
    model: str | None = None
    objects: tuple[str, ...] = ()
    zoom: bool = False
    min_score: float = 0.0
    dtype: str = "float32"
    batch_size: int = 8
    max_pixels: int = 80_000_000

    def own_files(self, photo: Photo) -> dict[BulkFormat, Path]:
        """Path of the photo's own file in each format that has one."""
        return {
            name: self.output / folder / f"{photo.stem}{suffix}"
            for name, (folder, suffix) in OWN_FILES.items()
            if name in self.formats
        }

    def options(self, weights: str) -> dict[str, Any]:
        """All that the results depend on; `weights` is a fingerprint of the model's."""
        return {
            "folder": str(self.folder.resolve()),
            "model": self.model or "the built-in model",
            "weights": weights,
            "vocabulary": list(self.vocabulary.names),
            "objects": list(self.objects),
            "zoom": self.zoom,
            "min_score": self.min_score,
            "formats": list(self.formats),
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "max_pixels": self.max_pixels,
        }


def find_all(folder: Path, output: Path) -> list[Photo]:
    """The photos in `folder` and its subfolders, sorted; an `output` inside it is left out.

    Raises `UsageError` if there is no such folder, no photo in it, or if it lies in `output`.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: name one with photos")
    if _is_within(folder.resolve(), output.resolve()):
        raise UsageError(f"{folder} lies in the folder for the results, {output}: name another with --output")
    paths = sorted(path.relative_to(folder).as_posix() for path in _walk(folder, output.resolve()))
    if not paths:
        raise UsageError(f"{folder}: no photos in this folder or those inside it")
    return [Photo(path, stem) for path, stem in find_stems(paths).items()]


def find_stems(paths: Sequence[str]) -> dict[str, str]:
    """Each path without its suffix, but with it where it would be another's: a.jpg and a.png keep theirs.

    Capitals do not count, since some file systems ignore them.
    """
    stems = {path: str(Path(path).with_suffix("")) for path in paths}
    while True:  # a.jpg that keeps its suffix may in turn be what a.jpg.jpg is without
        counts = Counter(stem.casefold() for stem in stems.values())
        shared = [path for path, stem in stems.items() if stem != path and counts[stem.casefold()] > 1]
        if not shared:
            return stems
        stems.update((path, path) for path in shared)


def _walk(folder: Path, output: Path) -> Iterator[Path]:
    """All photos below `folder`, through links too, but neither in `output` (resolved) nor back up."""
    for place, folders, _ in os.walk(folder, followlinks=True):
        here = Path(place)
        targets = {name: (here / name).resolve() for name in folders if not name.startswith(".")}
        folders[:] = [
            name
            for name, target in targets.items()
            if not _is_within(target, output) and not _is_within(here.resolve(), target)
        ]
        with suppress(UsageError):  # no photos just here
            yield from find_photos([here])


def _is_within(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents


# -- one batch ------------------------------------------------------------------------------------------------


class Labeller:
    """Turns batches of photos into files and records."""

    def __init__(self, job: BulkJob, segmenter: PartSegmenter, threads: int = 1) -> None:
        """Files are written by so many `threads`."""
        self.job = job
        self.segmenter = segmenter
        self._threads = threads

    @classmethod
    def load(cls, job: BulkJob, device: str | None, threads: int) -> Labeller:
        """In a process of its own, with so many CPU threads, since others share the cores."""
        import torch

        from partclipseg.inference.segmenter import PartSegmenter

        torch.set_num_threads(threads)
        logging.disable(logging.WARNING)  # the process that started this one has said it already
        return cls(job, PartSegmenter.from_pretrained(job.model, device, job.dtype), threads)

    def __call__(self, batch: Sequence[Photo]) -> list[Record]:
        """Write the photos' own files; returns their records. Only a full or read-only disk raises, `OSError`."""
        paths = [self.job.folder / photo.path for photo in batch]
        try:
            results = self._segment(paths)
        except (RuntimeError, MemoryError):
            results = [self._segment_alone(path) for path in paths]  # to find out whose fault it is
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self._finish, batch, results))

    def _segment(self, paths: Sequence[Path]) -> list[PartResult | Exception]:
        job = self.job
        options: dict[str, Any] = {"objects": job.objects or None, "zoom": job.zoom, "max_pixels": job.max_pixels}
        with warnings.catch_warnings():
            # Photos above the limit are reported by name; Pillow would warn about them a second time.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            stream = self.segmenter.segment_many(paths, job.vocabulary, batch_size=job.batch_size, **options)
            return [result for _, result in stream]

    def _segment_alone(self, path: Path) -> PartResult | Exception:
        try:
            return self._segment([path])[0]
        except (RuntimeError, MemoryError) as error:
            return error

    def _finish(self, photo: Photo, result: PartResult | Exception) -> Record:
        files = self.job.own_files(photo)
        if isinstance(result, PartResult):
            result = result.at_least(self.job.min_score)
            try:
                for name, path in files.items():
                    _write(self.job, name, path, photo, result)
                return _done(photo, result)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in _FATAL:
                    raise
                result = error
        for path in files.values():
            path.unlink(missing_ok=True)  # of an earlier run, when the photo could still be read
        return failed(photo, str(self.job.folder / photo.path), result)


def failed(photo: Photo, path: str, error: Exception) -> Record:
    """The record of a photo that could not be labelled."""
    text = str(error).removeprefix(f"{path}: ")
    reason = text if isinstance(error, PhotoError) else f"{type(error).__name__}: {text}"
    return {"photo": photo.path, "status": "failed", "error": reason}


def killed(job: BulkJob, photo: Photo) -> Record:
    """The record of a photo that ended its worker."""
    error = RuntimeError("the process died on this photo, perhaps for want of memory")
    return failed(photo, str(job.folder / photo.path), error)


def _write(job: BulkJob, name: BulkFormat, path: Path, photo: Photo, result: PartResult) -> None:
    if name == "png":
        with whole_file(path) as temporary:
            result.label_image().save(temporary)
    elif name == "yolo":
        write_text(path, result.to_yolo())
    elif name == "labelme":
        document = result.to_labelme(os.path.relpath(job.folder / photo.path, path.parent))
        write_text(path, json_text(document) + "\n")
    elif name == "label-studio":
        # Label Studio serves files below its document root: the folder that the photos' folder lies in, since the
        # photos' folder itself is what has to be connected as a storage, and must not be the root.
        place = quote(os.fsencode(f"{job.folder.resolve().name}/{photo.path}"))
        write_text(path, json_text(result.to_label_studio(f"/data/local-files/?d={place}")) + "\n")


def _done(photo: Photo, result: PartResult) -> Record:
    annotations = result.to_coco()["annotations"]
    segments = [
        {
            "name": segment.name,
            "object": segment.object,
            "part": segment.part,
            "index": segment.index,
            "score": annotation["score"],
            "area": segment.area,
            "box": list(segment.box),
            "rle": annotation["segmentation"],
        }
        for segment, annotation in zip(result.segments(), annotations, strict=True)
    ]
    height, width = result.size
    return {"photo": photo.path, "status": "done", "width": width, "height": height, "segments": segments}


# -- the run --------------------------------------------------------------------------------------------------


class Manifest:
    """``manifest.jsonl``: appended to as batches are done, put into the photos' order at the end.

    It holds everything that is known of a photo; of several lines for one photo the last counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, str] = {}
        self._done: set[str] = set()
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # the run was killed while it wrote this line
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for line in whole.decode().split("\n")[:-1]:  # other line ends may stand in names
            self._take(line)

    def _take(self, line: str) -> None:
        record = json.loads(line)
        self._lines[record["photo"]] = line
        (self._done.add if record["status"] == "done" else self._done.discard)(record["photo"])

    def is_done(self, photo: Photo) -> bool:
        """Whether the photo is labelled."""
        return photo.path in self._done

    def append(self, records: Iterable[Record]) -> None:
        """Add the photos of a batch; they are on file when this returns."""
        lines = [json_text(record) for record in records]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        for line in lines:
            self._take(line)

    def finish(self, photos: Iterable[Photo]) -> None:
        """Write the file anew: a line for each of `photos`, in their order."""
        self._lines = {photo.path: self._lines[photo.path] for photo in photos}
        with whole_file(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self._lines.values())

    def __iter__(self) -> Iterator[Record]:
        return map(json.loads, self._lines.values())


def open_batches(job: BulkJob, photos: Sequence[Photo], manifest: Manifest) -> list[list[Photo]]:
    """The batches with a photo that is not done, or whose files are not all there. Failed photos are tried again."""
    batches = [list(photos[i : i + job.batch_size]) for i in range(0, len(photos), job.batch_size)]

    def is_done(photo: Photo) -> bool:
        return manifest.is_done(photo) and all(path.is_file() for path in job.own_files(photo).values())

    return [batch for batch in batches if not all(map(is_done, batch))]


def stored_options(path: Path) -> dict[str, Any]:
    """The options that the run was begun with; none if it is not begun."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def check_options(path: Path, options: dict[str, Any]) -> None:
    """Store the options of the first run, or hold those of a later one against them.

    Raises `UsageError` that names each difference.
    """
    before = stored_options(path)
    if not before:
        write_text(path, json_text(options) + "\n")
        return
    if changes := [text for key, value in options.items() if (text := _difference(key, before.get(key), value))]:
        raise UsageError(
            f"{path.parent} was begun with other options ({'; '.join(changes)}): go on with those, or name another "
            "folder with --output"
        )


def _difference(key: str, before: Any, now: Any) -> str:
    if before == now:
        return ""
    if key == "weights":
        return "the model's weights have changed since"
    if not isinstance(now, list) or not isinstance(before, list):
        return f"{key} was {before}, now {now}"
    gone, new = [x for x in before if x not in now], [x for x in now if x not in before]
    if not gone and not new:
        return f"{key} in another order"
    sides = (f"{word} {_first_five(items)}" for word, items in (("without", gone), ("with", new)) if items)
    return f"{key} now {' and '.join(sides)}"


def _first_five(items: list[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def fingerprint(model: Any) -> str:
    """Of a model's weights and configuration: hexadecimal, 32 digits."""
    from hashlib import blake2b

    import torch

    digest = blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    config = {k: v for k, v in model.config.to_dict().items() if k not in {"_name_or_path", "transformers_version"}}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    return digest.hexdigest()
