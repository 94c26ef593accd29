"""A result as files in memory, and many of them as one ZIP."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from partclipseg.inference.result import FORMAT_SUFFIXES, Format, PartResult


def document(result: PartResult, name: Format) -> dict[str, Any] | bytes:
    """One format: a JSON document, or the bytes of a PNG."""
    if name == "json":
        return result.to_dict()
    if name == "coco":
        return result.to_coco()
    if name == "labelme":
        return result.to_labelme(result.name)
    return _png(result.overlay() if name == "overlay" else result.label_image())


def result_files(result: PartResult, formats: Iterable[Format] = tuple(FORMAT_SUFFIXES)) -> dict[str, bytes]:
    """File name to content, named as `PartResult.save` names them."""
    stem = Path(result.name).stem
    files = {}
    for name in formats:
        content = document(result, name)
        if not isinstance(content, bytes):
            content = json.dumps(content, ensure_ascii=False).encode()
        files[stem + FORMAT_SUFFIXES[name]] = content
    return files


def zip_archive(files: Mapping[str, bytes]) -> bytes:
    """A ZIP of the files; names may have folders."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # PNGs are compressed already.
            archive.writestr(name, content, zipfile.ZIP_STORED if name.endswith(".png") else None)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
