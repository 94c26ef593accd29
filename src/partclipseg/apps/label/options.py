"""``options.json``: the options of a run, so that it is continued with the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_regular, same_path, write_text
from partclipseg.journal import json_text

_DIGESTS = {
    "weights": "the model's weights",
    "detector_weights": "the detector's weights",
    "outliner_weights": "the weights of the model for outlines",
    "objects_file": "the objects in the file of --instances",
}
"""Options whose values are digests, and what they are digests of."""


def stored_options(path: Path) -> dict[str, Any]:
    """Return the options that the run was started with; empty for a new run.

    Raises `PartCLIPSegError` if the file is damaged, and `OSError` of `is_regular`.
    """
    if not is_regular(path):
        return {}
    try:
        options = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict) or not isinstance(options.get("dtype"), str):
        raise _damaged(path)
    return options


def _damaged(path: Path) -> PartCLIPSegError:
    return PartCLIPSegError(
        f"{path} is damaged: delete it and give the same options as before; all other files are kept"
    )


def check_options(path: Path, options: dict[str, Any]) -> None:
    """Store the options of the first run, or compare those of a later one with them.

    Raises `UsageError` that names each difference, `PartCLIPSegError` if the file is damaged.
    """
    before = stored_options(path)
    if not before:
        write_text(path, json_text(options) + "\n", durable=True)
        return
    options = options | {key: None for key in before if key not in options}  # options that it was begun with
    if any(not _is_alike(before.get(key), value) for key, value in options.items()):
        raise _damaged(path)
    # The digest is of the weights as they were loaded, so it changes with their number type.
    unsaid = {"weights"} if options["dtype"] != before["dtype"] else set()
    named = {key: value for key, value in options.items() if key not in unsaid}
    if changes := [text for key, value in named.items() if (text := _difference(key, before.get(key), value))]:
        raise UsageError(
            f"{path.parent} was begun with other options ({'; '.join(changes)}): go on with those, or name another "
            "folder with --output"
        )


def _is_alike(before: Any, now: Any) -> bool:
    """Whether two values have the same JSON type."""
    if now is None or (before is None and isinstance(now, str | bool)):  # only one of the two runs has the option
        return True
    if isinstance(now, list):
        return isinstance(before, list) and all(isinstance(value, str) for value in before)
    if isinstance(now, bool) or isinstance(before, bool):
        return isinstance(before, bool) and isinstance(now, bool)
    if isinstance(now, int | float):
        return isinstance(before, int | float)
    return isinstance(before, str)


def _difference(key: str, before: Any, now: Any) -> str:
    if before == now or same_path(before, now):
        return ""
    if before and now and (title := _DIGESTS.get(key)):
        return f"{title} have changed since"
    if not isinstance(now, list) or not isinstance(before, list):
        return f"{key} was {before}, now {now}"
    gone, new = [x for x in before if x not in now], [x for x in now if x not in before]
    if not gone and not new:
        return f"{key} in another order"
    sides = (f"{word} {_first_five(items)}" for word, items in (("without", gone), ("with", new)) if items)
    return f"{key} now {' and '.join(sides)}"


def _first_five(items: list[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
