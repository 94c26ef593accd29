"""The command ``partclipseg``: finds the command's module, reads its options, turns errors into exit codes.

Each command is a frozen dataclass of options with a ``run() -> int`` method, in a module of its own that is
imported only when the command is called. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from partclipseg.likeness import nearest_name

COMMANDS = {
    "demo": ("demo", "Demo", "segment built-in scenes with the built-in model, offline"),
    "models": ("models", "Models", "list the models that --model fetches by name"),
    "predict": ("predict", "Predict", "find the parts of things in photos"),
    "label": ("label.command", "Label", "label a folder of thousands of photos"),
    "evaluate": ("evaluate.command", "Evaluate", "score a model on a benchmark or on your own data"),
    "benchmark": ("benchmark.command", "Benchmark", "score models in a published benchmark of several tasks"),
    "train": ("train", "Train", "train a model by a recipe"),
    "prepare": ("prepare", "Prepare", "make a benchmark's folder from its raw source"),
    "check-data": ("check_data", "CheckData", "say what is in a data set's folder, and what is wrong with it"),
    "serve": ("serve.command", "Serve", "open a web page and an HTTP API on this machine"),
    "convert": ("convert", "Convert", "turn a released .pth checkpoint into a model directory"),
    "export": ("export.command", "Export", "write a model as ONNX, to run without PyTorch"),
}
"""Command: module in `partclipseg.apps`, options class, one line of help."""


LOG_LEVELS = ("debug", "info", "warning", "error")
"""Least level of messages that ``--log-level`` takes."""


class _LastingOutput:
    """Output stream whose failure does not end the work: further output is dropped, as after ``| head``."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.refused: OSError | None = None
        """Reason why output is missing, such as a full disk; None if nobody wants it, as where a pipe is closed."""
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # terminals cannot show every word and file name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._unless_refused():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unless_refused():
            self._stream.flush()

    @contextmanager
    def _unless_refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.refused = self.refused or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. `arguments` default to those of the process."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and _LastingOutput(stream) for stream in before)
    try:
        code = _main(arguments)
        if sys.stdout:
            sys.stdout.flush()
            if error := sys.stdout.refused:
                reason = error.strerror or error
                _say(f"what was printed is not complete ({reason}): make room, or send it elsewhere")
                code = code or 1
        return code
    finally:
        sys.stdout, sys.stderr = before


def _main(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["help"]:  # as in git help COMMAND
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in {"-h", "--help"}:
        _print_overview()
        return 0 if arguments else 2
    if arguments[0] in {"-V", "--version"}:
        from rich import print as show

        from partclipseg import __version__

        show(f"partclipseg {__version__}")
        return 0
    level, arguments = _take_log_level(arguments)
    if level not in LOG_LEVELS:
        _say(f"--log-level must be one of {', '.join(LOG_LEVELS)}, not {level!r}")
        return 2
    if not arguments:
        _print_overview()
        return 2
    command, *options = arguments
    if command not in COMMANDS:
        close = nearest_name(command, COMMANDS)
        meant = f", did you mean {close}? The" if close else "; the"
        _say(f"there is no command {command!r}{meant} commands are: {', '.join(COMMANDS)}")
        return 2
    return _run(command, options, level)


def _take_log_level(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the level that ``--log-level`` names, which every command takes, and the other arguments."""
    level, others = "warning", []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name in {"--log-level", "--log_level"}:
            level = value if equals else next(remaining, "")
        else:
            others.append(argument)
    return level.lower(), others


def _run(command: str, arguments: list[str], level: str) -> int:
    # Third-party chatter (progress bars of weight loading, retries of downloads) would bury the one line that matters.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # downloads show a bar of ours
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # operations that MPS lacks run on the CPU
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("partclipseg").setLevel(level.upper())
    import tyro

    from partclipseg.apps.arguments import check_given_once, check_quotes, check_words_given, option_values
    from partclipseg.apps.former import with_current_options
    from partclipseg.apps.help_text import join_lines
    from partclipseg.errors import PartCLIPSegError, UsageError
    from partclipseg.files import refusal, require_folder

    module, name, _ = COMMANDS[command]
    options_class = getattr(import_module(f"partclipseg.apps.{module}"), name)
    try:
        check_quotes(arguments)
        arguments, remarks = with_current_options(command, arguments)
        for remark in remarks if os.environ.get("RANK", "0") == "0" else ():  # once, of torchrun's processes
            _say(remark)
        # The docstring as it is: tyro's own reading of it drops the examples.
        description = inspect.getdoc(options_class)
        if hasattr(options_class, "completed"):
            arguments = options_class.completed(arguments)
        join_lines(options_class)
        options = tyro.cli(
            options_class,
            prog=f"partclipseg {command}",
            description=description,
            args=arguments,
            config=(tyro.conf.HelptextFromCommentsOff,),  # tyro would read the source for them at each call
            registry=option_values(),
        )
        check_words_given(options, arguments)
        check_given_once(options, arguments)
        _check_models(options)
        if getattr(options, "output", None) is not None:
            require_folder(options.output)
        return options.run()
    except SystemExit as stop:  # tyro: 0 after --help, 2 after a wrong option
        return int(stop.code or 0)
    except UsageError as error:
        _say(str(error))
        return 2
    except PartCLIPSegError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except OSError as error:
        _say(refusal(error))
        return 1


def _check_models(options: Any) -> None:
    """Raise `PartCLIPSegError` for a mistyped model, before anything slow is imported."""
    if hasattr(options, "model"):
        from partclipseg.models.names import check_model_name

        for name in options.model if isinstance(options.model, list | tuple) else [options.model]:
            check_model_name(name)


def _print_overview() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("[bold]partclipseg[/] finds the parts of things in photos, by your own words.\n")
    words = "dog: head, torso, leg, tail"
    predict = f'partclipseg predict photo.jpg --vocabulary "{words}" --model partclipseg-pascal'
    console.print(f"  partclipseg demo\n  {predict}\n", soft_wrap=True)
    table = Table.grid(padding=(0, 3))
    for command, (_, _, summary) in COMMANDS.items():
        table.add_row(f"  [bold]{command}[/]", summary)
    console.print(table)
    console.print("\nOptions of a command: partclipseg COMMAND --help")
    console.print(f"Messages of every command: --log-level {'|'.join(LOG_LEVELS)}")


def _say(message: str) -> None:
    from partclipseg.apps.terminal import plain_console

    plain_console(stderr=True).print(f"partclipseg: {message}")


if __name__ == "__main__":
    sys.exit(main())
