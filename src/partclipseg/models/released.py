"""The models that are known by name: the catalogue, and where their files are kept on this machine.

Reading this needs neither PyTorch nor a network.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import expanded, is_directory, is_file
from partclipseg.json_file import read_json
from partclipseg.likeness import nearest_name

HOME_VARIABLE = "PARTCLIPSEG_HOME"
"""Environment variable that moves the folder of fetched models."""

OWN_CATALOGUE = "models.json"
"""File in `home()` with a person's own entries, in the layout of the catalogue; they replace entries of their name."""

ORIGIN = "origin.json"
"""File in a fetched model's directory: where it came from, and the SHA-256 of the file."""

BUILT_IN = "partshapes"
"""Name of the built-in model, unless a directory has it; it knows only PartShapes, the rendered benchmark."""

BUILT_IN_DETECTOR = "partshapes-detector"
"""Name of the built-in detector, unless a directory has it; it knows only PartShapes, too."""

HUB_NAME = re.compile(r"(?!-|\.)[A-Za-z0-9._-]{1,96}/(?!-|\.)[A-Za-z0-9._-]{1,96}(?<![-.])")
"""Name of a repository on the Hugging Face hub, ``owner/model``."""

_LONGEST_NAME = 100
"""Maximum length of a model's name, of which the names of its files are made."""

_DRIVE_ID = re.compile(r"[A-Za-z0-9_-]+")

_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("method", "data", "source", "note"), (lambda value: isinstance(value, str), "text")),
    "vocabulary": (lambda value: isinstance(value, str) and bool(value.strip()), "words, or the path of a file"),
    "drive": (
        lambda value: isinstance(value, str) and bool(_DRIVE_ID.fullmatch(value)),
        "the id of a file alone, which stands after /d/ in its address",
    ),
    "hub": (
        lambda value: isinstance(value, str) and bool(HUB_NAME.fullmatch(value)),
        "owner/model, without an address",
    ),
    "megabytes": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf,
        "a number of 10^6 bytes above 0",
    ),
    "config": (lambda value: isinstance(value, dict), "a table"),
    "built_in": (lambda value: value is True, "true"),
}
"""Fields of an entry: whether a value is one, and what it must be, in words."""


def home() -> Path:
    """Return the folder of fetched models: `PARTCLIPSEG_HOME`, else a folder among the system's caches.

    Raises `PartCLIPSegError` where the variable names a file, or the home folder of nobody.
    """
    if named := os.environ.get(HOME_VARIABLE, "").strip():
        folder = expanded(named, HOME_VARIABLE).absolute()
        if is_file(folder):
            raise PartCLIPSegError(f"{HOME_VARIABLE} names {folder}, which is a file: let it name a folder")
        return folder
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else _person() / "AppData" / "Local") / "partclipseg" / "Cache"
    if sys.platform == "darwin":
        return _person() / "Library" / "Caches" / "partclipseg"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else _person() / ".cache") / "partclipseg"


def _person() -> Path:
    """Return the home folder of the person. Raises `PartCLIPSegError` where the system knows of none."""
    try:
        return Path.home()
    except RuntimeError:
        raise PartCLIPSegError(
            f"this system knows of no home folder: let {HOME_VARIABLE} name a folder for fetched models"
        ) from None


@dataclass(frozen=True)
class Release:
    """An entry of the catalogue."""

    name: str
    method: str
    """A family of models, or ``clipseg`` for a plain CLIPSeg."""
    data: str
    """Data set that the model was trained on."""
    source: str
    """Name of the project that released it."""
    repository: str = ""
    code: str = "not stated"
    """Licence of the code."""
    terms: str = "not stated"
    """Words on the licence of weights and data."""
    drive: str | None = None
    """Id of a file on Google Drive."""
    hub: str | None = None
    """Name of a repository on the Hugging Face hub."""
    vocabulary: str | None = None
    """Words for calls that give none, as `Vocabulary.load` takes them."""
    megabytes: float | None = None
    """Size of the file, in 10^6 bytes; None if it is not known beforehand."""
    note: str = ""
    config: Mapping[str, Any] | None = None
    """The reference's configuration, for files of another size than the released ones."""
    built_in: bool = False

    @property
    def directory(self) -> Path:
        """Directory of the model, once it is fetched."""
        return home() / "models" / self.name

    @property
    def download(self) -> Path:
        """Path of the file, or for a model on the hub of the folder, until it is checked."""
        return home() / "files" / (self.name if self.hub else f"{self.name}.pth")

    @property
    def original(self) -> Path:
        """Path of the file that is kept after conversion on request."""
        return home() / "originals" / f"{self.name}.pth"

    @property
    def checksum(self) -> Path:
        """Path of the SHA-256 of the first fetched file, which is kept when the model is removed."""
        return home() / "checksums" / f"{self.name}.sha256"

    @property
    def is_here(self) -> bool:
        """Whether the model can be used without a network."""
        return self.built_in or is_file(self.directory / "config.json")

    @property
    def page(self) -> str:
        """Address of the page from which a person can fetch the file by hand."""
        return (
            f"https://huggingface.co/{self.hub}" if self.hub else f"https://drive.google.com/file/d/{self.drive}/view"
        )

    @property
    def origin(self) -> str:
        """Origin of the model, in words."""
        return "built in" if self.built_in else f"hub, {self.hub}" if self.hub else f"Google Drive, {self.drive}"


def catalogue() -> dict[str, Release]:
    """Read all models known by name, a person's own entries too. Raises `PartCLIPSegError` for a damaged own file."""
    shipped = json.loads((files("partclipseg") / "models" / "released.json").read_text(encoding="utf-8"))
    found = _releases(shipped, shipped, "the catalogue")
    path = home() / OWN_CATALOGUE
    if os.path.lexists(path):
        try:
            own = read_json(path)
        except PartCLIPSegError as error:
            raise PartCLIPSegError(f"your own catalogue {path} {error}, or move it away") from None
        found |= _releases(own, shipped, f"your own catalogue {path}")
        folded: dict[str, str] = {}
        for name in found:  # they share one folder where the system does not tell capitals apart
            if (twin := folded.setdefault(name.casefold(), name)) != name:
                raise PartCLIPSegError(
                    f"your own catalogue {path}: {name!r} differs from {twin!r} in capitals alone: rename it"
                )
    return found


def is_released(name: Any) -> bool:
    """Whether a name is the catalogue's; a directory of that name in the working directory comes first."""
    return isinstance(name, str) and "/" not in name and not is_directory(name) and name in catalogue()


def find_release(name: str) -> Release:
    """Return the entry of a name. Raises `UsageError` with the nearest name for one that is unknown."""
    known = catalogue()
    if name not in known:
        close = nearest_name(name, known)
        shown = repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")
        raise UsageError(
            f"no model is known by the name {shown}{f', did you mean {close}?' if close else ':'} "
            "`partclipseg models` lists all names"
        )
    return known[name]


def _releases(content: Any, shipped: Mapping[str, Any], origin: str) -> dict[str, Release]:
    remedy = "give it the layout that docs/weights.md shows"
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict):
        raise PartCLIPSegError(f"{origin} has no table 'models': {remedy}")
    if unknown := content.keys() - {"models", "sources", "data"}:
        raise PartCLIPSegError(f"{origin} has unknown tables {', '.join(sorted(map(repr, unknown)))}: {remedy}")
    sources = {**shipped["sources"], **_table(content, "sources", dict, origin)}
    data_terms = {**shipped["data"], **_table(content, "data", str, origin)}
    found = {}
    for name, entry in models.items():
        try:
            _check_entry(name, entry, is_own=content is not shipped)
        except PartCLIPSegError as error:
            raise PartCLIPSegError(f"{origin}: {name[:_LONGEST_NAME]!r} {error}: {remedy}") from None
        fields = {"method": "partclipseg", "data": "own data", "source": "own", **entry}
        about = sources.get(fields["source"], {})
        terms = [str(words) for words in (about.get("weights"), data_terms.get(fields["data"])) if words]
        found[name] = Release(
            name,
            repository=str(about.get("repository", "")),
            code=str(about.get("code", "not stated")),
            terms="; ".join(terms) or "not stated",
            **fields,
        )
    return found


def _table(content: Mapping[str, Any], name: str, kind: type, origin: str) -> Mapping[str, Any]:
    """Return an optional table of a catalogue. Raises `PartCLIPSegError` for anything else."""
    table = content.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(value, kind) for value in table.values()):
        values = "text" if kind is str else "a table"
        raise PartCLIPSegError(f"{origin}: {name!r} must be a table, with {values} for each name: mend it")
    return table


def _check_entry(name: str, entry: Any, is_own: bool) -> None:
    """Raise `PartCLIPSegError` that says what is wrong with an entry of a catalogue, without its name."""
    if not isinstance(entry, dict):
        raise PartCLIPSegError("has no table")
    if unknown := entry.keys() - _FIELDS.keys():
        raise PartCLIPSegError(f"has unknown fields {', '.join(sorted(unknown))}")
    # The name becomes that of folders and files, on systems of every kind.
    if not name.isprintable() or not name or set(name) & set('/\\:*?"<>|') or name[0] in ".- " or name[-1] in ". ":
        raise PartCLIPSegError("cannot be a folder's name")
    if len(name) > _LONGEST_NAME:
        raise PartCLIPSegError(f"has more than {_LONGEST_NAME} characters")
    for field, value in entry.items():
        fits, what = _FIELDS[field]
        if not fits(value):
            raise PartCLIPSegError(f"has {repr(value)[:100]} as {field!r}, which must be {what}")
    if is_own and (entry.get("built_in") or name == BUILT_IN):
        raise PartCLIPSegError(f"stands for the built-in model {BUILT_IN}, which cannot be replaced")
    if not entry.get("built_in") and ("drive" in entry) == ("hub" in entry):
        raise PartCLIPSegError("needs either 'drive' or 'hub'")
