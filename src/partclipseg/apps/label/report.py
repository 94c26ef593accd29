"""Report page of a labelled folder: figures, a sample of the photos, classes, failures; one HTML file."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from partclipseg.apps.label.job import BulkJob, ManifestRecord
from partclipseg.apps.label.labeller import remarks
from partclipseg.apps.label.people import Results
from partclipseg.apps.label.recorded import label_map, recorded_instances
from partclipseg.counts import count_of, noun
from partclipseg.data.photo import PhotoError, read_photo
from partclipseg.data.values import printable
from partclipseg.formats.drawing import draw_overlay
from partclipseg.formats.palette import part_colours
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import Vocabulary

SAMPLE = 24
"""Number of photos shown, spread evenly over the labelled ones."""

KEPT_SHOWN = 1000
"""Maximum number of people's files that are named."""

THUMBNAIL = 360
"""Longer side of a thumbnail, in pixels."""


@dataclass
class Tally:
    """Totals over the lines of a manifest."""

    classes: int
    done: list[ManifestRecord] = field(default_factory=list)
    """Photo and number of segments of each labelled photo; the rest is dropped to save memory."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Photo and reason of each failure."""
    warned: list[tuple[str, str]] = field(default_factory=list)
    """Photo and the photo reader's warning, such as that it is nearly black."""

    def __post_init__(self) -> None:
        self.photos = np.zeros(self.classes, dtype=np.int64)
        self.pixels = np.zeros(self.classes, dtype=np.int64)
        self.segments = np.zeros(self.classes, dtype=np.int64)
        self.score_sums = np.zeros(self.classes)
        self.all_pixels = 0

    def add(self, record: ManifestRecord) -> None:
        """Count one line."""
        if record["status"] == "failed":
            self.failed.append((record["photo"], record["error"]))
            return
        self.done.append({"photo": record["photo"], "segments": len(record["segments"])})
        if warning := record.get("warning"):
            self.warned.append((record["photo"], warning))
        self.all_pixels += record["width"] * record["height"]
        for index in {segment["index"] for segment in record["segments"]}:
            self.photos[index] += 1
        for segment in record["segments"]:
            index = segment["index"]
            self.segments[index] += 1
            self.pixels[index] += segment["area"]
            self.score_sums[index] += segment["score"]


def write_report(
    job: BulkJob, results: Results, collections: KeptFiles, model: str, unread: str | None = None
) -> Tally:
    """Write ``report.html`` and return the figures. It holds no times: the same results give the same page.

    `unread` is a sentence about skipped pictures.
    """
    tally = Tally(len(job.vocabulary))
    for record in results:
        tally.add(record)
    shown = {tally.done[i]["photo"] for i in _spread(len(tally.done), SAMPLE)}
    colours = part_colours(job.vocabulary)
    with remarks():  # the records already hold the warnings
        cards = [_card(job, record, colours) for record in results if record["photo"] in shown]
    collections.text("report.html", _page(job, model, tally, cards, colours, _people(results), unread))
    return tally


def _spread(count: int, wanted: int) -> Sequence[int]:
    return range(count) if count <= wanted else [i * count // wanted for i in range(wanted)]


# -- the page -------------------------------------------------------------------------------------------------


def _page(
    job: BulkJob, model: str, tally: Tally, cards: list[str], colours: np.ndarray, people: str, unread: str | None
) -> str:
    total = len(tally.done) + len(tally.failed)
    empty = sum(not record["segments"] for record in tally.done)
    found = int((tally.photos > 0).sum())
    figures = [
        (f"{len(tally.done):,}", f"{noun(len(tally.done), 'photo')} labelled"),
        (f"{len(tally.failed):,}", "failed"),
        (f"{empty:,}", "with nothing found"),
        (f"{found} of {tally.classes}", f"{noun(tally.classes, 'class')} found"),
        (f"{tally.pixels.sum() / max(tally.all_pixels, 1):.1%}", "of all pixels labelled"),
    ]
    tiles = "".join(f"<div><b>{value}</b><span>{text}</span></div>" for value, text in figures)
    known = f"; objects known to be there: {escape(', '.join(job.objects))}" if job.objects else ""
    title = f"Parts in {count_of(total, 'photo')}"
    words = count_of(len(job.vocabulary), "object-part")
    sections = [
        f"<h1>{title}</h1>",
        f"<p class=lead>{_text(str(job.folder))} · {_text(model)} · {words}{known}</p>",
        f"<div class=tiles>{tiles}</div>",
    ]
    if tally.failed:
        sections.append("<h2>Failed</h2><p>Mend or remove these photos and run the same command again.</p>")
        sections.append(_reasons(tally.failed))
    if unread:
        sections.append(f"<h2>Left out</h2><p>{_text(unread)}</p>")
    if tally.warned:
        sections.append("<h2>Doubtful</h2><p>These photos are labelled, but little may be seen in them.</p>")
        sections.append(_reasons(tally.warned))
    if people:
        sections.append(people)
    if cards:
        sections.append(f"<h2>Sample</h2><div class=sample>{''.join(cards)}</div>")
    sections.append(f"<h2>Classes</h2>{_classes(job.vocabulary, tally, colours)}")
    return _PAGE.replace("{{title}}", title).replace("{{body}}", "\n".join(sections))


def _reasons(photos: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><td>{_text(photo)}</td><td>{_text(reason)}</td></tr>" for photo, reason in photos)
    return f"<table><thead><tr><th>photo<th>reason</tr></thead><tbody>{rows}</tbody></table>"


def _people(results: Results) -> str:
    """Return a section on people's files: which were kept and used; empty without any."""
    reasons = dict(results.unreadable)
    files = dict.fromkeys([*results.kept_files, *reasons])
    if not files:
        return ""
    rows = "".join(
        f"<tr><td>{_text(file)}</td><td>{_text(reasons.get(file, ''))}</td></tr>" for file in list(files)[:KEPT_SHOWN]
    )
    more = f"<p>and {len(files) - KEPT_SHOWN:,} more</p>" if len(files) > KEPT_SHOWN else ""
    taken = count_of(
        len(results.taken), "photo counts as people corrected it", "photos count as people corrected them"
    )
    return (
        f"<h2>Corrected by people</h2><p>{taken}. These files are kept; "
        "for one that could not be read back, the result of the model counts.</p>"
        f"<table><thead><tr><th>file<th>not read back, because</tr></thead><tbody>{rows}</tbody></table>{more}"
    )


def _classes(vocabulary: Vocabulary, tally: Tally, colours: np.ndarray) -> str:
    most = max(int(tally.photos.max(initial=0)), 1)
    rows, absent = [], []
    for index in np.lexsort((-tally.pixels, -tally.photos)).tolist():
        photos = int(tally.photos[index])
        if not photos:
            absent.append(vocabulary.names[index])
            continue
        rows.append(
            f"<tr><td>{_chip(colours[index])}{_text(vocabulary.names[index])}</td>"
            f'<td class=n>{photos:,}</td><td class=bar><i style="width:{photos / most:.1%}"></i></td>'
            f"<td class=n>{tally.pixels[index] / tally.all_pixels:.2%}</td>"
            f"<td class=n>{tally.score_sums[index] / tally.segments[index]:.2f}</td></tr>"
        )
    table = (
        "<table><thead><tr><th>class<th class=n>photos<th><th class=n>pixels<th class=n>mean score</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        if rows
        else ""
    )
    missing = f"<p><b>Never found:</b> {_text(', '.join(sorted(absent)))}</p>" if absent else ""
    return table + missing


def _card(job: BulkJob, record: ManifestRecord, colours: np.ndarray) -> str:
    labels = label_map(record)
    try:
        photo = read_photo(job.folder / record["photo"], job.max_pixels)
    except (PhotoError, OSError):
        photo = None  # deleted meanwhile
    if photo is not None and photo.shape[:2] != labels.shape:
        photo = None
    buffer = io.BytesIO()
    numbers = recorded_instances(record)[1] if "instances" in record else None
    picture = draw_overlay(photo, labels, colours, None, long_side=THUMBNAIL, instance_map=numbers)
    picture.save(buffer, format="JPEG", quality=82)
    found = sorted(record["segments"], key=lambda segment: -segment["area"])
    largest: dict[int, ManifestRecord] = {}  # of several instances
    for segment in found:
        largest.setdefault(segment["index"], segment)
    found = list(largest.values())
    names = "".join(f"<li>{_chip(colours[s['index']])}{_text(s['name'])}</li>" for s in found[:5])
    more = f"<li>and {len(found) - 5} more</li>" if len(found) > 5 else ""
    return (
        f'<figure><img alt="" loading=lazy src="data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}">'
        f"<figcaption>{_text(record['photo'])}</figcaption><ul>{names or '<li>nothing found</li>'}{more}</ul></figure>"
    )


def _chip(colour: Any) -> str:
    return f'<i class=chip style="background:#{bytes(colour).hex()}"></i>'


def _text(value: str) -> str:
    return escape(printable(value))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<style>
:root { --ink: #202328; --soft: #6b7280; --line: #e2e5ea; --paper: #fff; --bar: #7c9cc9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: 2.6rem 0 .7rem; font-size: 1.15rem; }
.lead { margin: .2rem 0 1.4rem; color: var(--soft); overflow-wrap: anywhere; }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.tiles div { padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 10px; }
.tiles b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.tiles span, figcaption + ul { color: var(--soft); }
.sample { display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
figure { margin: 0; overflow: hidden; border: 1px solid var(--line); border-radius: 10px; }
figure img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #f3f4f6; }
figcaption { padding: .5rem .75rem 0; font-weight: 600; overflow-wrap: anywhere; }
figure ul { margin: 0; padding: .1rem .75rem .6rem; list-style: none; font-size: .87rem; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; overflow-wrap: break-word; }
td:first-child { min-width: 7rem; max-width: 24rem; }
th { color: var(--soft); font-weight: 500; }
.n.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { width: 30%; } .bar i { display: block; height: .6rem; border-radius: 3px; background: var(--bar); }
.chip { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 3px; }
@media (max-width: 40rem) { .bar { display: none; } body { padding-top: 1.2rem; } }
</style></head>
<body>
{{body}}
</body></html>
"""
