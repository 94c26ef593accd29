"""Options of ``partclipseg serve`` from a file and from the environment, for those that the command line leaves out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.json_file import read_json_or_yaml

PREFIX = "PARTCLIPSEG_SERVE_"
"""Beginning of the environment variables: ``PARTCLIPSEG_SERVE_MAX_BYTES`` is ``--max-bytes``."""


def with_stored_options(arguments: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the arguments, and after them the options that a file and the environment set.

    The command line comes before the environment, and the environment before the file: its path is the value of
    ``--config``, or of the variable. `names` are the options. Raises `UsageError` for a file that is no mapping of
    them, or that cannot be read.
    """
    known = {name.replace("_", "-") for name in names}
    given = {argument.partition("=")[0].lstrip("-").replace("_", "-") for argument in arguments if argument[:2] == "--"}
    settings: dict[str, Any] = {
        name.removeprefix(PREFIX).lower().replace("_", "-"): value.split() if name.endswith("_MODEL") else value
        for name, value in os.environ.items()
        if name.startswith(PREFIX)
    }
    _check(settings, known, "the environment")
    if path := _config(arguments) or settings.get("config"):
        settings = {**_read(Path(path), known), **settings}
    added: list[str] = []
    for name, value in settings.items():
        if name not in given:
            values = value if isinstance(value, list) else [value]
            added += [f"--{name}", *map(str, values)]
    return [*arguments, *added]


def _config(arguments: Sequence[str]) -> str | None:
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config":
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None


def _read(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        content = read_json_or_yaml(path)
    except PartCLIPSegError as error:
        raise UsageError(f"--config: {path} {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config: {path} must have a line such as 'port: 8080' for each option")
    settings = {str(name).replace("_", "-"): value for name, value in content.items() if value is not None}
    _check(settings, known - {"config"}, str(path))
    return settings


def _check(settings: Mapping[str, Any], known: set[str], where: str) -> None:
    for name, value in settings.items():
        if name not in known:
            options = ", ".join(sorted(known))
            raise UsageError(f"{where} sets {name!r}, which is no option of serve: the options are {options}")
        if isinstance(value, dict | bool):
            raise UsageError(f"{where} sets {name} to {value!r}: write a number, a word, or a list of words")
