"""The process of one labelling job: runs ``partclipseg label`` and reports what it does, as lines of JSON.

It is started by `run.Run`, which writes the command to its standard input and keeps that open: when it closes, also
because the server was killed, the run stops as at SIGTERM. What is printed besides goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from partclipseg.apps.label.command import Label
from partclipseg.apps.label.job import ManifestRecord
from partclipseg.apps.label.messages import Messages
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import locked, refusal

_PATIENCE = 60
"""Seconds to wait for the process of a killed server, which still finishes a batch of photos."""


class Reports(Messages):
    """Messages and progress of a run as lines of JSON, for the server; the messages for standard error, too."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def send(self, **event: Any) -> None:
        """Write one event; without a server to read it, it is dropped."""
        with suppress(BrokenPipeError):
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()

    def line(self, text: str) -> None:
        super().line(text)
        self.send(said=text)

    def error(self, text: str) -> None:
        super().error(text)
        self.send(said=text)

    def watched(
        self, stream: Iterator[list[ManifestRecord]], total: int, todo: int
    ) -> Iterator[list[ManifestRecord]]:
        labelled, failed = total - todo, 0
        self.send(photos=total, labelled=labelled, failed=failed)
        for records in stream:
            yield records
            done = sum(record["status"] == "done" for record in records)
            labelled, failed = labelled + done, failed + len(records) - done
            self.send(photos=total, labelled=labelled, failed=failed)


def run(label: Label, within: Path, folder: Path, reports: Reports) -> int:
    """Label one folder with its links kept within another; report the end, or an error. Returns the exit code.

    `folder` is the job's: it is locked, so that the process of a killed server can end before.
    """
    try:
        with locked(folder, _PATIENCE):
            code = label.run(reports, within)
    except (PartCLIPSegError, OSError) as error:
        reports.send(error=refusal(error) if isinstance(error, OSError) else str(error))
        return 1
    if code in {0, 1}:  # others: it was stopped
        reports.send(ended=code)
    return code


def serve_job() -> int:
    """Run the command that the server writes to standard input; return the exit code."""
    reports = Reports(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # libraries may print
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with suppress(AttributeError, OSError):  # Windows has no such function
        os.nice(10)  # requests come first
    label, within, folder = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_stop_with_the_server, daemon=True).start()
    return run(label, within, folder, reports)


def _stop_with_the_server() -> None:
    os.read(0, 1)  # returns when the pipe is closed; not by `sys.stdin`, whose lock would hinder the exit
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(serve_job())
