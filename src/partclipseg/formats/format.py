"""Output formats, and the plain values that they make files from.

A format is a module of this folder with one `FORMAT = Format(…)`, and a line in `registry.FORMATS`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from partclipseg.data.coco_masks import encode_mask
from partclipseg.data.runs import label_runs
from partclipseg.formats.palette import object_colours, pale_object_colours, part_colours
from partclipseg.formats.polygons import mask_polygons
from partclipseg.formats.segment import (
    Instance,
    Owners,
    Segment,
    object_scores,
    object_segments,
    owned_object_scores,
    part_segments,
    rest_segments,
)
from partclipseg.journal import json_text
from partclipseg.vocabulary import Vocabulary

View = Literal["parts", "objects"]
"""Kind of segments: by object-part, or by whole object."""

Document = dict[str, Any] | str | Image.Image
"""Content of a file: a JSON document, text, or a picture to be written as PNG."""

Record = dict[str, Any]
"""A labelled photo as JSON: photo, width, height and segments, each a `segment_entry` with its mask as ``rle``.

If pixels of objects belong to none of their parts, ``without_part`` has a segment for each of these objects. Where
instances were asked for, ``instances`` has an `instance_entry` for each, with the mask of its pixels as ``rle``, and
each segment names its owner by ``instance``: a number or null.
"""

OutlinedSegment = tuple[Segment, list[np.ndarray]]
"""Segment with a polygon float `[n, 2]` (x, y in pixels) for each of its pieces, see `mask_polygons`."""


@dataclass(frozen=True, eq=False)
class LabelledPhoto:
    """One photo and its labels, the input of formats."""

    name: str
    """Path of the photo as it was given, or a name for it."""
    vocabulary: Vocabulary
    label_map: np.ndarray
    """int32 `[H, W]`: index into `vocabulary.classes`, background -1."""
    object_map: np.ndarray
    """int32 `[H, W]`: index into `vocabulary.objects`, background -1."""
    scores: np.ndarray
    """float32 `[N_c]`: mean probability of each class over its pixels."""
    pixels: np.ndarray | None = None
    """uint8 `[H, W, 3]`, RGB, or None."""
    rest_scores: np.ndarray | None = None
    """float32 `[N_o]`: mean probability over the pixels of each object that belong to none of its parts; None is 0."""
    probability: Callable[[int], np.ndarray] | None = None
    """Function from a class's index to its probability at every pixel, float32 `[H, W]`; None where it is unknown."""
    owners: Owners | None = None
    """The instances and their pixels; None where none were asked for."""

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of the photo."""
        return self.label_map.shape[0], self.label_map.shape[1]

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Return the classes that have pixels, in label order; with instances those of each, ownerless ones last."""
        return tuple(part_segments(self.label_map, self.vocabulary, self.scores, self.owners))

    @cached_property
    def objects(self) -> tuple[Segment, ...]:
        """Return the objects that have pixels, in the order of `vocabulary.objects`; or the instances, by number.

        With instances, pixels of objects without an owner come last.
        """
        if self.owners is None:
            scores = object_scores(self.label_map, self.vocabulary, self.scores, self._rest_scores)
        else:
            scores = owned_object_scores(self.label_map, self.vocabulary, self.owners)
        return tuple(object_segments(self.object_map, self.vocabulary, scores, self.owners))

    @cached_property
    def without_part(self) -> tuple[Segment, ...]:
        """Return the pixels of each object that belong to none of its parts; the score is that of the best part.

        With instances those of each instance, ownerless ones last.
        """
        if not ((self.label_map < 0) & (self.object_map >= 0)).any():  # far quicker than finding no segment
            return ()
        rest = np.full(self.size, -1, np.int32)
        np.copyto(rest, self.object_map, where=self.label_map < 0)  # twice as fast as `np.where`
        return tuple(rest_segments(rest, self.vocabulary, self._rest_scores, self.owners))

    @property
    def _rest_scores(self) -> np.ndarray:
        return np.zeros(len(self.vocabulary.objects)) if self.rest_scores is None else self.rest_scores

    @cached_property
    def outlines(self) -> tuple[OutlinedSegment, ...]:
        """Return the segments with polygons within a pixel of their masks, holes joined by a seam."""
        return tuple((segment, mask_polygons(segment.mask)) for segment in self.segments)

    @cached_property
    def record(self) -> Record:
        """Return the photo as a `Record`."""
        segments = self._entries(self.segments)
        found = {"photo": self.name, "width": self.size[1], "height": self.size[0], "segments": segments}
        if self.without_part:
            found["without_part"] = self._entries(self.without_part)
        if self.owners is not None:
            masks = {runs.label: runs.rle for runs in label_runs(self.owners.instance_map)}
            nothing = encode_mask(np.zeros(self.size, bool))
            found["instances"] = [
                instance_entry(instance) | {"rle": masks.get(instance.number - 1, nothing)}
                for instance in self.owners.instances
            ]
        return found

    def _entries(self, segments: Iterable[Segment]) -> list[dict[str, Any]]:
        """Return segments for JSON, with their masks."""
        return [self.entry(segment) | {"rle": segment.rle} for segment in segments]

    def entry(self, segment: Segment) -> dict[str, Any]:
        """Return a segment for JSON, without its mask; its owner is named where instances were asked for."""
        return segment_entry(segment) | ({} if self.owners is None else {"instance": segment.instance})

    def view(self, view: View) -> tuple[np.ndarray, tuple[Segment, ...], np.ndarray]:
        """Return map int32 `[H, W]`, segments and colours uint8 `[K, 3]` of a view."""
        if view == "parts":
            return self.label_map, self.segments, part_colours(self.vocabulary)
        return self.object_map, self.objects, object_colours(self.vocabulary)

    def painted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return map int32 `[H, W]` and colours uint8 `[N_c + N_o, 3]` for pictures of the parts.

        The map has `N_c` + object index, in a pale colour, where an object has no part.
        """
        rest = self.object_map + np.int32(len(self.vocabulary))
        painted = np.where((self.label_map < 0) & (self.object_map >= 0), rest, self.label_map)
        return painted, np.concatenate([part_colours(self.vocabulary), pale_object_colours(self.vocabulary)])


@dataclass(frozen=True)
class Place:
    """Location of a photo's own file, for formats whose files refer to the photo."""

    folder: Path = Path()
    """Folder of the file."""
    photo: Path | None = None
    """Path of the photo; None for a photo that is not a file."""
    root: Path | None = None
    """Folder of all photos of the data set; None outside of data sets."""


@dataclass(frozen=True)
class DataSet:
    """Labelled photos of a whole run, the input of formats for files about all photos."""

    vocabulary: Vocabulary
    photos: Path
    """Folder that the photos' paths are relative to."""
    records: Iterable[tuple[int, Record]]
    """Index among all photos, from 1, and record of each labelled photo; can be iterated repeatedly."""
    stem: Callable[[str], str]
    """Function from a photo's path in its record to the name of its own files, without folder and suffix."""
    own: Callable[[str, Record], Iterator[bytes]]
    """Function of a format's name and a record: yields contents of the photo's own file, the current one first."""


Content = Iterable[str] | bytes | Path
"""Pieces of a text file, the bytes of a file, or the target of a link to a folder."""


@dataclass(frozen=True)
class Format:
    """An output format: the name of its files, and functions that make and read them."""

    name: str
    help: str
    """One line for help texts, without a full stop."""
    suffix: str = ""
    """Ending of a photo's own file among files of other formats, such as ``.labels.png``.

    Its last part is the suffix in the format's own folder of a data set.
    """
    make: Callable[[LabelledPhoto, Place], Document] | None = None
    """Make the content of a photo's own file; None for a format that has no such file."""
    make_many: Callable[[LabelledPhoto], Iterator[tuple[str, Image.Image]]] | None = None
    """Yield name and picture of each file in a photo's own folder, whose name ends in `suffix`; in place of `make`."""
    needs_instances: bool = False
    """Whether its files are about instances, so that there are none unless these were asked for."""
    refusal: Callable[[Vocabulary], str | None] | None = None
    """Say why the format's files cannot hold a vocabulary, such as "can number 99 objects, and there are 100"; None if
    they can."""
    needs_photo: bool = False
    """Whether its files show the photo itself."""
    on_request: bool = False
    """Whether the format is left out where all are asked for: its files take much longer than the others."""
    indent: int | None = 1
    """Spaces of indentation of JSON in single files; data sets have none."""
    folder: str | None = None
    """Folder of the photos' own files in a labelled data set; None if they have none there."""
    class_files: Callable[[Vocabulary], Iterator[str]] | None = None
    """Yield the name of each class's file for a format that has a folder for each photo in `folder`; with `make_many`.

    These files are made while a photo is labelled, since they show more than its record holds.
    """
    collect: Callable[[DataSet], Iterator[tuple[str, Content]]] | None = None
    """Yield name and content of each file about all photos of a data set."""
    shared: Callable[[Vocabulary], Iterator[tuple[str, str]]] | None = None
    """Yield name and text of each file that accompanies the photos' own files, the same for all photos."""
    read: Callable[[Path, Vocabulary, tuple[int, int]], np.ndarray] | None = None
    """Read a photo's own file that a person corrected: path, vocabulary, (height, width) to a label map int32 `[H, W]`.

    Raises `CorrectionError` for a file that does not fit, `OSError` for one that cannot be read.
    """
    precedence: int = 100
    """Priority of the format if several files of a photo are corrected: the lowest number counts."""

    @property
    def extension(self) -> str:
        """Return the suffix of a photo's own file in the format's own folder."""
        return Path(self.suffix).suffix

    @property
    def is_single(self) -> bool:
        """Whether the format has a file, or a folder, for a single photo."""
        return self.make is not None or self.make_many is not None

    @property
    def is_for_data_sets(self) -> bool:
        """Whether the format has files in a labelled data set."""
        return self.folder is not None or self.collect is not None

    @property
    def is_collected(self) -> bool:
        """Whether a run writes one file about all photos instead of one for each."""
        return self.collect is not None and self.folder is None and self.make_many is None

    def document(self, photo: LabelledPhoto, place: Place | None = None) -> Document:
        """Return the content of the photo's own file, or the pictures of its folder by file name."""
        if self.make_many is not None:
            return dict(self.make_many(photo))
        assert self.make is not None, f"{self.name} has no file for a single photo"
        return self.make(photo, place or Place())

    def content(self, photo: LabelledPhoto, place: Place | None = None) -> bytes:
        """Return the bytes of the photo's own file among files of other formats."""
        return encoded(self.document(photo, place), self.indent)

    def files(self, photo: LabelledPhoto, stem: str, place: Place | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of each of the photo's own files; `stem` begins the names."""
        if self.make_many is None:
            yield stem + self.suffix, self.content(photo, place)
            return
        for name, picture in self.make_many(photo):
            yield f"{stem}{self.suffix}/{name}", encoded(picture)

    def draft(self, photo: LabelledPhoto, place: Place) -> bytes:
        """Return the bytes of the photo's own file in a data set."""
        return encoded(self.document(photo, place), None)

    def class_drafts(self, photo: LabelledPhoto) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of each file in the photo's own folder in a data set."""
        assert self.make_many is not None, f"{self.name} has a single file for a photo"
        for name, picture in self.make_many(photo):
            yield name, encoded(picture)


PNG_STRATEGY = zlib.Z_RLE
"""Strategy of zlib that looks for runs alone. Beside its default, label maps and masks took 20 to 65 % of the time,
for 22 % fewer to 14 % more bytes, and pictures of photos 19 to 32 %, for 2 to 23 % more bytes."""


def encoded(document: Document, indent: int | None = None) -> bytes:
    """Encode a file: JSON in UTF-8 with a final line feed, text as `encoded_text`, or PNG."""
    if isinstance(document, Image.Image):
        buffer = io.BytesIO()
        document.save(buffer, format="PNG", compress_type=PNG_STRATEGY)
        return buffer.getvalue()
    if isinstance(document, str):
        return encoded_text(document)
    return f"{json_text(document, indent)}\n".encode()


def encoded_text(text: str) -> bytes:
    """Encode text in UTF-8; bytes of file names that are not valid Unicode are written as ``\\udce9``."""
    return text.encode("utf-8", "backslashreplace")


def segment_entry(segment: Segment) -> dict[str, Any]:
    """Return a segment without its mask, for JSON."""
    return {
        "name": segment.name,
        "object": segment.object,
        "part": segment.part,
        "index": segment.index,
        "score": round(segment.score, 4),
        "area": segment.area,
        "box": list(segment.box),
    }


def instance_entry(instance: Instance) -> dict[str, Any]:
    """Return an instance for JSON; coordinates of the box that found it have two digits after the point."""
    return {
        "number": instance.number,
        "object": instance.object,
        "index": instance.index,
        "score": round(instance.score, 4),
        "area": instance.area,
        "box": list(instance.box),
        "found": [round(value, 2) for value in instance.found],
        "source": instance.source,
    }
