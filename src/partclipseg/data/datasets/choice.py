"""The name of a data set as an option of a command; its choices and help are made from `DATASETS` when needed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Annotated, Any, Literal

import tyro

from partclipseg.data.datasets.registry import dataset_specs
from partclipseg.data.datasets.spec import DatasetSpec


def has_files(spec: DatasetSpec) -> bool:
    """Return whether the data set lies in files."""
    return spec.open_split is not None


def has_recipe(spec: DatasetSpec) -> bool:
    """Return whether `prepare` can make its layout."""
    return spec.preparation is not None


def may_train(spec: DatasetSpec) -> bool:
    """Return whether `train` may use it."""
    return spec.trains


def names(which: Callable[[DatasetSpec], bool]) -> tuple[str, ...]:
    """List the data sets that `which` is true of."""
    return tuple(spec.name for spec in dataset_specs() if which(spec))


def dataset_option(which: Callable[[DatasetSpec], bool] = lambda spec: True, metavar: str | None = None) -> Any:
    """Make the annotation of an option that takes the name of a data set `which` is true of."""
    return _option(lambda: Annotated[Literal[names(which)], tyro.conf.arg(help=_summaries(which), metavar=metavar)])  # pyright: ignore


def source_option(kind: Any, text: str) -> Any:
    """Make the annotation of an option of type `kind` whose help is `text` and what to download for each data set."""

    def annotation() -> Any:
        made = [(spec.name, spec.preparation) for spec in dataset_specs() if spec.preparation is not None]
        lines = [text, *(f"{name}: {preparation.source}." for name, preparation in made)]
        return Annotated[kind, tyro.conf.arg(help="\n".join(lines), metavar="PATH...")]

    return _option(annotation)


def _option(annotation: Callable[[], Any]) -> Any:
    # The default is shown as other options show it; with a factory tyro would show it as a list.
    return tyro.conf.arg(constructor_factory=annotation, help_behavior_hint=_hint)


def _hint(default: str) -> str:
    plain = default.strip("[]'")
    return f"(default: {plain})"


def _summaries(which: Callable[[DatasetSpec], bool]) -> str:
    """Return a line for each kind of data set, such as ``a, b: a benchmark.``"""
    groups = groupby(filter(which, dataset_specs()), lambda spec: spec.summary)
    return "\n".join(f"{', '.join(spec.name for spec in specs)}: {summary}." for summary, specs in groups)
