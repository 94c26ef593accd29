"""Resources of the machine that this process may use, and installed packages."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra's packages, for messages: it works with and without a package index."""
    return f'pip install ".[{extra}]" in the folder of this repository'
