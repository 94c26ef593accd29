"""Former names on the command line: each is taken for one release more, and standard error says the current one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "check-data": {"--root": ("--data",)},
    "evaluate": {"--root": ("--data",)},
    "export": {"--fp16": ("--dtype", "float16"), "--no-fp16": ("--dtype", "float32")},
    "train": {"--precision": ("--dtype",)},
}
"""Command: former option, and what stands in its place."""

OUTPUT_AFTER_MODEL = frozenset({"convert", "export"})
"""Commands whose directory to write used to stand after the model, without ``--output``. Each of their options takes
one value."""


def with_current_names(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a command with current names in place of former ones, and a sentence for each of these."""
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
    """Places of the arguments that are neither options nor their values, where every option takes one value."""
    is_value = False
    for place, argument in enumerate(arguments):
        if is_value:
            is_value = False
        elif argument.startswith("-"):
            is_value = "=" not in argument and argument not in {"-h", "--help"}
        else:
            yield place
