"""The command ``partclipseg``: finds the command's module, reads its options, turns errors into exit codes.

Each command is a frozen dataclass of options with a ``run() -> int`` method, in a module of its own that is
imported only when the command is called. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from importlib import import_module

COMMANDS = {
    "demo": ("demo", "Demo", "segment built-in scenes with the built-in model, offline"),
    "predict": ("predict", "Predict", "photos and words in, labelled parts out"),
    "label": ("label.command", "Label", "label a folder of thousands of photos"),
    "evaluate": ("evaluate", "Evaluate", "score a model on a benchmark or on your own data"),
    "train": ("train", "Train", "train a model by a recipe"),
    "prepare": ("prepare", "Prepare", "bring a benchmark's raw source into its layout"),
    "check-data": ("check_data", "CheckData", "say what is in a data set's folder, and what is wrong with it"),
    "serve": ("serve", "Serve", "a web page and an HTTP API on this machine"),
    "convert": ("convert", "Convert", "turn a released .pth checkpoint into a model directory"),
    "export": ("export", "Export", "write a model as ONNX, to run without PyTorch"),
}
"""Command: module in `partclipseg.apps`, options class, one line of help."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code. `arguments` default to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in {"-h", "--help"}:
        _print_overview()
        return 0 if arguments else 2
    if arguments[0] in {"-V", "--version"}:
        from rich import print as show

        from partclipseg import __version__

        show(f"partclipseg {__version__}")
        return 0
    command, *options = arguments
    if command not in COMMANDS:
        _say(f"there is no command {command!r}; the commands are: {', '.join(COMMANDS)}")
        return 2
    return _run(command, options)


def _run(command: str, arguments: list[str]) -> int:
    # Third-party chatter (progress bars of weight loading, retries of downloads) would bury the one line that matters.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    import tyro

    from partclipseg.errors import PartCLIPSegError, UsageError
    from partclipseg.files import refusal

    module, name, _ = COMMANDS[command]
    options_class = getattr(import_module(f"partclipseg.apps.{module}"), name)
    try:
        # The docstring as it is: tyro's own reading of it drops the examples.
        description = inspect.getdoc(options_class)
        options = tyro.cli(options_class, prog=f"partclipseg {command}", description=description, args=arguments)
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
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stdout = None
        return 0
    except OSError as error:
        _say(refusal(error))
        return 1


def _print_overview() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("[bold]partclipseg[/] finds the parts of things in photos, by your own words.\n")
    predict = 'partclipseg predict photo.jpg --vocabulary "dog: ear, tail; bus: wheel" --model models/pascal'
    console.print(f"  partclipseg demo\n  {predict}\n", soft_wrap=True)
    table = Table.grid(padding=(0, 3))
    for command, (_, _, summary) in COMMANDS.items():
        table.add_row(f"  [bold]{command}[/]", summary)
    console.print(table)
    console.print("\nOptions of a command: partclipseg COMMAND --help")


def _say(message: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(f"partclipseg: {message}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
