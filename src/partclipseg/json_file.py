"""Read JSON and YAML of unknown origin; errors say in one sentence what is wrong.

A key given twice is an error everywhere: Python's JSON and YAML readers would silently keep the last value.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.files import is_regular

_LFS = b"version https://git-lfs.github.com/spec/"
_DVC = (b"outs:\n", b"md5:")
_LONGEST_KEY = 100
"""Maximum number of characters that a message shows of a key."""

_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "ZIP", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}


def read_json(path: Path) -> Any:
    """Read the content of a JSON file, see `parse_json`.

    Raises:
        PartCLIPSegError: no file, no JSON, or a key given twice; the message does not repeat the path.
    """
    return parse_json(read_bytes(path))


def parse_json(content: bytes) -> Any:
    """Read JSON in UTF-8, with or without byte order mark, or in UTF-16 or UTF-32.

    Raises:
        PartCLIPSegError: no JSON, or a key given twice; the message begins with a verb.
    """
    try:
        return json.loads(content, object_pairs_hook=distinct_keys)
    except PartCLIPSegError:
        raise
    except UnicodeDecodeError:
        reason = _other_file(content) or "is not UTF-8 text: save it as UTF-8"
    except RecursionError:
        reason = "is not valid JSON of any use (its lists are nested too deeply): replace it"
    except json.JSONDecodeError as error:
        reason = _other_file(content) or f"is not valid JSON ({error}){_cut_off(error)}: replace it"
    except ValueError as error:  # a number of more than 4300 digits
        reason = f"is not valid JSON of any use ({first_line(error)}): replace it"
    raise PartCLIPSegError(reason)


def distinct_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a mapping, as the `object_pairs_hook` of `json.loads`; raises `PartCLIPSegError` for a key given twice."""
    content: dict[Any, Any] = {}
    for key, value in pairs:
        if key in content:
            shown = f"{key[:_LONGEST_KEY]!r}…" if isinstance(key, str) and len(key) > _LONGEST_KEY else repr(key)
            raise PartCLIPSegError(
                f"has the key {shown} twice in one object, and one of the values would be lost: keep one of the two"
            )
        content[key] = value
    return content


def read_json_or_yaml(path: Path) -> Any:
    """Read a ``.json`` file, or YAML in a file of any other suffix; a key given twice is refused.

    Raises:
        PartCLIPSegError: as `read_json`.
    """
    if path.suffix.lower() == ".json":
        return read_json(path)
    import yaml

    own: dict[int, list[Any]] = {}  # keys of each node, by its id, without those that a merge adds

    class Loader(yaml.SafeLoader):
        """Safe loader that refuses equal keys; PyYAML's own keeps the last one."""

        def flatten_mapping(self, node: Any) -> None:
            own.setdefault(id(node), [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"])
            super().flatten_mapping(node)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping = super().construct_mapping(node, deep)  # which refuses keys without a hash
            distinct_keys([(self.construct_object(key, deep=True), None) for key in own[id(node)]])
            return mapping

    text = read_text(path)
    try:
        return yaml.load(text, Loader)  # a safe loader
    except PartCLIPSegError:
        raise
    except Exception as error:  # beside its own errors, whatever the constructors of dates and numbers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PartCLIPSegError(_other_file(text.encode()) or f"is not valid YAML ({reason}): correct it") from None


def read_text(path: Path) -> str:
    """Read UTF-8 text without its byte order mark.

    Raises:
        PartCLIPSegError: no file, or no text; the message does not repeat the path.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PartCLIPSegError(_other_file(content) or "is not UTF-8 text: save it as UTF-8") from None
    if text.strip() and (reason := _other_file(content)):
        raise PartCLIPSegError(reason)
    return text


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a file.

    Raises:
        PartCLIPSegError: it cannot be read; the message does not repeat the path.
    """
    try:
        is_regular(path)  # a pipe would be waited for
        return path.read_bytes()
    except IsADirectoryError:
        raise PartCLIPSegError("is a folder: name the file in it") from None
    except FileNotFoundError:
        raise PartCLIPSegError("is missing: check the path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENXIO:
            raise PartCLIPSegError(f"{str(error.strerror).removeprefix('it ')}: put the file itself there") from None
        reason = getattr(error, "strerror", None) or error
        raise PartCLIPSegError(f"cannot be read ({reason}): check the file and its permissions") from None


def _other_file(content: bytes) -> str | None:
    """Describe what the file contains instead of text."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start and len(content) <= 512:
        return "is empty: replace it"
    if not content[:4096].strip(b"\0"):
        return "holds nothing but zero bytes: copy it again"
    if start.startswith(_LFS):
        return "is a Git LFS pointer in place of the file: fetch the file itself with 'git lfs pull'"
    if start.startswith(_DVC):
        return "is a DVC pointer in place of the file: fetch the file itself with 'dvc pull'"
    if start[:15].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "is a web page in place of the file: download the file itself"
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            return f"is packed ({name}): unpack it first"
    return None


def _cut_off(error: json.JSONDecodeError) -> str:
    rest = error.doc[error.pos :].strip()
    return ", perhaps since the file is cut off" if not rest or error.msg.startswith("Unterminated") else ""


