"""``segment.py`` of an exported model: one script, put together from the sources of the package."""

from __future__ import annotations

from pathlib import Path

_ERRORS = '''

class PartCLIPSegError(ValueError):
    """A photo or a file is wrong; the message names the remedy."""


class UsageError(PartCLIPSegError):
    """Words or their file are wrong; the message names the remedy."""

'''
_FIRST_LINE = '''

def first_line(error: Exception) -> str:
    """Return the first line of a library's error; the rest may be long."""
    return str(error).strip().partition("\\n")[0]

'''
_IS_REGULAR = '''

def is_regular(path: Path) -> bool:
    """Raise `OSError` for what is no file, such as a pipe, whose reader would wait for a writer."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.ENXIO, "it is no regular file", str(path))
    return path.exists()

'''
_FILES = '''

def is_file(path: Any) -> bool:
    """Whether `path` is an existing file; False, and no error, for text that no path can be."""
    try:
        return str(path) != "" and Path(path).is_file()
    except (OSError, ValueError):
        return False


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    path.write_text(text, encoding="utf-8")

'''
"""Source of the names that the readers of photos and words import from `errors` and `files`."""


def standalone_script() -> str:
    """Return ``segment.py``: `export.segment` with the readers of photos, words and files in place of their imports.

    The script then needs no PartCLIPSeg, and reads photos and words as PartCLIPSeg does.
    """
    from partclipseg import grammar, json_file, vocabulary
    from partclipseg.apps.export import segment as onnx_segment
    from partclipseg.data import pixels

    script, photos, rules, words, tables = (
        Path(str(module.__file__)).read_text(encoding="utf-8").strip()
        for module in (onnx_segment, pixels, grammar, vocabulary, json_file)
    )
    photos, rules, words, tables = (
        text.partition("from __future__ import annotations\n")[2].strip() for text in (photos, rules, words, tables)
    )
    photos = _replace(photos, "from partclipseg.errors import PartCLIPSegError", _ERRORS)
    rules = _replace(rules, "from partclipseg.errors import UsageError", "")
    catalogs = ", ".join(f'"{name}"' for name in grammar.CATALOGS)
    rules = _replace(rules, f"CATALOGS = ({catalogs})", "CATALOGS = ()")  # the class lists are not copied
    tables = _replace(tables, "from partclipseg.errors import PartCLIPSegError, first_line", _FIRST_LINE)
    tables = _replace(tables, "from partclipseg.files import is_regular", _IS_REGULAR)
    words = _replace(words, "from partclipseg.errors import PartCLIPSegError, UsageError", "")
    words = _replace(words, "from partclipseg.files import is_file, write_text", _FILES)
    readers = "from partclipseg.json_file import parse_json, read_json_or_yaml, read_text"
    words = _replace(words, readers, f"\n{tables}\n\n")
    before, _, after = words.partition("from partclipseg.grammar import (\n")
    words = before + after.partition("\n)\n")[2]
    photos = f"# -- reading photos -----\n\n{photos}\n"
    words = f"\n# -- reading words -----\n\n{rules}\n\n\n{words}\n\n\n# -- segmenting -----\n"
    script = _replace(script, "from partclipseg.data.pixels import read_photo", photos)
    for line in ("errors import PartCLIPSegError, UsageError, first_line", "json_file import read_json"):
        script = _replace(script, f"from partclipseg.{line}", "")
    return _replace(script, "from partclipseg.vocabulary import Vocabulary", words) + "\n"


def _replace(text: str, line: str, replacement: str) -> str:
    before, found, after = text.partition(f"\n{line}\n")
    if not found:
        raise RuntimeError(f"the script to export has no line {line!r}")
    return f"{before}\n{replacement}\n{after}"
