"""The web page of ``partclipseg serve``: files of the folder ``static``, a client of the HTTP API."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files

from fastapi import FastAPI, Request, Response

from partclipseg.apps.serve.accept import weight

_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
"""Media types of the files; those that Python guesses depend on the machine."""


def add_page(app: FastAPI) -> None:
    """Add a path for each file of the page, ``/`` for ``index.html``.

    The files are read now: no request reaches the file system, so no path can lead out of the folder.
    """
    for file in sorted(files("partclipseg.apps.serve").joinpath("static").iterdir(), key=lambda file: file.name):
        suffix = "." + file.name.rpartition(".")[2]
        if suffix in _TYPES:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            app.add_route(path, _sender(file.read_bytes(), _TYPES[suffix]), include_in_schema=False)


def _sender(content: bytes, media_type: str):
    packed = gzip.compress(content, mtime=0)
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    # Browsers ask each time whether the file has changed, so that a new version is never mixed with an old one.
    head = {"Cache-Control": "no-cache", "ETag": tag, "Vary": "Accept-Encoding"}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=head)
        if weight(request.headers, "accept-encoding", "gzip"):
            return Response(packed, media_type=media_type, headers={**head, "Content-Encoding": "gzip"})
        return Response(content, media_type=media_type, headers=head)

    return send
