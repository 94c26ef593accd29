"""Resolves a model's name: a directory, or a name on the Hugging Face hub; other text is refused at once."""

from __future__ import annotations

import logging
import os
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import is_offline_mode

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_directory, is_file
from partclipseg.likeness import nearest_name
from partclipseg.models.hub import OPTIONAL_FILES, WEIGHTS, HubError, cached, hub_file, reach_hub
from partclipseg.models.released import BUILT_IN_DETECTOR, HUB_NAME, catalogue, is_released

logger = logging.getLogger(__name__)

_FOLDERS = frozenset({"models", "datasets", "spaces", "docs", "runs"})
"""First path components that mean a folder: four are paths of the hub's own site; training writes to runs."""

REMEDY = (
    "give a model's directory, as `partclipseg convert` or `train` writes it, or a name that `partclipseg models` lists"
)
"""End of the messages about a name that stands for nothing here, unless a caller gives another."""

_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = 100


def quoted_name(text: Any) -> str:
    """Return the `repr` of a name, shortened in its middle to some 100 characters."""
    return _QUOTE.repr(str(text))


def check_hub_name(name: Any) -> str:
    """Return a name for a model on the hub, ``owner/model`` or ``model``; raises `UsageError` for other text."""
    if isinstance(name, str) and HUB_NAME.fullmatch(name if "/" in name else f"owner/{name}"):
        return name
    raise UsageError(
        f"{quoted_name(name)} is no name for the hub: give owner/model, of letters, digits, dots, hyphens "
        "and underscores"
    )


def is_local(name: Any, remedy: str = REMEDY) -> bool:
    """Whether `name` is a local directory; False if it may be a name on the hub, ``owner/model``.

    Raises `PartCLIPSegError` for files and for text that is neither, without asking the hub; `remedy` ends its message.
    """
    if not isinstance(name, str | os.PathLike):
        raise PartCLIPSegError(f"a model's name must be text or a path, not {quoted_name(name)}: {remedy}")
    text = os.fspath(name)
    if is_directory(text):
        return True
    if text.endswith(".pth") and is_file(text):
        raise PartCLIPSegError(f"{text} is a checkpoint file: make a directory of it by `partclipseg convert`")
    if is_file(text):
        raise PartCLIPSegError(f"{text} is a file: give the model's directory, which has config.json and the weights")
    if is_released(text):
        raise PartCLIPSegError(
            f"{text} is a name that `partclipseg models` lists: load it by `load_model` or "
            "`PartSegmenter.from_pretrained`, which fetch it"
        )
    if text == BUILT_IN_DETECTOR:
        raise PartCLIPSegError(f"{text} is the built-in detector, which finds objects by their boxes: {remedy}")
    owner = text.partition("/")[0]
    if not HUB_NAME.fullmatch(text) or owner in _FOLDERS or is_directory(owner):
        raise PartCLIPSegError(f"there is no directory {quoted_name(text)}{_nearest(text)}{remedy}")
    return False


def check_model_name(name: Any) -> None:
    """Raise as `is_local` for a name that can be no model's, without asking the hub and without importing PyTorch.

    None, the built-in model, and names that `partclipseg models` lists are fine.
    """
    if name is not None and not is_released(name):
        is_local(name)


def find_file(name: Any, file: str, remedy: str = REMEDY, **hub_options: Any) -> Path:
    """Return the path of one file of a model; a file on the hub is fetched into the hub's cache.

    Raises `PartCLIPSegError` that says whether the model, the file or the hub is missing.
    """
    if is_local(name, remedy):
        return Path(name) / file
    logger.warning("there is no directory %s; asking the Hugging Face hub for a model of that name", name)
    path = _fetch(name, file, hub_options, remedy)
    if path is None:
        raise PartCLIPSegError(
            f"there is no directory {quoted_name(name)}, and the Hugging Face hub has no {file} of a model of that "
            "name: check the spelling, or name another model"
        )
    return path


def find_optional_file(name: Any, file: str) -> Path | None:
    """Return the path of an optional file of a model, found as by `find_file`; None if it has none."""
    if is_local(name):
        return Path(name) / file if is_file(Path(name) / file) else None
    return _fetch(name, file, {})


def find_snapshot(name: Any, files: Iterable[str] = OPTIONAL_FILES, remedy: str = REMEDY) -> str | Path:
    """Return the folder with a model's files: `name` itself, or the folder of the hub's cache, filled if need be.

    `files` are those to fetch beside configuration and weights where the repository has them. What was fetched before
    is used where the hub cannot be reached. Raises `PartCLIPSegError` as `find_file` does.
    """
    if is_local(name, remedy):
        return name
    before = cached(name, "config.json")
    if before is not None and is_offline_mode():
        return before.parent
    try:
        reach_hub()
    except HubError:
        if before is not None:
            logger.warning("the Hugging Face hub cannot be reached: using %s as it was fetched before", name)
            return before.parent
    config = find_file(name, "config.json", remedy)
    for file in files:
        _fetch(name, file, {}, remedy)
    if _fetch_weights(name) is None:
        raise PartCLIPSegError(f"the model {name} on the Hugging Face hub has no weights: name another model")
    return config.parent


def _fetch_weights(name: str) -> Path | None:
    """Fetch a model's weights, in one file or several; returns the file, or the table of the files."""
    from partclipseg.models.reading import read_json_table  # which imports PyTorch: a wrong name is told before

    for file in WEIGHTS:
        if (found := _fetch(name, file, {})) is not None:
            return found
        if (index := _fetch(name, f"{file}.index.json", {})) is not None:
            for shard in sorted(set(map(str, read_json_table(index).get("weight_map", {}).values()))):
                _fetch(name, shard, {})
            return index
    return None


def _fetch(name: Any, file: str, hub_options: Mapping[str, Any], remedy: str = REMEDY) -> Path | None:
    """Fetch a file of a model from the hub, or from its cache if offline; None if there is none."""
    try:
        return hub_file(name, file, **hub_options)
    except HubError as error:
        raise PartCLIPSegError(f"there is no directory {quoted_name(name)}, and {error}: {remedy}") from error


def _nearest(text: str) -> str:
    """Return ``; did you mean …? `` with the most similar name of a model or directory, or ``: `` without one."""
    parent, _, name = text.rstrip("/").rpartition("/")
    if not name or "\0" in text or len(text) > 1000:
        return ": "
    known = [] if parent else [*catalogue(), BUILT_IN_DETECTOR]
    try:
        folders = [entry.name for entry in os.scandir(parent or ".") if entry.is_dir()]
    except OSError:
        folders = []
    close = nearest_name(name, [*known, *folders])
    return f"; did you mean {os.path.join(parent, close)}? Else " if close else ": "  # noqa: PTH118
