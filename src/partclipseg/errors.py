"""The two kinds of error that a person can mend; their messages name the remedy.

Programming mistakes stay ordinary Python errors and keep their traceback.
"""


class PartCLIPSegError(ValueError):
    """Input, data or files are wrong; a command stops with exit code 1."""


class UsageError(PartCLIPSegError):
    """The call itself is wrong (words, options); a command stops with exit code 2."""
