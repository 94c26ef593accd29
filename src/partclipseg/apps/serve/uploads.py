"""Temporary folder for the page's uploaded photos and ZIPs, limited in number and size."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

KEPT_SECONDS = 3600
"""Seconds for which uploaded photos and ZIPs stay on the disk."""

_INTERVAL = 60
"""Seconds between two clean-ups."""


class Uploads:
    """Temporary folder that gradio finds in its environment variable. Removed when the server ends."""

    def __init__(self, max_bytes: int, max_files: int = 500) -> None:
        """
        Args:
            max_bytes: maximum size of all files together. Beyond it, the oldest are removed.
            max_files: maximum number of files, likewise.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="partclipseg-page-")).resolve()
        self.max_bytes, self._max_files = max_bytes, max_files
        self._kept: frozenset[Path] = frozenset()
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder)
        atexit.register(self.remove)

    def keep(self) -> None:
        """Keep the present files, which are the page's own, as long as the server runs."""
        self._kept = frozenset(self.folder.rglob("*"))

    def holds(self, path: object) -> bool:
        """Whether this is the path of a file in the folder."""
        try:
            file = Path(path).resolve()  # type: ignore[arg-type]
            return file.is_relative_to(self.folder) and file.is_file()
        except (TypeError, ValueError, OSError):  # not a path at all
            return False

    def clean(self) -> None:
        """Remove files that are too old, and the oldest of too many; failed removals are tried again later."""
        files = []
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                if path not in self._kept and path.is_file():
                    status = path.lstat()
                    files.append((status.st_ctime, status.st_size, path))
        size = number = 0
        for changed, bytes_, path in sorted(files, reverse=True):
            size, number = size + bytes_, number + 1
            if time.time() - changed > KEPT_SECONDS or size > self.max_bytes or number > self._max_files:
                with suppress(OSError):
                    path.unlink()
                    path.parent.rmdir()  # fails if it holds more files

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.environ.get("GRADIO_TEMP_DIR") == str(self.folder):
            del os.environ["GRADIO_TEMP_DIR"]
        atexit.unregister(self.remove)

    @asynccontextmanager
    async def cleaned(self) -> AsyncIterator[None]:
        """Clean up every minute until the end, then remove the folder."""
        task = asyncio.create_task(self._clean_for_ever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.remove()

    async def _clean_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            with suppress(OSError):
                await asyncio.to_thread(self.clean)
