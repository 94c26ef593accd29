"""The drawing of docs/protocols.md: one photo, the same mistakes, three ways to count them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from partclipseg.data.sample import UNLABELLED
from partclipseg.evaluation.choices import Protocol
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.formats.drawing import draw_overlay
from partclipseg.formats.palette import part_colours
from partclipseg.shapes.renderer import render_portrait
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

SIDE = 300
"""Of a picture, in pixels."""
GAP, TEXT = 34, 22

Colour = tuple[int, int, int]
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)  # apart for colour-blind readers too (Okabe and Ito)

WORDS = Vocabulary.from_dict({
    "dog": ["head", "ear", "muzzle", "eye", "body", "leg", "paw", "tail"],
    "cat": ["head", "ear", "tail"],
})  # fmt: skip


@dataclass(frozen=True)
class Theme:
    name: str
    paper: Colour
    ink: Colour
    soft: Colour
    """Of secondary text."""
    uncounted: Colour


LIGHT = Theme("light", (255, 255, 255), (31, 35, 40), (89, 99, 110), (225, 228, 232))
DARK = Theme("dark", (13, 17, 23), (240, 246, 252), (145, 152, 161), (52, 58, 66))


@dataclass(frozen=True)
class Column:
    protocol: Protocol
    title: str
    told: str
    lines: tuple[str, ...]
    """What to see in the column."""


COLUMNS = (
    Column(
        "oracle_obj", "Oracle-Obj", "told: there is a dog",
        ("only the dog's parts compete,", "no background, no cat;", "labelled pixels count"),
    ),
    Column(
        "pred_all", "Pred-All", "told: nothing",
        ("a head taken for a cat's", "is an error; what spills", "over the edge is not"),
    ),
    Column(
        "strict", "Strict", "told: nothing",
        ("the same prediction: what", "spills is an error too; the tail", "has no label, so it is left out"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """Maps int64 `[H, W]`; -1 is none."""

    photo: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    """0 is the dog, as in a record of one object."""
    told: np.ndarray
    """A prediction that is told the object."""
    free: np.ndarray
    """One that is told nothing."""

    def prediction(self, protocol: Protocol) -> np.ndarray:
        return self.told if protocol == "oracle_obj" else self.free


def drawing(theme: Theme) -> Image.Image:
    """Photo and labels at the left, then a column for each protocol: the prediction, what counts of it, the score."""
    record = make_record()
    width = 4 * SIDE + 5 * GAP
    height = 2 * SIDE + 10 * TEXT + GAP + 10
    sheet = Image.new("RGB", (width, height), theme.paper)
    pen = ImageDraw.Draw(sheet)
    big, text = ImageFont.load_default(24), ImageFont.load_default(19)

    def place(column: int, row: int) -> tuple[int, int]:
        return GAP + column * (SIDE + GAP), 3 * TEXT + row * (SIDE + 2 * TEXT)

    def paste(column: int, row: int, picture: Image.Image, title: str, note: str = "") -> None:
        x, y = place(column, row)
        sheet.paste(picture.resize((SIDE, SIDE)), (x, y))
        pen.text((x, y - 2 * TEXT - 6 if note else y - TEXT - 8), title, fill=theme.ink, font=big)
        if note:
            pen.text((x, y - TEXT - 4), note, fill=theme.soft, font=text)

    paste(0, 0, Image.fromarray(record.photo), "Photo")
    paste(0, 1, _painted(record, record.labels), "Labels")
    for number, column in enumerate(COLUMNS, start=1):
        predicted = record.prediction(column.protocol)
        paste(number, 0, _painted(record, predicted), column.title, column.told)
        paste(number, 1, Image.fromarray(counted(record, column.protocol, theme)), "Counted")
        x, y = place(number, 1)
        y += SIDE + 12
        pen.text((x, y), f"mIoU {score(record, column.protocol):.0f}", fill=theme.ink, font=big)
        for line, words in enumerate(column.lines, start=1):
            pen.text((x, y + 8 + line * TEXT), words, fill=theme.soft, font=text)
    x, y = place(0, 1)
    y += SIDE + 16
    for colour, words in ((RIGHT, "right"), (WRONG, "wrong"), (theme.uncounted, "not counted")):
        pen.rounded_rectangle((x, y + 3, x + 18, y + 21), radius=4, fill=colour)
        pen.text((x + 28, y), words, fill=theme.soft, font=text)
        y += TEXT + 6
    return sheet


def make_record(size: int = 2 * SIDE) -> Record:
    """A rendered dog and two made-up predictions with the mistakes that tell the protocols apart.

    Both take paws for legs. The one that is told the object fills the picture with the nearest part; the other one
    spills over the edge, and takes the head for a cat's.
    """
    scene = render_portrait("dog", size)
    world = partshapes_world().vocabulary
    to_words = np.full(len(world) + 1, UNLABELLED)  # the last row is read by -1
    for index, name in enumerate(world.names):
        if name in WORDS.names:
            to_words[index] = WORDS.names.index(name)
    truth = to_words[scene.parts]
    dog = scene.objects >= 0
    labels = np.where(truth == _index("dog's tail"), UNLABELLED, truth)  # benchmarks leave some parts without label

    nearest, distance = _spread(truth)
    nearest[nearest == _index("dog's paw")] = _index("dog's leg")
    free = np.where(distance <= size / 24, nearest, UNLABELLED)
    free[free == _index("dog's head")] = _index("cat's head")
    free[free == _index("dog's ear")] = _index("cat's ear")
    return Record(scene.image, labels, np.where(dog, 0, UNLABELLED), told=nearest, free=free)


def counted(record: Record, protocol: Protocol, theme: Theme) -> np.ndarray:
    """uint8 `[H, W, 3]`: right, wrong and uncounted pixels."""
    predicted = record.prediction(protocol)
    counts = record.labels >= 0
    if protocol == "strict":
        counts = counts | (record.objects < 0)
    picture = np.empty((*counts.shape, 3), dtype=np.uint8)
    picture[:] = theme.uncounted
    picture[counts & (predicted == record.labels)] = RIGHT
    picture[counts & (predicted != record.labels)] = WRONG
    return picture


def score(record: Record, protocol: Protocol) -> float:
    """mIoU of this record over the labelled classes, in percent, by the library's own evaluator."""
    evaluator = Evaluator(WORDS, protocol=protocol, boundary=None)
    evaluator.update(record.prediction(protocol), record.labels, record.objects, key="record")
    return evaluator.record_iou("record")


def _painted(record: Record, labels: np.ndarray) -> Image.Image:
    return draw_overlay(record.photo, labels, part_colours(WORDS), None, long_side=SIDE * 2)


def _index(name: str) -> int:
    return WORDS.names.index(name)


def _spread(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At each pixel the label that lies nearest, and how far away it lies, in pixels."""
    distance, nearest = np.empty(labels.shape), np.empty((2, *labels.shape), dtype=np.int32)
    distance_transform_edt(labels == UNLABELLED, return_indices=True, distances=distance, indices=nearest)
    return labels[tuple(nearest)], distance
