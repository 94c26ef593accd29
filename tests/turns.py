"""Shows whether threads call methods one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Turns:
    """Counts at each call how many calls of the watched methods are running."""

    def __init__(self) -> None:
        self.running: list[None] = []
        self.counts: list[int] = []

    def watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method, which takes some milliseconds more, so that calls of several threads meet."""

        def watched(*arguments: Any, **options: Any) -> Any:
            self.running.append(None)
            self.counts.append(len(self.running))
            try:
                time.sleep(0.003)
                return method(*arguments, **options)
            finally:
                self.running.pop()

        return watched
