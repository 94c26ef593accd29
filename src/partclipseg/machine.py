"""What the machine lends this process, and what is installed on it."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def how_to_install(extra: str) -> str:
    """The command that installs the packages of an extra, for messages: it works with and without a package index."""
    return f'pip install -e ".[{extra}]" in the folder of this repository'
