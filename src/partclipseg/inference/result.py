"""The result of segmenting one photo: segments, masks, pictures and files."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_file, whole_file
from partclipseg.formats.coco import coco_document
from partclipseg.formats.detections import supervision_detections
from partclipseg.formats.format import Document, Format, LabelledPhoto, Place, View, encoded
from partclipseg.formats.json import document as json_document
from partclipseg.formats.label_studio import label_studio_task
from partclipseg.formats.labelme import labelme_document
from partclipseg.formats.notebook import notebook_html
from partclipseg.formats.overlay import overlay
from partclipseg.formats.palette import part_colours
from partclipseg.formats.png import label_image
from partclipseg.formats.registry import chosen_formats, single_formats, usual_formats
from partclipseg.formats.segment import Instance, Owners, Segment, counted, mean_scores
from partclipseg.formats.yolo import yolo_lines
from partclipseg.grammar import class_name
from partclipseg.inference.result_maps import drop_below, instance_means, take_words
from partclipseg.vocabulary import Vocabulary

__all__ = ["Instance", "PartResult", "Segment", "SegmentKeyError", "View"]


class SegmentKeyError(UsageError, KeyError):
    """Raised if a result has no segment of the requested name; the message lists those that it has."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


@dataclass(frozen=True, eq=False)
class PartResult:
    """The parts found in one photo.

    A result is a collection of its segments: ``len(result)``, ``for segment in result``, ``result["dog's ear"]``,
    ``result[0]``, ``"dog's ear" in result``; it is true if something was found.
    """

    label_map: np.ndarray
    """int32 `[H, W]`: index into `vocabulary.classes`, background -1."""
    object_map: np.ndarray
    """int32 `[H, W]`: index into `vocabulary.objects`, background -1; objects without a part have pixels as well."""
    scores: np.ndarray
    """float32 `[N_c]`: mean probability of each class over its pixels, 0 where it has none."""
    vocabulary: Vocabulary
    photo: np.ndarray | None = None
    """uint8 `[H, W, 3]`, RGB, for drawing; without it overlays are painted on grey."""
    name: str = "photo"
    """The photo's path as it was given, or a name for it."""
    rest_scores: np.ndarray | None = None
    """float32 `[N_o]`: mean probability of the best part at the pixels of each object without a part; None is 0."""
    probabilities: Callable[[int], np.ndarray] | None = field(default=None, repr=False)
    """Function from a class's index to its probability at every pixel, for `probability`; None where it is unknown."""
    instance_map: np.ndarray | None = None
    """int32 `[H, W]`: index into `instances`, -1 none; None where no instances were asked for."""
    instances: tuple[Instance, ...] = ()
    """The objects, whose parts know them by number; the surest first. One that owns no pixel has the area 0."""
    instance_scores: np.ndarray | None = None
    """float32 `[n + 1, N_c]`: mean probability of each class over its pixels of each instance; last, without owner."""
    instance_rest_scores: np.ndarray | None = None
    """float32 `[n + 1, N_o]`: the same over the pixels of each object that belong to none of its parts; None is 0."""

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
        self._check_instances()

    def _check_instances(self) -> None:
        if self.instance_map is None:
            if self.instances or self.instance_scores is not None:
                raise ValueError("instances need an instance_map")
            return
        if self.instance_map.shape != self.label_map.shape:
            raise ValueError(
                f"instance_map {list(self.instance_map.shape)} and label_map {list(self.label_map.shape)} must have "
                "the same shape [H, W]"
            )
        rows = len(self.instances) + 1
        if self.instance_scores is None or self.instance_scores.shape != (rows, len(self.vocabulary)):
            raise ValueError(f"instance_scores must be [{rows}, {len(self.vocabulary)}]: one row more than instances")
        if [instance.number for instance in self.instances] != list(range(1, rows)):
            raise ValueError("the instances must be numbered from 1, in their order")

    @classmethod
    def from_maps(
        cls,
        label_map: np.ndarray,
        object_map: np.ndarray,
        score_map: np.ndarray,
        vocabulary: Vocabulary,
        photo: np.ndarray | None = None,
        name: str = "photo",
        min_part_probability: float | np.ndarray = 0.0,
        words: Sequence[np.ndarray] = (),
        probabilities: Callable[[int], np.ndarray] | None = None,
        instance_map: np.ndarray | None = None,
        instances: Sequence[Instance] = (),
    ) -> PartResult:
        """Make a result from integer maps and the winner's probability per pixel, float `[H, W]`; all are copied.

        A pixel whose part has a lower probability than `min_part_probability` belongs to its object without a part:
        -1 in `label_map`, the object still in `object_map`. It may be an array of one for each pixel, float `[H, W]`.

        `words` are the map of the most probable word without an object, index in `vocabulary.anywhere` or -1, and the
        map of its probability. It takes a pixel if it reaches `min_part_probability` too and is more probable than the
        object-part there; `object_map` stays.

        `instance_map` is the index into `instances` of the owner of each pixel, -1 none. Area and box of the instances
        are counted anew.
        """
        labels, objects = (np.array(some, dtype=np.int32, order="C") for some in (label_map, object_map))
        if np.any(np.greater(min_part_probability, 0)):
            labels[np.less(score_map, min_part_probability)] = -1
        if len(words):
            first = len(vocabulary.object_parts)
            labels, score_map = take_words(labels, score_map, words, min_part_probability, first)
        # Counted together, as a pixel is of a class or of the rest: behind the classes stand no object and the objects.
        classes = len(vocabulary)
        both = labels.copy()
        np.add(objects, np.int32(classes + 1), out=both, where=labels < 0)  # twice as fast as `np.where`
        scores, _, rest_scores = np.split(
            mean_scores(score_map, both, classes + 1 + len(vocabulary.objects)), (classes, classes + 1)
        )
        found = cls(labels, objects, scores, vocabulary, photo, name, rest_scores, probabilities)
        if instance_map is None:
            return found
        rest = np.where(labels < 0, objects, np.int32(-1))
        owner, count = np.array(instance_map, dtype=np.int32, order="C"), len(instances)
        return replace(
            found,
            instance_map=owner,
            instances=counted(instances, owner),
            instance_scores=instance_means(score_map, labels, owner, count, len(vocabulary)),
            instance_rest_scores=instance_means(score_map, rest, owner, count, len(vocabulary.objects)),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo."""
        return self.label_map.shape[0], self.label_map.shape[1]

    def at_least(self, score: float) -> PartResult:
        """Return a result without parts whose score is below `score`, 0 to 1: they become background in both maps.

        With instances the score of each instance's own part counts, and its pixels stay the object's: an object does
        not lose its place because an ear was doubtful.
        """
        if self.instance_map is not None and self.instance_scores is not None:
            left = drop_below(self.label_map, self.object_map, self.instance_map, self.instance_scores, score)
            if left is None:
                return self
            labels, objects, means, kept = left
            return replace(self, label_map=labels, object_map=objects, scores=means, instance_scores=kept)
        low = self.scores < score
        if not low.any():
            return self
        gone = (self.label_map >= 0) & low[self.label_map]
        if not gone.any():
            return self
        labels, objects = (np.where(gone, np.int32(-1), some) for some in (self.label_map, self.object_map))
        return replace(self, label_map=labels, object_map=objects, scores=np.where(low, np.float32(0), self.scores))

    def instance(self, number: int) -> PartResult:
        """Return the result of one object alone, by its number: all other pixels are background.

        Its segments have no `Segment.instance`, since there is only one. Raises `UsageError` for a number that no
        instance has, and for a result without instances.
        """
        if self.instance_map is None or self.instance_scores is None:
            raise UsageError("this result has no instances: ask for them, such as by instances='components'")
        if isinstance(number, bool) or number not in range(1, len(self.instances) + 1):
            raise UsageError(f"there is no instance {number!r}: the photo has {len(self.instances)}, numbered from 1")
        own = self.instance_map == number - 1
        labels, objects = (np.where(own, some, np.int32(-1)) for some in (self.label_map, self.object_map))
        rest = None if self.instance_rest_scores is None else self.instance_rest_scores[number - 1]
        scores = self.instance_scores[number - 1]
        alone = {"instance_map": None, "instances": (), "instance_scores": None, "instance_rest_scores": None}
        return replace(self, label_map=labels, object_map=objects, scores=scores, rest_scores=rest, **alone)

    # -- segments -- -------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of object-parts that were found."""
        return len(self.labelled.segments)

    def __iter__(self) -> Iterator[Segment]:
        """Yield the segments of the object-parts, in label order, or as `segments` orders them by instance."""
        return iter(self.labelled.segments)

    def __contains__(self, key: object) -> bool:
        """Whether ``"dog's ear"``, or any part of a ``"dog"``, was found; or whether a `Segment` is one of these."""
        if isinstance(key, str):
            return self._named(key) is not None
        return key in self.labelled.segments

    def __getitem__(self, key: str | int) -> Segment:
        """Return the segment of ``"dog's ear"``, of the whole ``"dog"``, or by index among the object-parts.

        Case does not matter; ``"dog: ear"`` is a name, too, and ``"any: handle"`` is ``"handle"``. With instances
        ``"dog 2's ear"`` and ``"dog 2"`` name the owner; without a number, the first one's is returned. Raises
        `SegmentKeyError`, a `KeyError`, that lists the segments found, and `IndexError` beyond them.
        """
        segments = self.labelled.segments
        if not isinstance(key, str):
            try:
                return segments[operator.index(key)]
            except TypeError:
                raise TypeError(f"a segment has a name or a number, not {type(key).__name__}") from None
            except IndexError:
                raise IndexError(f"there is no segment {key}: the photo has {len(segments)}") from None
        if (segment := self._named(key)) is not None:
            return segment
        found = ", ".join(segment.title for segment in segments) or "nothing"
        raise SegmentKeyError(f"{key!r} was not found in the photo; what was found: {found}")

    def _named(self, name: str) -> Segment | None:
        folded = class_name(name)
        for segment in (*self.labelled.segments, *self.labelled.objects):
            if folded in (segment.name.casefold(), segment.title.casefold()):
                return segment
        return None

    def segments(self, view: View = "parts") -> list[Segment]:
        """Return the classes (or objects) that have pixels, in label order.

        With instances there is a segment for each class of each instance, by instance, then in label order, and those
        without an owner come last; and a segment for each instance in the view "objects".
        """
        return list(self.labelled.segments if view == "parts" else self.labelled.objects)

    def without_part(self) -> list[Segment]:
        """Return the pixels of each object that belong to none of its parts; the score is that of the best part."""
        return list(self.labelled.without_part)

    def mask(self, name: str, instance: int | None = None) -> np.ndarray:
        """Return the pixels of ``"dog's ear"``, or of the whole ``"dog"``, bool `[H, W]`; case does not matter.

        With the number of an `instance` those of this object alone. Raises `UsageError` for a name that is not in the
        vocabulary, or for an instance that is not in the photo.
        """
        if instance is not None:
            return self.instance(instance).mask(name)
        index = self.vocabulary.find_class(name)
        if index is not None:
            return self.label_map == index
        try:
            return self.object_map == self.vocabulary.object_index(name)
        except UsageError:
            known = ", ".join(self.vocabulary.names)
            raise UsageError(f"{name!r} is neither an object-part nor an object of the vocabulary ({known})") from None

    def probability(self, name: str) -> np.ndarray:
        """Return the probability of ``"dog's ear"`` at every pixel, float32 `[H, W]`, 0 to 1.

        It is the sigmoid of the class's own logit, enlarged to the photo's size, whatever class won the pixel and
        whether its object was found there: probabilities of classes need not add up to 1. The first call runs the
        model once more, with all classes; a second look (`zoom`) does not change the result.

        Raises `UsageError` for a name that is no object-part of the vocabulary, `PartCLIPSegError` for a result that
        was made without a model.
        """
        if self.probabilities is None:
            raise PartCLIPSegError(
                "this result was made without a model, so it has no probabilities: segment the photo anew"
            )
        index = self.vocabulary.find_class(name)
        if index is None:
            raise UsageError(f"{name!r} is not an object-part of the vocabulary ({', '.join(self.vocabulary.names)})")
        return self.probabilities(index)

    @cached_property
    def labelled(self) -> LabelledPhoto:
        """Return the arrays and segments that the output formats are made from."""
        return LabelledPhoto(
            self.name,
            self.vocabulary,
            self.label_map,
            self.object_map,
            self.scores,
            self.photo,
            self.rest_scores,
            self.probabilities,
            self._owners,
        )

    @property
    def _owners(self) -> Owners | None:
        if self.instance_map is None or self.instance_scores is None:
            return None
        rest = self.instance_rest_scores
        if rest is None:
            rest = np.zeros((len(self.instances) + 1, len(self.vocabulary.objects)), np.float32)
        return Owners(self.instance_map, self.instances, self.instance_scores, rest)

    # -- pictures ---------------------------------------------------------------------------------------------

    def overlay(
        self, view: View = "parts", opacity: float = 0.6, legend: bool = True, long_side: int | None = None
    ) -> Image.Image:
        """Draw the photo under its segments, with a legend panel beside or below it.

        The colour of a class depends on its name and on the other parts of its object, so that they are distinct. The
        legend lists objects by size, and the parts of each by size, with the score at the right; beyond 48 classes
        the smallest are only counted. `long_side` of the drawn photo is in pixels; by default the photo's own, within
        640 to 1600.
        """
        return overlay(self.labelled, view, opacity, legend, long_side)

    def label_image(self, view: View = "parts") -> Image.Image:
        """Return the label map as an image of class indices; background is 255 (8 bit, palette) or 65535 (16 bit)."""
        return label_image(self.labelled, view)

    def _repr_png_(self) -> bytes:
        """Return the overlay as PNG, for notebooks that show no HTML."""
        return encoded(self.overlay())

    def _repr_html_(self) -> str:
        """Return the overlay beside a table of the parts by size, for notebooks."""
        picture = encoded(self.overlay(legend=False))
        return notebook_html(picture, self, part_colours(self.vocabulary), self.size)

    def __repr__(self) -> str:
        found = ", ".join(segment.title for segment in self) or "nothing found"
        return f"PartResult({self.name!r}, {self.size[1]}x{self.size[0]}: {found})"

    # -- formats ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON, without masks: photo, size, segments of both views, class names by index.

        ``without_part`` has the pixels of each object that belong to none of its parts.
        """
        return json_document(self.labelled)

    def to_coco(self, image_id: int = 1, first_annotation_id: int = 1) -> dict[str, Any]:
        """Return a COCO document of this photo, its parts as RLE masks with scores; category id = class index + 1.

        Pixels of objects without a part are annotations of whole objects, category id = `N_c` + object index + 1. With
        instances each has an annotation of such a category, which those of its parts name by ``obj_ann_id``.
        """
        return coco_document([(image_id, self.labelled.record)], self.vocabulary, first_annotation_id)

    def to_labelme(self, image_path: str | None = None) -> dict[str, Any]:
        """Return a labelme document with a polygon for each piece of each part; ``group_id`` is its instance's number.

        `image_path` is the photo's path from the document's folder; by default the photo's name, for a document beside
        the photo.
        """
        return labelme_document(self.labelled, image_path or Path(self.name).name)

    def to_yolo(self) -> str:
        """Return the text of a YOLO segmentation label file: a line per piece of each part, class index first."""
        return yolo_lines(self.labelled)

    def to_label_studio(self, image_url: str | None = None, model_version: str = "partclipseg") -> dict[str, Any]:
        """Return a Label Studio task with the parts as predicted polygons, as its JSON import takes it (in a list).

        `image_url` is the photo's address for Label Studio; by default its name. The project needs the labelling
        interface of `formats.label_studio.label_studio_interface`.
        """
        return label_studio_task(self.labelled, image_url or self.name, model_version)

    def to_supervision(self) -> Any:
        """Return `supervision.Detections` with masks, scores and class indices; names in ``data["class_name"]``.

        With instances ``data["object"]`` and ``data["instance"]`` name the owner; 0 is none.

        Raises `PartCLIPSegError` if the package supervision is not installed.
        """
        return supervision_detections(self.labelled.segments, self.instance_map is not None)

    def save(
        self,
        directory: str | Path,
        stem: str | None = None,
        formats: Iterable[str] = ("overlay", "png", "json", "coco"),
    ) -> list[Path]:
        """Write ``directory/stem`` + the suffix of each format, a folder for masks; return the paths of the files.

        The folder is made if need be; `stem` is the photo's own by default. Each file appears whole or not at
        all. Formats are those of `registry.FORMATS` that have a file for a single photo. Raises `UsageError` for
        another one, before anything is written.
        """
        chosen = self._chosen(formats)
        base = Path(directory) / (Path(self.name).stem if stem is None else stem)
        written = []
        for kind in chosen.values():
            for name, content in kind.files(self.labelled, base.name, self._place(base.parent)):
                path = base.parent / name
                with whole_file(path) as temporary:
                    temporary.write_bytes(content)
                written.append(path)
        return written

    def content(self, name: str, folder: Path = Path()) -> bytes:
        """Return the bytes of a file in this format; `folder` is its destination, since some files refer to the photo.

        Raises `UsageError` as `save` does, and for masks, which are several files: see `files`.
        """
        kind = self._chosen([name])[name]
        if kind.make_many is not None:
            raise UsageError(f"{name} are several files: take them by files(['{name}']) or save")
        return kind.content(self.labelled, self._place(folder))

    def documents(self, formats: Iterable[str]) -> dict[str, Document]:
        """Return the content of each format's file: a dictionary for JSON, text, a picture, or pictures by file name.

        Raises `UsageError` as `save` does.
        """
        chosen = self._chosen(formats)
        return {name: kind.document(self.labelled, self._place(Path())) for name, kind in chosen.items()}

    def files(
        self, formats: Iterable[str] | None = None, stem: str | None = None, folder: Path = Path()
    ) -> dict[str, bytes]:
        """Return file names and contents of these formats, named as by `save`; masks have a folder in their names.

        By default they are all formats for a single photo but soft masks; `stem` is the photo's own. Some files refer
        to the photo from `folder`, their destination. Raises `UsageError` as `save` does.
        """
        if formats is None:
            formats = usual_formats(self.instance_map is not None, self.vocabulary)
        chosen = self._chosen(formats)
        stem, place = Path(self.name).stem if stem is None else stem, self._place(folder)
        return {name: content for kind in chosen.values() for name, content in kind.files(self.labelled, stem, place)}

    def _chosen(self, formats: Iterable[str]) -> dict[str, Format]:
        return chosen_formats(formats, single_formats(), self.instance_map is not None, self.vocabulary)

    def _place(self, folder: Path) -> Place:
        return Place(folder, Path(self.name) if is_file(self.name) else None)
