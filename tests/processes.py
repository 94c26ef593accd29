"""Processes that start within a moment: copies of one that has imported PyTorch and the package, which takes 5 seconds.

What a process of its own is there to show, such as its end by a signal, is the same; `python -m` itself is shown by
tests of other places.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import IO

PRELOADED = [
    "partclipseg.apps.cli",
    "partclipseg.apps.serve.command",
    "partclipseg.inference.segmenter",
    "partclipseg.models.fetch",
    "partclipseg.models.partclipseg.foreign",
    "partclipseg.models.partclipseg.model",
    "partclipseg.training.loop",
]
"""What the server imports; a module whose packages are missing is left out."""


def quick_context() -> ForkServerContext:
    """The context whose processes are copies of one server, which starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Command:
    """`partclipseg ARGUMENTS` as a process, or another function that returns an exit code.

    Args:
        arguments: words of the command.
        run: function of a module that is called with them; None calls the command line.
        environment: variables that the process has besides those of this one.
    """

    def __init__(
        self,
        *arguments: object,
        run: Callable[[list[str]], int] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        context = quick_context()
        ours, theirs = context.Pipe(duplex=False)
        words = [str(argument) for argument in arguments]
        # The server's own variables are those that it was started with, by whichever test came first.
        variables = {**os.environ, **(environment or {})}
        self.process: ForkServerProcess = context.Process(target=_run, args=(theirs, run, words, variables))
        self.process.start()
        theirs.close()
        self.pid = self.process.pid or 0
        self.output: IO[str] = os.fdopen(os.dup(ours.fileno()), encoding="utf-8")
        """Standard output and standard error."""
        ours.close()

    def poll(self) -> int | None:
        """Return the exit code, or minus the number of the signal; None while the process runs."""
        return self.process.exitcode

    def wait(self, seconds: float = 120) -> int:
        """Wait for the end; return as `poll` does."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"the process has not ended within {seconds} seconds"
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()


def _run(
    output: Connection, run: Callable[[list[str]], int] | None, arguments: list[str], environment: dict[str, str]
) -> None:
    import torch

    from partclipseg.apps.cli import main

    for number, name in enumerate(("stdout", "stderr"), start=1):
        os.dup2(output.fileno(), number)
        setattr(sys, name, open(number, "w", buffering=1, encoding="utf-8", closefd=False))  # noqa: SIM115
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit((run or main)(arguments))
