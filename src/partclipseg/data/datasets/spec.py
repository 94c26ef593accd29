"""`DatasetSpec`: the description of one data set.

A new data set is a file with a value ``DATASET = DatasetSpec(…)`` and a line in `registry.DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, Protocol, TypedDict

from partclipseg.data.sample import PartSample
from partclipseg.data.source import FileDataset, SampleRecord, Source
from partclipseg.vocabulary import Vocabulary

Split = Literal["train", "test"]

SPLITS: tuple[Split, ...] = ("train", "test")


class OwnOptions(TypedDict, total=False):
    """Options for photos that you annotated yourself."""

    object: str | None
    """Object that all classes are parts of."""
    mapping: str | Path | Mapping[str, Any] | None
    """Meaning of each class: see `classes.read_mapping`."""
    annotations: str | Path | None
    """``coco``: the annotation file, where it has no usual name."""
    images: str | Path | None
    """``coco``: the folder of the photos, if they are neither beside the file nor below the root."""
    classes: str | Path | None
    """``index-png``: the class list, where it is not ``classes.txt``, ``.yaml`` or ``.json`` in the root."""


@dataclass(frozen=True)
class Preparation:
    """Description of how `partclipseg prepare` makes the layout of a data set from its raw source."""

    recipe: str
    """Import path ``module:class`` of a `prepare.recipe.LayoutRecipe`, which takes ``folders`` and ``mode``."""
    source: str
    """Files to download, in words, for help texts."""
    options: tuple[str, ...] = ()
    """Further fields of the command that the recipe takes."""

    def load(self) -> Any:
        """Import the class that the path names."""
        return resolve_name(self.recipe)


class RenderedScenes(Protocol):
    """Scenes of a rendered data set, as samples of size `S`; `shapes.dataset.PartShapesDataset` is one."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def seen(self) -> tuple[int, ...]:
        """Indices into `vocabulary.object_parts` of the seen classes."""
        ...

    @property
    def digest(self) -> Mapping[str, str]:
        """Return the settings that the scenes depend on, to compare with those of saved work."""
        ...

    def keys(self) -> tuple[str, ...]:
        """Return the key of each scene."""
        ...

    def arrays(self) -> tuple[Any, Any, Any]:
        """Return photos uint8 `[N, S, S, 3]`, part and object labels int32 `[N, S, S]`, of scenes rendered ahead."""
        ...

    def boxes(self) -> Any:
        """Return boxes of the objects of the vocabulary in scenes rendered ahead, int32 `[N, M, 4]`.

        Left, top, right, bottom; -1 where there is none.
        """
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> PartSample: ...


@dataclass(frozen=True)
class Rendering:
    """Description of how the scenes of a data set without files are rendered."""

    scenes: str
    """Import path ``module:class`` of a class of `RenderedScenes`.

    ``class(split, length, size, words)`` renders when asked, and ``class.ahead(split, length, size, words,
    directory)`` renders all scenes at once.
    """
    splits: Mapping[str, tuple[int, int]]
    """Splits that `evaluate` scores: the number of scenes by default, and the side of a picture in pixels."""

    def load(self) -> Any:
        """Import the class that the path names."""
        return resolve_name(self.scenes)


def one_a_photo(sources: Sequence[Source], vocabulary: Vocabulary, split: Split) -> list[SampleRecord]:
    """Make one record for each photo."""
    return [SampleRecord(photo.key, source, photo) for source in sources for photo in source.photos]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One data set. It lies in files (`open_split`) or is rendered (`rendering`)."""

    name: str
    """Name on the command line; the key in `registry.DATASETS`."""
    summary: str
    """Short description for help texts, such as "a benchmark"."""

    open_split: Callable[[Path, Split, OwnOptions], Source] | None = None
    """Open the files of one split below a root. Raises `DataError`, or `UsageError` for a root that is unclear."""
    rendering: Rendering | None = None

    layout: Mapping[Split, tuple[str, ...]] = field(default_factory=dict)
    """Paths that each split needs, relative to the root; empty where the opener looks for files itself."""
    folders: Mapping[Split, str] = field(default_factory=dict)
    """Names of our splits in the files; equal to ours by default."""
    raw: tuple[str, ...] = ()
    """Glob patterns that tell the raw source, which is often mistaken for the layout."""

    records: Callable[[Sequence[Source], Vocabulary, Split], list[SampleRecord]] = one_a_photo
    """Records of the opened sources, restricted to objects of the vocabulary if that is the protocol."""
    test_splits: tuple[Split, ...] = ("test",)
    """Splits whose files the test records come from."""
    catalog: str | None = None
    """`Catalog` with the published class list; None if the files hold the class list."""
    options: frozenset[str] = frozenset()
    """Names in `OwnOptions` that apply."""
    trains: bool = True
    """Whether `train` may use it."""
    preparation: Preparation | None = None
    """Preparation of its layout; None if there is nothing to prepare."""
    remark: Callable[[FileDataset], str] = field(default=lambda dataset: "")
    """Reason why the scores are not those of the published data set; empty if they are."""

    def folder(self, split: Split) -> str:
        """Return the name of a split in the files."""
        return self.folders.get(split, split)
