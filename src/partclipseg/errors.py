"""The two kinds of error that a person can mend, whose messages name the remedy, and the first line of other errors.

Programming mistakes stay ordinary Python errors and keep their traceback.
"""


class PartCLIPSegError(ValueError):
    """Input, data or files are wrong; a command stops with exit code 1."""


class UsageError(PartCLIPSegError):
    """The call itself is wrong (words, options); a command stops with exit code 2."""


def first_line(error: Exception) -> str:
    """Return the first line of a library's error; the rest may be long."""
    return str(error).strip().partition("\n")[0]


def reason_of(error: Exception) -> str:
    """Return why something failed: the sentence of an error of this package, else the error's type and first line."""
    return str(error) if isinstance(error, PartCLIPSegError) else f"{type(error).__name__}: {first_line(error)}"
