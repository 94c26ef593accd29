"""Makes every picture of README and docs.

    python docs/pictures.py                        # all but own-data
    python docs/pictures.py demo                   # only some, such as shapes, protocols, results, instances or label
    python docs/pictures.py demo --model models/pascal --photos dog.jpg bus.jpg --vocabulary pascal-part-116
    python docs/pictures.py own-data --run runs/cars --reports reports/before reports/after --photos truck.jpg

Without ``--model`` the built-in model is used. ``serve`` needs the extra ``serve``, it and ``label`` Debian's chromium.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from partclipseg.apps.demo import SCENE_SIZE
from partclipseg.data.photo import read_photo
from partclipseg.files import whole_file
from partclipseg.formats.palette import part_colours
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.contact_sheet import contact_sheet
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

PICTURES = Path(__file__).parent / "pictures"

SIDE, GAP, LINE = 380, 22, 26
"""Sizes in the strip, in pixels: side of a photo, space between two, height of a line of the legend."""
INK, GREY, PAPER = (32, 35, 40), (118, 124, 134), (255, 255, 255)
LEGEND_LINES = 10

SCENES = (0, 3, 7, 10)
"""Scenes of the strip. They were chosen for what they show, two unseen objects among it, before any model saw them."""


class Example(NamedTuple):
    """One column of the strip."""

    photo: np.ndarray
    """uint8 `[H, W, 3]`, RGB."""
    result: PartResult
    title: str
    truth: np.ndarray | None
    """int `[H, W]`: the label map, where it is known."""


def draw_demo(options: argparse.Namespace) -> None:
    """The strip at the top of README: photos, what was found in them, and which colour is which part."""
    segmenter = PartSegmenter.from_pretrained(options.model)
    examples = list(_of_photos(segmenter, options) if options.photos else _of_scenes(segmenter, options.scenes))
    save(strip(examples), options.output / "demo.jpg")


def _of_scenes(segmenter: PartSegmenter, indices: Sequence[int]) -> Iterator[Example]:
    world = partshapes_world()
    for index in indices:
        scene = render_scene("test", index, SCENE_SIZE)
        words = [member.object for member in scene.members]
        unseen = [f"{word} (unseen)" if word in world.unseen_objects else word for word in dict.fromkeys(words)]
        yield Example(scene.image, segmenter(scene.image, world.vocabulary), ", ".join(unseen), scene.parts)


def _of_photos(segmenter: PartSegmenter, options: argparse.Namespace) -> Iterator[Example]:
    for path in options.photos:
        photo = read_photo(path)
        result = segmenter(photo, options.vocabulary)
        yield Example(photo, result, ", ".join(segment.name for segment in result.segments("objects")), None)


def strip(examples: Sequence[Example]) -> Image.Image:
    """One column for each example: the photo above, the parts below it, then the legend; RGB."""
    heights = [round(SIDE * e.result.size[0] / e.result.size[1]) for e in examples]
    lines = max(min(LEGEND_LINES, len(e.result.segments())) for e in examples)
    top = max(heights)
    size = (
        len(examples) * (SIDE + GAP) + GAP,
        GAP + 2 * top + 2 * GAP + LINE + LINE * (lines + 1),
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, (example, height) in enumerate(zip(examples, heights, strict=True)):
        left = GAP + column * (SIDE + GAP)
        sheet.paste(Image.fromarray(example.photo).resize((SIDE, height)), (left, GAP))
        overlay = example.result.overlay(legend=False, long_side=max(SIDE, height)).resize((SIDE, height))
        sheet.paste(overlay, (left, GAP + top + GAP // 2))
        _write_legend(pen, example, left, GAP + 2 * top + GAP)
    return sheet


def _write_legend(pen: ImageDraw.ImageDraw, example: Example, left: int, y: int) -> None:
    title, text, small = (ImageFont.load_default(size) for size in (20, 18, 16))
    pen.text((left, y), example.title, fill=INK, font=title)
    if example.truth is not None:
        right = np.mean(example.result.label_map == example.truth)
        pen.text((left + SIDE, y + 3), f"{right:.0%} right", fill=GREY, font=small, anchor="ra")
    colours = part_colours(example.result.vocabulary)
    found = sorted(example.result.segments(), key=lambda segment: -segment.area)
    for number, segment in enumerate(found[:LEGEND_LINES]):
        top = y + LINE * (number + 1) + 6
        colour = tuple(colours[segment.index].tolist())
        pen.rounded_rectangle((left, top + 2, left + 16, top + 18), radius=4, fill=colour)
        pen.text((left + 26, top), segment.name, fill=INK, font=text)
    if len(found) > LEGEND_LINES:
        place = (left + SIDE, y + LINE * LEGEND_LINES + 6)
        pen.text(place, f"and {len(found) - LEGEND_LINES} smaller", fill=GREY, font=small, anchor="ra")


def draw_shapes(options: argparse.Namespace) -> None:
    """Scenes of PartShapes with their labels."""
    scenes = [render_scene("test", index, 192) for index in range(12)]
    save(contact_sheet(scenes, columns=3), options.output / "partshapes.jpg")


def draw_protocols(options: argparse.Namespace) -> None:
    """Draw what each protocol tells the model and counts, for light and for dark pages."""
    from pictures_protocols import DARK, LIGHT, drawing

    for theme in (LIGHT, DARK):
        save(drawing(theme), options.output / f"protocols-{theme.name}.png")


def draw_own_data(options: argparse.Namespace) -> None:
    """Draw losses and scores of the tutorial's run, and the parts of a photo that it neither trained nor tested on."""
    from pictures_own_data import plot

    save(plot(options.run, *options.reports), options.output / "own-data.png")
    segmenter = PartSegmenter.from_pretrained(options.run / "best")
    for photo in options.photos or ():
        save(segmenter(photo).overlay(long_side=900), options.output / "own-data-photo.jpg")


def draw_serve(options: argparse.Namespace) -> None:
    """The web page in wide and narrow windows."""
    from pictures_serve import take_pictures

    take_pictures(options.model, options.output)


def draw_instances(options: argparse.Namespace) -> None:
    """Draw the owner of each part, once for each of the three ways to say where objects are."""
    from pictures_instances import drawing

    save(drawing(options.model), options.output / "instances.jpg")


def draw_label(options: argparse.Namespace) -> None:
    """Draw the report of a labelled folder."""
    from pictures_label import report_picture

    save(report_picture(), options.output / "label-report.jpg")


def draw_results(options: argparse.Namespace) -> None:
    """Draw the scores of the method's variants on PartShapes."""
    from pictures_results import plot

    save(plot(), options.output / "results.png")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "demo": draw_demo,
    "shapes": draw_shapes,
    "protocols": draw_protocols,
    "results": draw_results,
    "instances": draw_instances,
    "serve": draw_serve,
    "label": draw_label,
    "own-data": draw_own_data,
}


def save(picture: Image.Image, path: Path) -> None:
    with whole_file(path) as temporary:
        if path.suffix == ".jpg":
            picture.save(temporary, format="JPEG", quality=88, subsampling=0, optimize=True)
        else:
            picture.save(temporary, format="PNG", optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size // 1024} KB")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    without_run = [name for name in PARTS if name != "own-data"]
    parser.add_argument("parts", nargs="*", default=without_run, metavar="PICTURE", help=", ".join(PARTS))
    parser.add_argument("--model", help="directory or hub name; left out: the built-in model")
    parser.add_argument("--scenes", type=int, nargs="+", default=SCENES, help="demo: numbers of PartShapes' test split")
    parser.add_argument("--photos", nargs="+", help="demo: photos in place of scenes; own-data: one")
    parser.add_argument("--vocabulary", type=Vocabulary.load, help="demo: the words for the photos")
    parser.add_argument("--run", type=Path, help="own-data: output folder of the training")
    parser.add_argument("--reports", type=Path, nargs=2, help="own-data: of evaluate, before the training and after it")
    parser.add_argument("--output", type=Path, default=PICTURES)
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"there is no picture {name!r}: choose from {', '.join(PARTS)}")
        if name == "own-data" and not (options.run and options.reports):
            parser.error("own-data needs --run and --reports")
        PARTS[name](options)


if __name__ == "__main__":
    main()
