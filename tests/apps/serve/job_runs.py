"""Runs of labelling jobs that a test scripts."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path


class Scripted:
    """A run that reports what the test puts into `said`; None ends it."""

    def __init__(self, label, within: Path, folder: Path) -> None:
        self.label, self.within, self.folder = label, within, folder
        self.said: queue.Queue = queue.Queue()
        self.code: int | None = None

    def events(self) -> Iterator[dict]:
        yield from iter(self.said.get, None)

    def stop(self) -> None:
        self.end(143)

    def end(self, code: int, **event) -> None:
        self.code = code
        if event:
            self.said.put(event)
        self.said.put(None)
