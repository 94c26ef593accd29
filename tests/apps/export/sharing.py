"""Graphs that several exports of a test file have in common are traced once; tracing is what an export takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def sharing(programs: dict[str, Any], names: Collection[str]) -> Iterator[None]:
    """Let exports take the graphs of these names from `programs`, or put them there. The weights must be the same."""
    from partclipseg.apps.export import graphs

    trace = graphs.trace

    def traced(wanted: dict[str, Any]) -> dict[str, Any]:
        known = {name: program for name, program in programs.items() if name in names}
        made = trace({name: graph for name, graph in wanted.items() if name not in known})
        programs.update({name: program for name, program in made.items() if name in names})
        return known | made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "trace", traced)
        yield
