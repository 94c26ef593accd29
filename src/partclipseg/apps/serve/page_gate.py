"""What browsers may ask of the page: what its own script asks, and nothing else that gradio offers.

Gradio's server can do more than this page needs: run functions for programs, forward requests, fetch files from
addresses that a client names. Here only the way of the page is open, and a photo is a file that was uploaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FILES = ("/", "/theme.css", "/manifest.json", "/favicon.ico", "/config")
_FOLDERS = ("/assets/", "/static/", "/gradio_api/file=")
_CALLS = ("upload", "upload_progress", "queue/join", "queue/data", "startup-events", "cancel", "reset", "info")
_JOIN = "/gradio_api/queue/join"

_MAX_BODY = 4_000_000
"""Bytes of a click: the words, and where the photo was uploaded to."""


class PageGate:
    """Answers 404 to all but the page's own paths and `own_paths`; 422 to a click that names a foreign file."""

    def __init__(self, app: ASGIApp, own_paths: frozenset[str], upload_folder: str) -> None:
        self.app = app
        self._paths = own_paths | {*_FILES, *(f"/gradio_api/{call}" for call in _CALLS)}
        self._folder = Path(upload_folder).resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path not in self._paths and not path.startswith(_FOLDERS):
            await JSONResponse({"detail": f"there is nothing at {path}"}, 404)(scope, receive, send)
            return
        if path != _JOIN:
            await self.app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await JSONResponse({"detail": "the request is too long"}, 413)(scope, receive, send)
        elif not self._names_uploads_only(body):
            await JSONResponse({"detail": "only files that were uploaded here"}, 422)(scope, receive, send)
        else:
            await self.app(scope, _replay(body, receive), send)

    def _names_uploads_only(self, body: bytes) -> bool:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return False
        waiting: list[Any] = [content]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "path" in value and not self._is_upload(value["path"]):
                    return False
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
        return True

    def _is_upload(self, path: Any) -> bool:
        try:
            return path is None or Path(path).resolve().is_relative_to(self._folder)
        except (TypeError, ValueError, OSError):  # not a path at all
            return False


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is longer than `_MAX_BODY` or breaks off."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or len(body) > _MAX_BODY:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
