"""Many files as one ZIP."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping


def zip_archive(files: Mapping[str, bytes]) -> bytes:
    """Return a ZIP of files by name; names may have folders."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # PNGs are compressed already.
            archive.writestr(name, content, zipfile.ZIP_STORED if name.endswith(".png") else None)
    return buffer.getvalue()
