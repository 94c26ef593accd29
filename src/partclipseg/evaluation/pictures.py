"""Draw scores: a bar chart of the classes, and a page of photos with their labels and predictions."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from partclipseg.data.sample import label_areas
from partclipseg.evaluation.choices import PROTOCOL_TITLES, Protocol
from partclipseg.evaluation.scores import ClassScores, Scores
from partclipseg.evaluation.tables import figure
from partclipseg.files import whole_file
from partclipseg.formats.drawing import draw_overlay
from partclipseg.formats.palette import part_colours
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import Vocabulary

_SEEN, _UNSEEN, _INK, _LINE = "#3b6fb6", "#e08a2b", "#20232a", "#e2e5ea"

_BARS_IN_COLUMN = 60

_LEGEND_ENTRIES = 16
"""Maximum number of classes listed under a photo; labelled ones are always listed."""


def draw_class_bars(scores: Scores, path: Path, title: str) -> None:
    """Draw the IoU of every labelled class, by object, seen and unseen in two colours.

    Raises `ImportError` where matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    classes = sorted((item for item in scores.classes if item.pixels), key=lambda item: item.name.partition("'s"))
    number = max(1, -(-len(classes) // _BARS_IN_COLUMN))
    length = max(1, -(-len(classes) // number))
    drawing = Figure(figsize=(4.6 * number, 1.5 + 0.19 * length), layout="constrained", dpi=150)
    for column in range(number):
        axes = drawing.add_subplot(1, number, column + 1)
        _draw_bars(axes, classes[column * length : (column + 1) * length], length)
    drawing.suptitle(title, color=_INK, fontsize=10)
    if not all(item.seen for item in classes):
        from matplotlib.patches import Patch

        patches = [
            Patch(color=_SEEN, label=f"seen, mean {figure(scores.seen.iou)}"),
            Patch(color=_UNSEEN, label=f"unseen, mean {figure(scores.unseen.iou)}"),
        ]
        drawing.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    with whole_file(path) as temporary:
        drawing.savefig(temporary, format="png")


def _draw_bars(axes, classes: Sequence[ClassScores], length: int) -> None:
    values = [item.iou for item in classes]
    axes.barh(range(len(classes)), values, color=[_SEEN if item.seen else _UNSEEN for item in classes], height=0.72)
    for row, value in enumerate(values):
        axes.text(value + 1, row, f"{value:.0f}", va="center", fontsize=6, color=_INK)
    axes.set_yticks(range(len(classes)), [item.name for item in classes], fontsize=7, color=_INK)
    axes.set_ylim(length - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="x", labelsize=7, colors=_INK, length=0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("IoU, percent", fontsize=7, color=_INK)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    for side in axes.spines.values():
        side.set_visible(False)


@dataclass(frozen=True, eq=False)
class PhotoExample:
    """One record for the page of photos."""

    key: str
    iou: float
    """Mean IoU of the record, in percent."""
    image: np.ndarray
    """uint8 `[H, W, 3]`, RGB."""
    labels: np.ndarray
    """int32 `[H, W]`: class index or -1."""
    prediction: np.ndarray
    """int32 `[H, W]`: class index or -1, as it is scored."""


def write_photo_page(
    files: KeptFiles,
    page: str,
    title: str,
    protocol: Protocol,
    groups: Mapping[str, Sequence[PhotoExample]],
    vocabulary: Vocabulary,
) -> None:
    """Write an HTML page, with a PNG for each example in a folder of the page's name beside it.

    Args:
        files: the files of the report.
        page: name of the ``.html`` file.
        title: heading of the page.
        protocol: protocol of the scores.
        groups: heading to examples.
        vocabulary: the classes of the label maps.
    """
    folder = page.removesuffix(".html")
    colours = part_colours(vocabulary)
    sections = []
    for heading, examples in groups.items():
        sections.append(f"<h2>{html.escape(heading)}</h2>")
        for number, example in enumerate(examples, 1):
            name = f"{heading.lower().replace(' ', '-')}-{number}.png"
            with files.write(f"{folder}/{name}") as temporary:
                draw_strip(example, colours).save(temporary)
            sections.append(_figure_html(f"{folder}/{name}", example, colours, vocabulary))
    text = _PAGE.format(
        title=html.escape(title), protocol=html.escape(PROTOCOL_TITLES[protocol]), body="\n".join(sections)
    )
    files.text(page, text)


def draw_strip(example: PhotoExample, colours: np.ndarray, side: int = 440) -> Image.Image:
    """Draw photo, labels and prediction side by side; the longer side of each is `side` pixels."""
    labels, prediction = (
        draw_overlay(example.image, label_map, colours, legend=None, long_side=side)
        for label_map in (example.labels, example.prediction)
    )
    photo = Image.fromarray(example.image).resize(labels.size, Image.Resampling.BICUBIC)
    gap = 10
    strip = Image.new("RGB", (3 * labels.width + 2 * gap, labels.height), (255, 255, 255))
    for place, panel in enumerate((photo, labels, prediction)):
        strip.paste(panel, (place * (labels.width + gap), 0))
    return strip


def _figure_html(source: str, example: PhotoExample, colours: np.ndarray, vocabulary: Vocabulary) -> str:
    labelled, predicted = (100 * label_areas(m, len(vocabulary)) / m.size for m in (example.labels, example.prediction))
    # Labelled classes first, then the largest of the others.
    order = np.lexsort((-predicted, -labelled))
    shown = [index for index in order if labelled[index] or predicted[index]]
    kept = [place for place, index in enumerate(shown) if labelled[index] or place < _LEGEND_ENTRIES]
    legend = "".join(
        '<li><i style="background:#{:02x}{:02x}{:02x}"></i>'.format(*colours[index])
        + html.escape(vocabulary.names[index])
        + f" <small>{labelled[index]:.1f} % → {predicted[index]:.1f} %</small></li>"
        for index in (shown[place] for place in kept)
    )
    if len(shown) > len(kept):
        legend += f"<li><small>and {len(shown) - len(kept)} more, predicted only</small></li>"
    key = html.escape(example.key)
    return (
        f'<figure><figcaption><b>{key}</b> <span>mIoU {figure(example.iou)}</span></figcaption>'
        f'<img src="{html.escape(source)}" alt="{key}: photo, labels, prediction" loading="lazy">'
        f"<ul>{legend}</ul></figure>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #20232a; max-width: 1360px; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem; margin-bottom: 0 }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #e2e5ea; padding-bottom: .3rem }}
p, small, figcaption span {{ color: #667 }}
figure {{ margin: 0 0 1.8rem }}
figcaption {{ display: flex; justify-content: space-between; margin-bottom: .3rem }}
img {{ width: 100%; height: auto; border-radius: 4px }}
ul {{ list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; padding: 0; margin: .35rem 0 0 }}
li {{ font-size: 13px }}
i {{ display: inline-block; width: .85em; height: .85em; border-radius: 3px; margin-right: .45em }}
</style>
<h1>{title}</h1>
<p>{protocol}. Left to right: photo, labels, prediction. Each class: its share of the photo in the labels → in the
prediction. mIoU over the classes that are labelled in the record.</p>
{body}
</html>
"""
