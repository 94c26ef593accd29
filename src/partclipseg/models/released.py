"""The models that are known by name: the catalogue, and where their files are kept on this machine.

Reading this needs neither PyTorch nor a network.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import is_directory, is_file
from partclipseg.json_file import read_json

HOME_VARIABLE = "PARTCLIPSEG_HOME"
"""Environment variable that moves the folder of fetched models."""

OWN_CATALOGUE = "models.json"
"""File in `home()` with a person's own entries, in the layout of the catalogue; they replace entries of their name."""

ORIGIN = "origin.json"
"""File in a fetched model's directory: where it came from, and the SHA-256 of the file."""

_FIELDS = frozenset(
    ("method", "data", "source", "drive", "hub", "vocabulary", "megabytes", "note", "config", "built_in")
)


def home() -> Path:
    """Return the folder of fetched models: `PARTCLIPSEG_HOME`, else a folder among the system's caches."""
    if named := os.environ.get(HOME_VARIABLE):
        return Path(named).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "partclipseg" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "partclipseg"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "partclipseg"


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
    if is_file(path):
        try:
            own = read_json(path)
        except PartCLIPSegError as error:
            raise PartCLIPSegError(f"your own catalogue {path} {error}, or move it away") from None
        found |= _releases(own, shipped, str(path))
    return found


def is_released(name: Any) -> bool:
    """Whether a name is the catalogue's; a directory of that name in the working directory comes first."""
    return isinstance(name, str) and "/" not in name and not is_directory(name) and name in catalogue()


def find_release(name: str) -> Release:
    """Return the entry of a name. Raises `UsageError` with the nearest name for one that is unknown."""
    known = catalogue()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise UsageError(
            f"no model is known by the name {name!r}{f', did you mean {close[0]}' if close else ''}? "
            "`partclipseg models` lists all names"
        )
    return known[name]


def _releases(content: Any, shipped: Mapping[str, Any], origin: str) -> dict[str, Release]:
    remedy = "give it the layout that docs/weights.md shows"
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict):
        raise PartCLIPSegError(f"{origin} has no table 'models': {remedy}")
    sources = {**shipped["sources"], **(content.get("sources") or {})}
    data_terms = {**shipped["data"], **(content.get("data") or {})}
    found = {}
    for name, entry in models.items():
        if not isinstance(entry, dict) or (unknown := entry.keys() - _FIELDS):
            what = f"unknown fields {', '.join(sorted(unknown))}" if isinstance(entry, dict) else "no table"
            raise PartCLIPSegError(f"{origin}: {name!r} has {what}: {remedy}")
        if not name or name != Path(name).name or name.startswith(".") or "\\" in name or ":" in name:
            raise PartCLIPSegError(f"{origin}: {name!r} cannot be a folder's name: {remedy}")
        if not entry.get("built_in") and ("drive" in entry) == ("hub" in entry):
            raise PartCLIPSegError(f"{origin}: {name!r} needs either 'drive' or 'hub': {remedy}")
        about = sources.get(entry.get("source"), {})
        terms = "; ".join(
            words for words in (about.get("weights"), data_terms.get(entry.get("data"))) if words
        )  # fmt: skip
        fields = {"method": "partclipseg", "data": "own data", "source": "own", **entry}
        found[name] = Release(
            name,
            repository=about.get("repository", ""),
            code=about.get("code", "not stated"),
            terms=terms or "not stated",
            **fields,
        )
    return found
