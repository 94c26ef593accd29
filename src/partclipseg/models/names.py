"""Resolves a model's name: a directory, or a name on the Hugging Face hub; other text is refused at once."""

from __future__ import annotations

import difflib
import logging
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.utils.hub import cached_file

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_directory, is_file

logger = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"(?!-|\.)[A-Za-z0-9._-]{1,96}/(?!-|\.)[A-Za-z0-9._-]{1,96}(?<![-.])")
_FOLDERS = frozenset({"models", "datasets", "spaces", "docs", "runs"})
"""First path components that mean a folder: four are paths of the hub's own site; training writes to runs."""

_REMEDY = (
    "give a model's directory, as `partclipseg convert` or `train` writes it, or download the model where there is "
    "network"
)

_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = 100


def quoted(text: Any) -> str:
    """Return the `repr` of a name, shortened in its middle to some 100 characters."""
    return _QUOTE.repr(str(text))


def check_hub_name(name: Any) -> str:
    """Return a name for a model on the hub, ``owner/model`` or ``model``; raises `UsageError` for other text."""
    if isinstance(name, str) and _HUB_NAME.fullmatch(name if "/" in name else f"owner/{name}"):
        return name
    raise UsageError(
        f"{quoted(name)} is no name for the hub: give owner/model, of letters, digits, dots, hyphens and underscores"
    )


def is_local(name: Any) -> bool:
    """Whether `name` is a local directory; False if it may be a name on the hub, ``owner/model``.

    Raises `PartCLIPSegError` for files and for text that is neither, without asking the hub.
    """
    if not isinstance(name, str | os.PathLike):
        raise PartCLIPSegError(f"a model's name must be text or a path, not {quoted(name)}: {_REMEDY}")
    text = os.fspath(name)
    if is_directory(text):
        return True
    if text.endswith(".pth") and is_file(text):
        raise PartCLIPSegError(f"{text} is a checkpoint file: make a directory of it by `partclipseg convert`")
    if is_file(text):
        raise PartCLIPSegError(f"{text} is a file: give the model's directory, which has config.json and the weights")
    owner = text.partition("/")[0]
    if not _HUB_NAME.fullmatch(text) or owner in _FOLDERS or is_directory(owner):
        raise PartCLIPSegError(f"there is no directory {quoted(text)}{_nearest(text)}: {_REMEDY}")
    return False


def find_file(name: Any, file: str, **hub_options: Any) -> Path:
    """Return the path of one file of a model; a file on the hub is fetched into the hub's cache.

    Raises `PartCLIPSegError` that says whether the model, the file or the hub is missing.
    """
    if is_local(name):
        return Path(name) / file
    # Fail at once: without network, the hub client retries for half a minute.
    logger.warning("there is no directory %s; asking the Hugging Face hub for a model of that name", name)
    path = _fetch(name, file, hub_options)
    if path is None and (hub_options.get("local_files_only") or is_offline_mode()):
        raise hub_error(name, file, FileNotFoundError(file))
    if path is None:
        raise PartCLIPSegError(f"the model {name} on the Hugging Face hub has no {file}: name another model")
    return path


def find_optional_file(name: Any, file: str) -> Path | None:
    """Return the path of an optional file of a model, found as by `find_file`; None if it has none."""
    if is_local(name):
        return Path(name) / file if is_file(Path(name) / file) else None
    return _fetch(name, file, {})


def _fetch(name: Any, file: str, hub_options: Mapping[str, Any]) -> Path | None:
    """Fetch a file of a model from the hub, or from its cache if offline; None if there is none."""
    try:
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **hub_options)
    except (OSError, ValueError) as error:
        raise hub_error(name, file, error) from error
    return None if path is None else Path(path)


def hub_error(name: Any, file: str, error: BaseException) -> PartCLIPSegError:
    """Return the error for a file that could not be fetched: the hub's answer, or that it cannot be reached."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__

    def is_any(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    missing = f"there is no directory {quoted(name)}, and"
    if is_any(GatedRepoError):
        return PartCLIPSegError(
            f"the model {name} on the Hugging Face hub is open to some people only: ask for access on its page and log "
            "in by `hf auth login`"
        )
    if is_any(RepositoryNotFoundError):
        return PartCLIPSegError(
            f"{missing} no model of that name exists on the Hugging Face hub (or it is private): check the spelling, "
            "log in by `hf auth login`, or give a model's directory"
        )
    if is_any(RevisionNotFoundError):
        return PartCLIPSegError(f"the model {name} on the Hugging Face hub has no such revision: check `revision`")
    if is_any(EntryNotFoundError) and not is_any(LocalEntryNotFoundError):
        return PartCLIPSegError(f"the model {name} on the Hugging Face hub has no {file}: name another model")
    return PartCLIPSegError(f"{missing} the hub cannot be reached for a model of that name: {_REMEDY}")


def _nearest(text: str) -> str:
    """Return ``; did you mean …?`` with the most similar directory beside the missing one, or an empty text."""
    parent, _, name = text.rstrip("/").rpartition("/")
    if not name or "\0" in text or len(text) > 1000:
        return ""
    try:
        folders = [entry.name for entry in os.scandir(parent or ".") if entry.is_dir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(name, folders, 1)
    return f"; did you mean {os.path.join(parent, close[0])}?" if close else ""  # noqa: PTH118
