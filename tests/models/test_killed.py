"""A fetch that is killed at any point and started again ends the same."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.models.hosts import Hosts, fetch_and_die, leftovers
from tests.processes import quick_context

from partclipseg.models.fetch import fetch, remove

NAME = "partclipseg-pascal"

POINTS = {
    "before the first byte": None,
    "in the middle of the file": None,
    "before the check": "partclipseg.models.fetch.find_foreign",
    "while the model is written": "transformers.PreTrainedModel.save_pretrained",
    "before the original is deleted": "partclipseg.models.fetch.write_text",
}
"""Where a process is killed; the function at whose call it kills itself, if it does that."""


def listed(folder: Path) -> dict[str, bytes]:
    """The files that the model consists of; the day of the fetch is left out."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that start quickly")
def test_killed_and_started_again_it_ends_the_same(hosts: Hosts, cache: Path, content: bytes, caplog: Any):
    caplog.set_level(logging.CRITICAL)
    expected = listed(fetch(NAME))
    context = quick_context()
    for where, point in POINTS.items():
        remove(NAME)
        hosts.limit = {"before the first byte": 0, "in the middle of the file": len(content) // 2}.get(where)
        hosts.reached.clear()
        process = context.Process(target=fetch_and_die, args=(NAME, str(cache), hosts.address, point))
        process.start()
        if point is None:
            assert hosts.reached.wait(60), where
            threading.Event().wait(0.1)
            process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, where
        hosts.limit = None
        assert listed(fetch(NAME)) == expected, where
        assert leftovers(cache) == [], where
        assert not list(cache.rglob("*.tmp*")), where
