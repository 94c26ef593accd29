"""Former option names: each is accepted for one release more, and standard error says the current one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "check-data": {"--root": ("--data",)},
    "evaluate": {"--root": ("--data",)},
    "export": {"--fp16": ("--dtype", "float16"), "--no-fp16": ("--dtype", "float32")},
    "train": {"--precision": ("--dtype",)},
}
"""Former options of each command, and their current names."""

OUTPUT_AFTER_MODEL = frozenset({"convert", "export"})
"""Commands whose directory to write used to stand after the model, without ``--output``. Each of their options takes
one value, but for those of `_VALUES`."""

_VALUES = {"-h": 0, "--help": 0, "--object-gate": 0, "--no-object-gate": 0, "--prompt": sys.maxsize}
"""Maximum number of values of an option; they end at the next option."""


def with_current_options(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace former names in a command's arguments; return the new arguments and a sentence for each former name."""
    current: list[str] = []
    remarks: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        new = OPTIONS.get(command, {}).get(name)
        if new is None:
            current.append(argument)
            continue
        current += [new[0] + equals + value, *new[1:]]
        remarks.append(f"{name} is now {' '.join(new)}; the next release no longer takes the former name")
    if command in OUTPUT_AFTER_MODEL:
        places = list(_positionals(current))
        if len(places) == 2:
            current.insert(places[1], "--output")
            remarks.append(
                f"the directory is now named by --output {current[places[1] + 1]}; the next release no longer takes it "
                "without"
            )
    return current, remarks


def _positionals(arguments: Sequence[str]) -> Iterator[int]:
    """Yield the indices of positional arguments, for a command of `OUTPUT_AFTER_MODEL`."""
    values = 0
    for place, argument in enumerate(arguments):
        if argument.startswith("-") and values != 1:  # the value of an option that takes one may begin so
            values = 0 if "=" in argument else _VALUES.get(argument, 1)
        elif values:
            values -= 1
        else:
            yield place
