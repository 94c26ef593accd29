"""The output formats by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from partclipseg.errors import UsageError
from partclipseg.likeness import nearest_name

if TYPE_CHECKING:
    from partclipseg.formats.format import Format
    from partclipseg.vocabulary import Vocabulary

FORMATS = {
    "overlay": "partclipseg.formats.overlay:FORMAT",
    "png": "partclipseg.formats.png:FORMAT",
    "masks": "partclipseg.formats.masks:FORMAT",
    "soft-masks": "partclipseg.formats.masks:SOFT",
    "json": "partclipseg.formats.json:FORMAT",
    "jsonl": "partclipseg.formats.jsonl:FORMAT",
    "csv": "partclipseg.formats.areas:FORMAT",
    "coco": "partclipseg.formats.coco:FORMAT",
    "labelme": "partclipseg.formats.labelme:FORMAT",
    "yolo": "partclipseg.formats.yolo:FORMAT",
    "label-studio": "partclipseg.formats.label_studio:FORMAT",
    "instance-png": "partclipseg.formats.instances:NUMBERS",
    "partpq": "partclipseg.formats.instances:PARTPQ",
}
"""Import path of the `Format` of each name. Files are written, and choices listed, in this order."""


def all_formats() -> dict[str, Format]:
    """Return every format by name."""
    return {name: _loaded(path) for name, path in FORMATS.items()}


_loaded = cache(resolve_name)  # `label` asks for the formats several times a photo


def single_formats() -> dict[str, Format]:
    """Return the formats that have a file for a single photo."""
    return {name: kind for name, kind in all_formats().items() if kind.is_single}


def data_set_formats() -> dict[str, Format]:
    """Return the formats that have files in a labelled data set."""
    return {name: kind for name, kind in all_formats().items() if kind.is_for_data_sets}


def chosen_formats(
    names: Iterable[str], known: Mapping[str, Format], has_instances: bool = True, vocabulary: Vocabulary | None = None
) -> dict[str, Format]:
    """Return the formats of these names, or of names with commas between them, without repeats and in their order.

    Raises `UsageError` for a name that is not `known`, or for none at all, for a format of instances where the results
    have none, and for one that cannot hold the `vocabulary`, where that is known.
    """
    chosen = {}
    for name in (name for text in ([names] if isinstance(names, str) else names) for name in _separate(text)):
        if name not in known:
            meant = f", did you mean {close}? Else " if (close := nearest_name(name, known)) else ": "
            raise UsageError(f"unknown format {name!r}{meant}choose from {', '.join(known)}")
        if known[name].needs_instances and not has_instances:
            raise UsageError(f"the format {name} is about instances, which were not asked for: ask for --instances too")
        if vocabulary is not None and (refusal := _refusal(known[name], vocabulary)):
            raise UsageError(f"the format {name} {refusal}: leave it out, or ask for fewer words")
        chosen[name] = known[name]
    if not chosen:
        raise UsageError(f"no format is asked for: choose from {', '.join(known)}")
    return chosen


def usual_formats(has_instances: bool, vocabulary: Vocabulary | None = None) -> list[str]:
    """Return the single formats that a photo gets where none is named: those that are quick and can hold it."""
    return [
        name
        for name, kind in single_formats().items()
        if not kind.on_request
        and (has_instances or not kind.needs_instances)
        and (vocabulary is None or not _refusal(kind, vocabulary))
    ]


def _refusal(kind: Format, vocabulary: Vocabulary) -> str | None:
    return None if kind.refusal is None else kind.refusal(vocabulary)


def _separate(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())] or [text]
