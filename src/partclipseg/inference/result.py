"""What segmenting one photo gives, and everything that can be made of it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from partclipseg.errors import UsageError
from partclipseg.files import is_file, whole_file
from partclipseg.inference import formats
from partclipseg.inference.overlay import LegendEntry, draw_overlay
from partclipseg.inference.palette import object_colours, pale_object_colours, part_colours
from partclipseg.vocabulary import Vocabulary

View = Literal["parts", "objects"]
"""Segments by object-part, or by whole object."""

Format = Literal["overlay", "png", "json", "coco", "labelme"]

FORMAT_SUFFIXES: dict[Format, str] = {
    "overlay": ".overlay.png",
    "png": ".labels.png",
    "json": ".parts.json",
    "coco": ".coco.json",
    "labelme": ".labelme.json",
}
"""The formats of `PartResult.save`, and how their files' names end. None is ``.json`` alone: that is a labelme file."""


LEGEND_LIMIT = 48
"""Classes that a legend names; the smallest of the others could not be seen in the picture either."""


@dataclass(frozen=True)
class Segment:
    """All pixels of one class in one photo, or of one object in the view "objects"."""

    object: str
    part: str | None
    """None for a whole object."""
    index: int
    """Of the class in `Vocabulary.object_parts`, or of the object in `Vocabulary.objects`."""
    score: float
    """Mean probability over the segment's pixels, 0 to 1."""
    area: int
    """Pixels."""
    box: tuple[int, int, int, int]
    """x, y, width, height in pixels; x and y of the upper left pixel."""

    @property
    def name(self) -> str:
        """``dog's ear``, or ``dog`` for a whole object."""
        return self.object if self.part is None else f"{self.object}'s {self.part}"


@dataclass(frozen=True, eq=False)
class PartResult:
    """The parts found in one photo."""

    label_map: np.ndarray
    """int32 `[H, W]`: index into `vocabulary.object_parts`, background -1."""
    object_map: np.ndarray
    """int32 `[H, W]`: index into `vocabulary.objects`, background -1; also where no part of the object is sure."""
    scores: np.ndarray
    """float32 `[N_c]`: mean probability of each class over its pixels, 0 where it has none."""
    vocabulary: Vocabulary
    photo: np.ndarray | None = None
    """uint8 `[H, W, 3]`, RGB, for drawing; without it overlays are painted on grey."""
    name: str = "photo"
    """The photo's path as it was given, or a name for it."""
    object_scores: np.ndarray | None = None
    """float32 `[N_o]`: mean probability of what won at the pixels of each object; None takes it from the parts."""

    def __post_init__(self) -> None:
        if self.label_map.ndim != 2 or self.label_map.shape != self.object_map.shape:
            raise ValueError(
                f"label_map {list(self.label_map.shape)} and object_map {list(self.object_map.shape)} must have the "
                "same shape [H, W]"
            )
        if self.photo is not None and self.photo.shape != (*self.label_map.shape, 3):
            raise ValueError(f"the photo {list(self.photo.shape)} does not fit a label map {list(self.size)}")
        if self.scores.shape != (len(self.vocabulary),):
            raise ValueError(f"scores {list(self.scores.shape)} must have one entry for each class")

    @classmethod
    def from_maps(
        cls,
        label_map: np.ndarray,
        object_map: np.ndarray,
        score_map: np.ndarray,
        vocabulary: Vocabulary,
        photo: np.ndarray | None = None,
        name: str = "photo",
        min_part_probability: float = 0.0,
    ) -> PartResult:
        """From integer maps and the probability of the winning class at each pixel, float `[H, W]`; all are copied.

        A pixel whose part has less than `min_part_probability` becomes one of its object without a part: -1 in
        `label_map`, the object still in `object_map`.
        """
        labels, objects = (np.array(some, dtype=np.int32, order="C") for some in (label_map, object_map))
        if min_part_probability > 0:
            labels[np.less(score_map, min_part_probability)] = -1
        count = len(vocabulary.objects) + 1
        sizes, summed = (np.bincount(objects.ravel() + 1, w, count)[1:] for w in (None, np.ravel(score_map)))
        object_scores = (summed / np.maximum(sizes, 1)).astype(np.float32)
        bins = np.add(labels.ravel(), 1, dtype=np.intp)  # background first
        # NumPy and not PyTorch: results are made in threads, each of which would call PyTorch's own threads to help.
        areas, sums = (np.bincount(bins, w, len(vocabulary) + 1)[1:] for w in (None, np.ravel(score_map)))
        scores = (sums / np.maximum(areas, 1)).astype(np.float32)
        return cls(labels, objects, scores, vocabulary, photo, name, object_scores)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo."""
        return self.label_map.shape[0], self.label_map.shape[1]

    def at_least(self, score: float) -> PartResult:
        """Without the parts whose score is below `score`, 0 to 1: their pixels become background, in both maps."""
        low = self.scores < score
        gone = (self.label_map >= 0) & low[self.label_map]
        if not gone.any():
            return self
        labels, objects = (np.where(gone, np.int32(-1), some) for some in (self.label_map, self.object_map))
        scores = np.where(low, np.float32(0), self.scores)
        return replace(self, label_map=labels, object_map=objects, scores=scores, object_scores=self._without(low))

    def _without(self, low: np.ndarray) -> np.ndarray | None:
        """The objects' scores when the pixels of the classes `low`, bool `[N_c]`, are gone."""
        if self.object_scores is None:
            return None
        owners, areas = self.vocabulary.class_to_object, self._areas("parts") * low
        sizes, gone = self._areas("objects"), np.bincount(owners, areas, len(self.vocabulary.objects))
        sums = self.object_scores * sizes - np.bincount(owners, areas * self.scores, len(self.vocabulary.objects))
        return (np.maximum(sums, 0) / np.maximum(sizes - gone, 1)).astype(np.float32)

    # -- what is in the photo ---------------------------------------------------------------------------------

    def segments(self, view: View = "parts") -> list[Segment]:
        """The classes (or objects) that have pixels, in label order."""
        return [segment for segment, _ in self._entries(view)]

    def without_part(self) -> list[Segment]:
        """Of each object the pixels that belong to none of the parts asked for, with the object's score."""
        return [segment for segment, _ in self._rest_entries()]

    @cached_property
    def painted_map(self) -> np.ndarray:
        """int32 `[H, W]`: as `label_map`, but `N_c` + the object's index where an object has no part."""
        rest = self.object_map + np.int32(len(self.vocabulary))
        return np.where((self.label_map < 0) & (self.object_map >= 0), rest, self.label_map)

    def mask(self, name: str) -> np.ndarray:
        """bool `[H, W]`: the pixels of ``"dog's ear"``, or of all of ``"dog"``.

        Raises `UsageError` for a name that the vocabulary does not have.
        """
        if name in self.vocabulary.names:
            return self.label_map == self.vocabulary.names.index(name)
        return self.object_map == self.vocabulary.object_index(name)

    def _entries(self, view: View) -> Iterator[formats.Entry]:
        for index, area in enumerate(self._areas(view)):
            if area:
                mask = self._map(view) == index
                yield self._segment(view, index, int(area), mask), mask

    def _rest_entries(self) -> Iterator[formats.Entry]:
        rest = np.where(self.label_map < 0, self.object_map, -1)
        for index, area in enumerate(np.bincount(rest.ravel() + 1, minlength=len(self.vocabulary.objects) + 1)[1:]):
            if area:
                mask = rest == index
                yield self._segment("objects", index, int(area), mask), mask

    def _segment(self, view: View, index: int, area: int, mask: np.ndarray) -> Segment:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (
            int(columns[0]),
            int(rows[0]),
            int(columns[-1] - columns[0]) + 1,
            int(rows[-1] - rows[0]) + 1,
        )
        if view == "parts":
            pair = self.vocabulary.object_parts[index]
            return Segment(pair.object, pair.part, index, float(self.scores[index]), area, box)
        if self.object_scores is not None:
            score = float(self.object_scores[index])
            return Segment(self.vocabulary.objects[index], None, index, score, area, box)
        shares = self._areas("parts") * (self.vocabulary.class_to_object == index)
        score = float(shares @ self.scores / max(shares.sum(), 1))
        return Segment(self.vocabulary.objects[index], None, index, score, area, box)

    def _map(self, view: View) -> np.ndarray:
        return self.label_map if view == "parts" else self.object_map

    def _areas(self, view: View) -> np.ndarray:
        count = len(self.vocabulary) if view == "parts" else len(self.vocabulary.objects)
        return np.bincount(self._map(view).ravel() + 1, minlength=count + 1)[1:]

    # -- pictures ---------------------------------------------------------------------------------------------

    def overlay(
        self, view: View = "parts", opacity: float = 0.6, legend: bool = True, long_side: int | None = None
    ) -> Image.Image:
        """The photo under its segments, with a legend panel beside or below it.

        The colour of a class depends on its name and on the other parts of its object, from which it can be told
        apart. In the legend, objects come by size, and so do the parts of each, with the score at the right; beyond
        `LEGEND_LIMIT` the smallest are only counted. What belongs to no part of an object is pale, and the legend calls
        it "bus (no part)". `long_side` of the drawn photo is in pixels; by default the
        photo's own, within 640 to 1600.
        """
        colours = self._colours(view)
        entries = self._legend(view, colours) if legend else None
        if view == "objects":
            return draw_overlay(self.photo, self.object_map, colours, entries, opacity, long_side)
        painted = np.concatenate([colours, pale_object_colours(self.vocabulary)])
        return draw_overlay(self.photo, self.painted_map, painted, entries, opacity, long_side)

    def label_image(self, view: View = "parts") -> Image.Image:
        """The label map as an image of class indices; background is 255 (8 bit, with palette) or 65535 (16 bit)."""
        return formats.index_image(self._map(view), self._colours(view))

    def _colours(self, view: View) -> np.ndarray:
        return part_colours(self.vocabulary) if view == "parts" else object_colours(self.vocabulary)

    def _legend(self, view: View, colours: np.ndarray) -> list[LegendEntry]:
        found = sorted(self.segments(view), key=lambda segment: -segment.area)
        rest = sorted(self.without_part(), key=lambda segment: -segment.area) if view == "parts" else []
        if not found and not rest:
            return [LegendEntry(f"no {view[:-1]} found")]
        segments, left = found[:LEGEND_LIMIT], len(found) - LEGEND_LIMIT
        more = [LegendEntry(f"and {left} smaller", opens_group=True)] if left > 0 else []
        pale = pale_object_colours(self.vocabulary)
        for s in rest[:LEGEND_LIMIT]:
            colour = tuple(pale[s.index].tolist())
            more.append(LegendEntry(f"{s.object} (no part)", colour, f"{s.score:.2f}", s is rest[0]))
        shown = {segment.index: tuple(colours[segment.index].tolist()) for segment in segments}
        if view == "objects":
            return [LegendEntry(s.object, shown[s.index], f"{s.score:.2f}") for s in segments] + more
        groups: dict[str, list[Segment]] = {}
        for segment in segments:
            groups.setdefault(segment.object, []).append(segment)
        entries: list[LegendEntry] = []
        for word, members in sorted(groups.items(), key=lambda group: -sum(s.area for s in group[1])):
            if len(members) > 1:
                entries.append(LegendEntry(word, opens_group=True))
                entries += [LegendEntry(str(s.part), shown[s.index], f"{s.score:.2f}") for s in members]
        # Objects of which one part is seen come last and need no heading.
        alone = [s for s in segments if len(groups[s.object]) == 1]
        entries += [LegendEntry(s.name, shown[s.index], f"{s.score:.2f}", s is alone[0]) for s in alone]
        return entries + more

    def _repr_png_(self) -> bytes:
        """Notebooks that take no HTML show the overlay."""
        return _png(self.overlay())

    def _repr_html_(self) -> str:
        """Notebooks show the overlay beside a table of the parts, those with most pixels first."""
        return formats.notebook_html(
            _png(self.overlay(legend=False)), self.segments(), self._colours("parts"), self.size
        )

    def __repr__(self) -> str:
        found = ", ".join(segment.name for segment in self.segments()) or "nothing found"
        return f"PartResult({self.name!r}, {self.size[1]}x{self.size[0]}: {found})"

    # -- formats ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything but the masks, as JSON has it: photo, size, segments of both views, class names by index.

        ``without_part`` has the pixels of each object that belong to none of the parts asked for.
        """
        return {
            "photo": self.name,
            "width": self.size[1],
            "height": self.size[0],
            "segments": [_segment_dict(segment) for segment in self.segments("parts")],
            "objects": [_segment_dict(segment) for segment in self.segments("objects")],
            "without_part": [_segment_dict(segment) for segment in self.without_part()],
            "vocabulary": list(self.vocabulary.names),
        }

    def to_coco(self, image_id: int = 1, first_annotation_id: int = 1) -> dict[str, Any]:
        """A COCO document of this photo, its parts as RLE masks with scores; category id = class index + 1.

        Objects with pixels that belong to no part follow as categories of their own, ids `N_c` + object index + 1.
        `formats.merge_coco` joins those of many photos, given ids that differ.
        """
        parts = formats.coco_annotations(self._entries("parts"), image_id, first_annotation_id)
        count = len(self.vocabulary)
        rest = formats.coco_annotations(self._rest_entries(), image_id, first_annotation_id + len(parts), count)
        objects = [(a["category_id"], self.vocabulary.objects[a["category_id"] - count - 1]) for a in rest]
        return formats.coco_document(
            [{"id": image_id, "file_name": self.name, "width": self.size[1], "height": self.size[0]}],
            parts + rest,
            formats.coco_categories(self.vocabulary)
            + [{"id": number, "name": word, "supercategory": word} for number, word in objects],
        )

    def to_labelme(self, image_path: str | None = None) -> dict[str, Any]:
        """A labelme document with a polygon for each piece of each part.

        `image_path` is where labelme finds the photo, from the document's folder; by default the photo's name,
        as if the two lay side by side.
        """
        return formats.labelme_document(self._outlines, image_path or Path(self.name).name, self.size)

    def to_yolo(self) -> str:
        """The text of a YOLO segmentation label file: a line for each piece of each part, class index first."""
        return formats.yolo_lines(self._outlines, self.size)

    def to_label_studio(self, image_url: str | None = None, model_version: str = "partclipseg") -> dict[str, Any]:
        """A Label Studio task with the parts as predicted polygons, as its JSON import takes it (in a list).

        `image_url` is where Label Studio finds the photo; by default its name. The project needs the labelling
        interface of `formats.label_studio_config`.
        """
        return formats.label_studio_task(self._outlines, image_url or self.name, self.size, model_version)

    def to_supervision(self) -> Any:
        """`supervision.Detections` with masks, scores and class indices; names in ``data["class_name"]``.

        Raises `PartCLIPSegError` if the package supervision is not installed.
        """
        return formats.supervision_detections(self._entries("parts"))

    @cached_property
    def _outlines(self) -> list[formats.Outline]:
        return formats.outlines(self._entries("parts"))

    def save(
        self,
        directory: str | Path,
        stem: str | None = None,
        formats: Iterable[Format] = ("overlay", "png", "json", "coco"),
    ) -> list[Path]:
        """Write ``directory/stem`` + the suffix of each format (`FORMAT_SUFFIXES`); returns the paths.

        The folder is made if need be; `stem` is the photo's own by default. Each file appears whole or not at
        all. Raises `UsageError` for an unknown format, before anything is written.
        """
        chosen = check_formats(formats)
        base = Path(directory) / (Path(self.name).stem if stem is None else stem)
        written = []
        for name in chosen:
            path = base.with_name(base.name + FORMAT_SUFFIXES[name])
            with whole_file(path) as temporary:
                temporary.write_bytes(self.content(name, path.parent))
            written.append(path)
        return written

    def content(self, name: Format, folder: Path = Path()) -> bytes:
        """The bytes of a file in this format; `folder` is where it will lie, since labelme's leads to the photo."""
        if name in {"overlay", "png"}:
            return _png(self.overlay() if name == "overlay" else self.label_image())
        if name == "json":
            document = self.to_dict()
        elif name == "coco":
            document = self.to_coco()
        else:
            document = self.to_labelme(os.path.relpath(self.name, folder) if is_file(self.name) else None)
        indent = None if name == "coco" else 1
        try:
            return f"{json.dumps(document, ensure_ascii=False, indent=indent)}\n".encode()
        except UnicodeEncodeError:  # a photo's name that is no valid Unicode
            return f"{json.dumps(document, indent=indent)}\n".encode()


def check_formats(names: Iterable[str]) -> Sequence[Format]:
    """The formats without repeats; raises `UsageError` for an unknown one or for none."""
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in FORMAT_SUFFIXES:
            raise UsageError(f"unknown format {name!r}: choose from {', '.join(FORMAT_SUFFIXES)}")
    if not chosen:
        raise UsageError(f"no format is asked for: choose from {', '.join(FORMAT_SUFFIXES)}")
    return chosen  # pyright: ignore[reportReturnType]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _segment_dict(segment: Segment) -> dict[str, Any]:
    return {
        "name": segment.name,
        "object": segment.object,
        "part": segment.part,
        "index": segment.index,
        "score": round(segment.score, 4),
        "area": segment.area,
        "box": list(segment.box),
    }
