"""Draw a result: the photo under its coloured segments, and a legend beside or below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from partclipseg.data.resize import resize_labels
from partclipseg.formats.palette import Colour

SIDE_RANGE = (640, 1600)
"""Least and greatest longer side of the drawn photo in pixels: smaller photos are enlarged, so that the legend is
readable beside them, larger ones reduced."""

_PAPER, _INK, _GREY, _LINE = (255, 255, 255), (32, 35, 40), (118, 124, 134), (226, 229, 234)

_FALLBACK_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc"),
    *("Arial Unicode.ttf", "arial.ttf"),
)
"""Fonts to search on the machine if a word has letters that Pillow's own font lacks."""


@dataclass(frozen=True)
class LegendEntry:
    """One line of the legend; without a colour it is a heading."""

    text: str
    colour: Colour | None = None
    note: str = ""
    """Grey text at the right edge of the column."""
    opens_group: bool = False
    """Whether to leave space above."""


def draw_overlay(
    photo: np.ndarray | None,
    label_map: np.ndarray,
    colours: np.ndarray,
    legend: Sequence[LegendEntry] | None,
    opacity: float = 0.6,
    long_side: int | None = None,
    instance_map: np.ndarray | None = None,
) -> Image.Image:
    """Paint the segments over the photo, thin light contours between them, and a legend panel beside or below.

    Args:
        photo: uint8 `[H, W, 3]`; None paints on light grey.
        label_map: int `[H, W]`, index into `colours`, background -1.
        colours: uint8 `[K, 3]`.
        legend: entries of the legend; None leaves the panel out.
        opacity: opacity of the segments' colour, 0 to 1.
        long_side: longer side of the drawn photo, in pixels; None keeps the photo's own within `SIDE_RANGE`.
        instance_map: int `[H, W]`, index of the instance at each pixel, -1 none: each is outlined and numbered.
    """
    height, width = label_map.shape
    target = long_side or int(np.clip(max(height, width), *SIDE_RANGE))
    scale = target / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    labels = resize_labels(label_map, (size[1], size[0]))
    painted = _paint(_resize_photo(photo, size), labels, colours, opacity)
    if instance_map is not None:
        painted = _numbered(painted, resize_labels(instance_map, (size[1], size[0])))
    return painted if legend is None else _with_legend(painted, legend)


# -- the photo ------------------------------------------------------------------------------------------------


def _resize_photo(photo: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    if photo is None:
        return np.full((size[1], size[0], 3), 236, dtype=np.uint8)
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _paint(photo: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float) -> Image.Image:
    pixels = photo.astype(np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601 luma
    foreground = labels >= 0
    # Segments: the colour over the photo in grey, so that the colour of the thing does not shift its own.
    paint = np.concatenate([colours, [[0, 0, 0]]]).astype(np.float32)[labels]  # [H, W, 3]; -1 reads the last row
    over = opacity * paint + (1 - opacity) * (60 + 0.75 * grey[:, :, None])  # not so dark as to hide the colour
    # Background: the photo itself, a little paler, so that the segments stand out.
    around = 0.55 * pixels + 0.25 * grey[:, :, None] + 0.20 * 255
    pixels = np.where(foreground[:, :, None], over, around)
    line = _contours(labels)[:, :, None]
    pixels = pixels * (1 - line) + 255 * line
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


def _contours(labels: np.ndarray) -> np.ndarray:
    """Return the opacity `[H, W]` of the contour lines: 1.5 to 2.5 pixels wide with the size, with soft edges."""
    edge = np.zeros(labels.shape, dtype=bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[1:] |= down
    if max(labels.shape) >= 1200:
        edge[:, :-1] |= across
        edge[:-1] |= down
    lines = Image.fromarray(edge.astype(np.uint8) * 255)
    soft, density = (
        np.asarray(lines.filter(blur), dtype=np.float32) / 255
        for blur in (ImageFilter.GaussianBlur(0.7), ImageFilter.BoxBlur(4))
    )
    # Contours fade where small specks are dense, as in results of untrained models; else only contours would show.
    return np.minimum(soft * 1.5, 1.0) * np.interp(density, [0.3, 0.6], [0.92, 0.1]).astype(np.float32)


def _numbered(picture: Image.Image, instances: np.ndarray) -> Image.Image:
    """Outline each instance in dark, two pixels wide, and write its number at its upper left.

    The outline lies inside the instance, within the light contour of its parts.
    """
    inner = np.zeros(instances.shape, dtype=bool)
    for axis in (0, 1):
        for shift in (1, -1, 2, -2):
            other = np.roll(instances, shift, axis)
            # What is rolled in from the other side of the picture counts as outside.
            edge = [slice(None), slice(None)]
            edge[axis] = slice(0, shift) if shift > 0 else slice(shift, None)
            other[tuple(edge)] = -1
            inner |= other != instances
    pixels = np.array(picture)
    pixels[inner & (instances >= 0)] = _INK
    drawn = Image.fromarray(pixels)
    pen, unit = ImageDraw.Draw(drawn), max(13, round(max(picture.size) / 50))
    for index in np.unique(instances[instances >= 0]).tolist():
        rows, columns = np.nonzero(instances == index)
        first = (rows + columns).argmin()  # of a slim object the corner of its box may lie far from it
        left, top = int(columns[first]), int(rows[first])
        text = str(index + 1)
        width, height = _length(text, unit) + unit // 2 + unit // 4, round(1.3 * unit)
        left, top = min(left, drawn.width - width - 1), min(top, drawn.height - height - 1)
        corners = [left, top, left + width, top + height]
        pen.rounded_rectangle(corners, radius=unit // 4, fill=_INK, outline=_PAPER)
        place = left + width / 2, top + height / 2
        pen.text(place, text, fill=_PAPER, font=_font(text, unit), anchor="mm")
    return drawn


# -- the legend -----------------------------------------------------------------------------------------------


def _with_legend(picture: Image.Image, legend: Sequence[LegendEntry]) -> Image.Image:
    # Letters of 1/46 of the longer side while the legend is short, down to 1/64 for forty lines and more.
    unit = max(15, round(max(picture.size) / float(np.interp(len(legend), [16, 40], [46, 64]))))
    panel = _Panel(legend, unit)
    margin = round(1.3 * unit)
    # Beside: as few columns as the height holds. Below: as many as the width holds. The smaller sheet wins.
    beside = panel.columns_within(picture.height - 2 * margin)
    fitting = max(1, (picture.width - 2 * margin + panel.gap) // (panel.column_width + panel.gap))
    below = panel.split(fitting)
    beside_size = (
        picture.width + panel.width(beside) + 2 * margin,
        max(picture.height, panel.height(beside) + 2 * margin),
    )
    below_size = (
        max(picture.width, panel.width(below) + 2 * margin),
        picture.height + panel.height(below) + 2 * margin,
    )
    if beside_size[0] * beside_size[1] <= below_size[0] * below_size[1]:
        sheet = Image.new("RGB", beside_size, _PAPER)
        sheet.paste(picture, (0, 0))
        panel.draw(sheet, beside, picture.width + margin, margin)
    else:
        sheet = Image.new("RGB", below_size, _PAPER)
        sheet.paste(picture, ((below_size[0] - picture.width) // 2, 0))
        panel.draw(sheet, below, margin, picture.height + margin)
    return sheet


class _Panel:
    """Legend entries in columns of equal width; a column is a list of their indices."""

    def __init__(self, entries: Sequence[LegendEntry], unit: int) -> None:
        self.entries = entries
        self.unit = unit
        self.row = round(1.62 * unit)
        self.swatch = round(1.05 * unit)
        self.gap = round(1.8 * unit)
        self.texts = [_shortened(entry.text, unit, 18 * unit) for entry in entries]
        words = max(_length(text, unit) for text in self.texts)
        notes = max(_length(entry.note, unit) for entry in entries)
        self.column_width = self.swatch + round(0.6 * unit) + words + (round(1.2 * unit) + notes if notes else 0)
        # Keep the lines under a heading in one column, unless they are too many for a column.
        self.blocks: list[list[int]] = []
        headed = False
        for index, entry in enumerate(entries):
            headed = entry.colour is None or (headed and not entry.opens_group)
            if headed and entry.colour is not None and len(self.blocks[-1]) < 14:
                self.blocks[-1].append(index)
            else:
                self.blocks.append([index])

    def split(self, count: int) -> list[list[int]]:
        """Return at most `count` columns, in order, with the longest as short as possible."""
        height = self.row
        while len(columns := self._filled(height)) > count:
            height += self.row // 2
        return columns

    def columns_within(self, height: int) -> list[list[int]]:
        """Return the fewest columns that fit a panel of this height, evenly filled; never shorter than four lines."""
        return self.split(len(self._filled(max(4 * self.row, height))))

    def _filled(self, height: int) -> list[list[int]]:
        columns: list[list[int]] = [[]]
        for block in self.blocks:
            if columns[-1] and self.height([[*columns[-1], *block]]) > height:
                columns.append([])
            columns[-1].extend(block)
        return columns

    def width(self, columns: list[list[int]]) -> int:
        return len(columns) * (self.column_width + self.gap) - self.gap

    def height(self, columns: list[list[int]]) -> int:
        return max(self._tops(column)[-1] for column in columns) + self.row

    def _tops(self, column: list[int]) -> list[int]:
        """Return the distance of each entry from the column's upper end."""
        tops, top = [], 0
        for line, index in enumerate(column):
            if line and self.entries[index].opens_group:
                top += round(0.7 * self.unit)
            tops.append(top)
            top += self.row
        return tops

    def draw(self, sheet: Image.Image, columns: list[list[int]], left: int, top: int) -> None:
        pen = ImageDraw.Draw(sheet)
        for number, column in enumerate(columns):
            x = left + number * (self.column_width + self.gap)
            for index, offset in zip(column, self._tops(column), strict=True):
                self._draw_entry(pen, self.entries[index], self.texts[index], x, top + offset)

    def _draw_entry(self, pen: ImageDraw.ImageDraw, entry: LegendEntry, text: str, x: int, y: int) -> None:
        middle, right = y + self.row // 2, x + self.column_width
        font = _font(text, self.unit)
        if entry.colour is None:
            pen.text((x, middle), text, fill=_INK, font=font, anchor="lm", stroke_width=0.02 * self.unit)
            pen.line([(x, y + self.row - 2), (right, y + self.row - 2)], fill=_LINE, width=max(1, self.unit // 16))
        else:
            corner = y + (self.row - self.swatch) // 2
            pen.rounded_rectangle(
                [x, corner, x + self.swatch, corner + self.swatch], radius=self.swatch // 4, fill=entry.colour
            )
            pen.text((x + self.swatch + round(0.6 * self.unit), middle), text, fill=_INK, font=font, anchor="lm")
        pen.text((right, middle), entry.note, fill=_GREY, font=_font(entry.note, self.unit), anchor="rm")


def _length(text: str, unit: int) -> int:
    return round(_font(text, unit).getlength(text))


def _shortened(text: str, unit: int, longest: int) -> str:
    if _length(text, unit) <= longest:
        return text
    while text and _length(f"{text}...", unit) > longest:
        text = text[:-1]
    return f"{text.rstrip()}..."


@lru_cache(maxsize=64)
def _own_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=64)
def _machine_fonts(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    fonts = []
    for name in _FALLBACK_FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:  # the font is not installed
            continue
    return tuple(fonts)


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font, or the first installed one that has every letter of `text`."""
    own = _own_font(size)
    if text.isascii():
        return own
    return next((font for font in (own, *_machine_fonts(size)) if _covers(font, text)), own)


def _covers(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> bool:
    missing = _drawn("\uffff", font)
    return all(_drawn(letter, font) != missing for letter in set(text) if not letter.isspace())


def _drawn(letter: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> bytes:
    sheet = Image.new("L", (64, 64))
    ImageDraw.Draw(sheet).text((8, 8), letter, fill=255, font=font)
    return sheet.tobytes()
