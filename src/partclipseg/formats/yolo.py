"""YOLO segmentation labels: a line ``class x y x y …`` for each outline, and the files that Ultralytics trains from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from partclipseg.formats.corrections import CorrectionError, LabelledPolygon, Size, box_corners, flat, read_outlines
from partclipseg.formats.format import Content, DataSet, Format, LabelledPhoto
from partclipseg.vocabulary import Vocabulary


def yolo_lines(photo: LabelledPhoto) -> str:
    """Return a line for each polygon: class index, then x and y of its corners as shares of width and height."""
    scale = np.array([photo.size[1], photo.size[0]])
    return "".join(
        f"{segment.index} {' '.join(f'{value:.6f}' for value in (polygon / scale).ravel())}\n"
        for segment, polygons in photo.outlines
        for polygon in polygons
    )


def _collect(data_set: DataSet) -> Iterator[tuple[str, Content]]:
    import yaml

    # A list instead of the folder: Ultralytics follows a link to a folder, and searches for labels at its target.
    paths = (record["photo"] for _, record in data_set.records)
    yield "yolo/train.txt", (f"./images/{path}\n" for path in paths if _is_found(path, data_set.stem(path)))
    document = {"train": "train.txt", "val": "train.txt", "names": dict(enumerate(data_set.vocabulary.names))}
    yield "yolo/data.yaml", [yaml.safe_dump(document, sort_keys=False, allow_unicode=True)]
    yield "yolo/images", data_set.photos


def _is_found(path: str, stem: str) -> bool:
    """Whether Ultralytics can read the name from a list, and its rule leads to the photo's own label file.

    The rule: the last ``/images/`` of the path becomes ``/labels/``, the last suffix ``.txt``.
    """
    if path.encode(errors="ignore").decode().splitlines() != [path]:
        return False
    labels = "/labels/".join(f"/images/{path}".rsplit("/images/", 1))
    return f"{labels.rpartition('.')[0]}.txt" == f"/labels/{stem}.txt"


def _shapes(content: bytes, vocabulary: Vocabulary, size: Size) -> Iterable[LabelledPolygon]:
    height, width = size
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        first, *rest = line.split()
        values = [float(value) for value in rest]
        if not first.isdecimal() or int(first) >= len(vocabulary):
            raise CorrectionError(f"line {number} has the class {first}; the classes are 0 to {len(vocabulary) - 1}")
        if len(values) == 4:  # a box: centre, width, height
            x, y, w, h = values
            points = box_corners(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            points = list(zip(values[::2], values[1::2], strict=True))
        else:
            raise CorrectionError(f"line {number} is no outline: a class, then x and y of three or more points")
        if not all(-0.01 <= value <= 1.01 for point in points for value in point):
            raise CorrectionError(f"line {number} has points outside the photo: coordinates go from 0 to 1")
        yield int(first), flat((x * width, y * height) for x, y in points)


FORMAT = Format(
    name="yolo",
    help="outlines for training YOLO",
    suffix=".yolo.txt",
    make=lambda photo, _: yolo_lines(photo),
    folder="yolo/labels",
    collect=_collect,
    read=read_outlines(_shapes),
    precedence=3,
)
