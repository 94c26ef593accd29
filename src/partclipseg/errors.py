"""The two kinds of error that a person can mend, whose messages name the remedy; and what to quote of others.

Programming mistakes stay ordinary Python errors and keep their traceback.
"""


class PartCLIPSegError(ValueError):
    """Input, data or files are wrong; a command stops with exit code 1."""


class UsageError(PartCLIPSegError):
    """The call itself is wrong (words, options); a command stops with exit code 2."""


def first_line(error: Exception) -> str:
    """What an error of a library says, without the pages that may follow."""
    return str(error).strip().partition("\n")[0]
